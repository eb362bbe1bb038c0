"""A running guest kept with its memory, and resumed elsewhere."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import uuid
from pathlib import Path

import pytest

from hypervisor import disk, seed, snapshot
from hypervisor.connection import open_hypervisor
from hypervisor.deadline import Deadline
from hypervisor.libvirt_errors import HypervisorError
from hypervisor.machine import DiskSpec, Machine, MachineSpec, running
from hypervisor.spec import Firmware
from provisioners.communicators.ssh import SshCommunicator
from provisioners.communicators.ssh_connect import connect
from provisioners.identity import BuildIdentity
from provisioners.provisioning import nocloud_documents

pytestmark = pytest.mark.vm
BACKGROUND = "sleep 1000 </dev/null >/dev/null 2>&1 &"


def ask(connection: SshCommunicator, command: str) -> str:
    said = bytearray()
    result = connection.run(command, deadline=Deadline.after(60), output=lambda _, data: said.extend(data))
    assert result.exit_code == 0, said
    return said.decode().strip()


def log_in(machine: Machine, identity: BuildIdentity, deadline: Deadline) -> SshCommunicator:
    host, port = machine.forward(22)
    return connect(
        host, port, user=identity.user, key=identity.login_private, host_key=identity.host_public, deadline=deadline
    )


def spec_of(folder: Path, os_disk: Path, identity: BuildIdentity, firmware: Firmware) -> MachineSpec:
    folder.mkdir(exist_ok=True)
    seed.write_iso(folder / "seed.iso", nocloud_documents(identity))
    return MachineSpec(
        name="aib-test-snapshot",
        vcpus=1,
        memory_mib=512,
        disks=(DiskSpec(os_disk, "qcow2", serial="os"), DiskSpec(folder / "seed.iso", "raw", readonly=True)),
        console_log=folder / "console.log",
        firmware=firmware,
        mac=identity.mac,
        uuid=str(uuid.uuid4()),
    )


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_a_guest_goes_on_from_where_it_was_saved(
    tiny_image: Path, build_cache: Path, tmp_path: Path, firmware: Firmware
) -> None:
    identity, deadline = BuildIdentity.create(), Deadline.after(400, "the test's budget")
    first, then, later = (tmp_path / f"{name}.qcow2" for name in ("first", "then", "later"))
    memory, nvram = tmp_path / "memory", tmp_path / "nvram"
    disk.create_overlay(tiny_image, "qcow2", first)
    spec = spec_of(tmp_path / "one", first, identity, firmware)
    with open_hypervisor(cache=build_cache) as hypervisor:
        with running(hypervisor, spec, deadline) as machine:
            connection = log_in(machine, identity, deadline)
            boot = ask(connection, f"echo before > ~/kept; {BACKGROUND} cat /proc/sys/kernel/random/boot_id")
            disk.create_overlay(first, "qcow2", then)
            snapshot.save(machine, memory, then, nvram=nvram)
            assert ask(connection, "echo after >> ~/kept; cat ~/kept").split() == ["before", "after"]
            connection.close()
        assert nvram.exists() == (firmware == "uefi")

        disk.create_overlay(first, "qcow2", later)
        spec = dataclasses.replace(
            spec_of(tmp_path / "two", later, identity, firmware), uuid=spec.uuid, run_id="another"
        )
        with snapshot.restored(hypervisor, spec, memory, deadline, nvram=nvram) as machine:
            connection = log_in(machine, identity, deadline)
            assert ask(connection, "cat ~/kept /proc/sys/kernel/random/boot_id").split() == ["before", boot]
            assert "sleep 1000" in ask(connection, "ps -o args 2>/dev/null || ps")
            pid = machine.qemu_pid
        assert pid
        assert not Path(f"/proc/{pid}").exists()


def test_a_cut_memory_file_is_refused_and_leaves_nothing(tiny_image: Path, build_cache: Path, tmp_path: Path) -> None:
    identity, deadline = BuildIdentity.create(), Deadline.after(300, "the test's budget")
    first, then = tmp_path / "first.qcow2", tmp_path / "then.qcow2"
    memory = tmp_path / "memory"
    disk.create_overlay(tiny_image, "qcow2", first)
    spec = spec_of(tmp_path / "one", first, identity, "bios")
    with open_hypervisor(cache=build_cache) as hypervisor:
        with running(hypervisor, spec, deadline) as machine:
            log_in(machine, identity, deadline).close()
            disk.create_overlay(first, "qcow2", then)
            snapshot.save(machine, memory, then)
        with memory.open("r+b") as file:
            file.truncate(memory.stat().st_size // 2)
        with pytest.raises(HypervisorError), snapshot.restored(hypervisor, spec, memory, deadline):
            pass
        assert hypervisor.qemu_processes(spec.uuid) == []


def test_memory_that_finds_no_room_is_an_error_and_the_guest_runs_on(
    tiny_image: Path, build_cache: Path, tmp_path: Path
) -> None:
    identity, deadline = BuildIdentity.create(), Deadline.after(300, "the test's budget")
    first, then = tmp_path / "first.qcow2", tmp_path / "then.qcow2"
    disk.create_overlay(tiny_image, "qcow2", first)
    spec = spec_of(tmp_path / "one", first, identity, "bios")
    with open_hypervisor(cache=build_cache) as hypervisor, running(hypervisor, spec, deadline) as machine:
        connection = log_in(machine, identity, deadline)
        disk.create_overlay(first, "qcow2", then)
        with pytest.raises(HypervisorError):
            snapshot.save(machine, tmp_path / "missing" / "memory", then)
        assert ask(connection, "echo alive") == "alive"
        if os.getuid() == 0:  # a file system that is full before half of the memory is there
            small = tmp_path / "small"
            small.mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "none", str(small)], check=True)
            try:
                with pytest.raises(HypervisorError):
                    snapshot.save(machine, small / "memory", then)
                assert list(small.iterdir()) == []
            finally:
                subprocess.run(["umount", "-l", str(small)], check=True)
            assert ask(connection, "echo alive > ~/kept; sync; cat ~/kept") == "alive"
        connection.close()
