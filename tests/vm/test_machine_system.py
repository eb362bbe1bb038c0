"""The machine through qemu:///system."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hypervisor.connection import Hypervisor, open_hypervisor
from hypervisor.deadline import Deadline
from hypervisor.domain import domain_xml
from hypervisor.machine import DiskSpec, MachineSpec, running
from hypervisor.sweep import sweep_daemon

pytestmark = [pytest.mark.vm, pytest.mark.alone]
ROOT = Path(__file__).parents[2]
URI = "qemu:///system"


@pytest.fixture
def hypervisor(system_daemon: None) -> Iterator[Hypervisor]:
    with open_hypervisor(URI) as opened:
        yield opened


@pytest.fixture
def deadline() -> Deadline:
    return Deadline.after(300)


@pytest.fixture
def spec(bare_guest: Any, tmp_path: Path) -> MachineSpec:
    image = tmp_path / "os.raw"
    image.write_bytes(bytes(1 << 20))
    return MachineSpec(
        name="aib-test-system",
        vcpus=1,
        memory_mib=256,
        disks=(DiskSpec(image, "raw", serial="os"),),
        console_log=tmp_path / "console.log",
        kernel=bare_guest.kernel,
        initrd=bare_guest.initrd,
        cmdline="console=ttyS0 quiet do=sleep",
    )


def test_a_machine_in_private_folders(hypervisor: Hypervisor, spec: MachineSpec, deadline: Deadline) -> None:
    owners = [path.stat().st_uid for path in (spec.disks[0].path, spec.kernel or Path())]
    assert spec.disks[0].path.parent.stat().st_mode & 0o077 == 0
    with running(hypervisor, spec, deadline) as machine:
        machine.forward(22)
        deadline.wait_until(lambda: "serial os ro 0" in machine.console_tail(), "the boot")
        assert Path(f"/proc/{machine.qemu_pid}").stat().st_uid == os.getuid()
        assert machine.power_off(deadline)
    assert [path.stat().st_uid for path in (spec.disks[0].path, spec.kernel or Path())] == owners
    assert [domain.name() for domain in hypervisor.handle.listAllDomains() if domain.name() == spec.name] == []


def test_the_daemon_ends_the_vm_of_a_killed_client(
    hypervisor: Hypervisor, spec: MachineSpec, deadline: Deadline
) -> None:
    program = """
        import json, sys, time
        from pathlib import Path
        from hypervisor.connection import open_hypervisor
        from hypervisor.deadline import Deadline
        from hypervisor.machine import MachineSpec, running
        kernel, initrd, console = map(Path, sys.argv[1:])
        with open_hypervisor("qemu:///system") as hypervisor:
            spec = MachineSpec("aib-test-killed", 1, 256, (), console, kernel=kernel, initrd=initrd, run_id="killed",
                               cmdline="console=ttyS0 quiet do=sleep", network="none")
            with running(hypervisor, spec, Deadline.after(300)) as machine:
                print(json.dumps([machine.spec.uuid, str(hypervisor.root)]), flush=True)
                time.sleep(300)
    """
    words = [sys.executable, "-c", textwrap.dedent(program), str(spec.kernel), str(spec.initrd), str(spec.console_log)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=ROOT) as client:
        assert client.stdout is not None
        uuid, root = json.loads(client.stdout.readline())
        assert hypervisor.handle.lookupByUUIDString(uuid).isActive()
        assert sweep_daemon(hypervisor.handle) == []  # its owner lives
        client.kill()

    def gone() -> bool:
        return all(domain.UUIDString() != uuid for domain in hypervisor.handle.listAllDomains())

    deadline.limited(10, "10 seconds").wait_until(gone, "waiting for the daemon to end the VM")
    deadline.limited(10, "10 seconds").wait_until(lambda: not Path(root).exists(), "waiting for the watchdog")


def test_the_sweep_ends_what_a_restarted_daemon_has_forgotten(
    hypervisor: Hypervisor, spec: MachineSpec, tmp_path: Path
) -> None:
    dead = domain_xml(spec, emulator=hypervisor.emulator, root=tmp_path / "gone", dac_label=hypervisor.dac_label)
    domain = hypervisor.handle.createXML(dead, 0)
    try:
        assert sweep_daemon(hypervisor.handle) == [spec.name]
        assert sweep_daemon(hypervisor.handle) == []
    finally:
        if any(one.name() == spec.name for one in hypervisor.handle.listAllDomains()):
            domain.destroy()
