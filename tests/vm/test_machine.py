"""A machine through libvirt's embedded driver: all that it can do, on a real guest."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hypervisor.connection import Hypervisor, open_hypervisor
from hypervisor.deadline import CancelToken, Deadline
from hypervisor.errors import Cancelled, DeadlineExceeded, HostError
from hypervisor.libvirt_errors import HypervisorError
from hypervisor.machine import DiskSpec, Machine, MachineSpec, running

pytestmark = pytest.mark.vm
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def hypervisor(build_cache: Path) -> Iterator[Hypervisor]:
    with open_hypervisor(cache=build_cache) as opened:
        yield opened


@pytest.fixture
def deadline() -> Deadline:
    return Deadline.after(300, "the test's budget")


Spec = Callable[..., MachineSpec]


@pytest.fixture
def spec(bare_guest: Any, tmp_path: Path) -> Spec:
    def make(do: str = "sleep", **changes: Any) -> MachineSpec:
        values: dict[str, Any] = {
            "name": f"aib-test-{do}",
            "vcpus": 1,
            "memory_mib": 256,
            "disks": (),
            "console_log": tmp_path / f"{do}.log",
            "network": "none",
            "kernel": bare_guest.kernel,
            "initrd": bare_guest.initrd,
            "cmdline": f"console=ttyS0 quiet panic=1 do={do}",
        }
        return MachineSpec(**(values | changes))

    return make


def disk(path: Path, size: int = MIB) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


def wait_ready(machine: Machine, deadline: Deadline) -> None:
    wait_console(machine, deadline, "READY")


def wait_console(machine: Machine, deadline: Deadline, text: str) -> None:
    deadline.wait_until(lambda: text in machine.console_tail(65536), f"waiting for {text!r}")


def gone(pid: int) -> bool:
    """Ended and reaped: not even a zombie is left."""
    return pid > 0 and not Path(f"/proc/{pid}").exists()


def test_the_guest_has_what_was_asked_for(
    hypervisor: Hypervisor, spec: Spec, tmp_path: Path, deadline: Deadline
) -> None:
    disks = (
        DiskSpec(disk(tmp_path / "os.raw", 4 * MIB), "raw", serial="os"),
        DiskSpec(disk(tmp_path / "seed.raw"), "raw", readonly=True, serial="seed"),
    )
    with running(hypervisor, spec(vcpus=2, memory_mib=384, network="user", disks=disks), deadline) as machine:
        wait_console(machine, deadline, "serial seed ro 1 sectors 2048")
        said = machine.console_tail()
    assert "cpus 2 firmware bios nics 1" in said
    assert 384 * 1024 * 0.8 < int(re.findall(r"memory (\d+)", said)[0]) < 384 * 1024
    assert "disk vda serial os ro 0 sectors 8192" in said
    assert "disk vdb serial seed ro 1 sectors 2048" in said
    assert gone(machine.qemu_pid)


def test_uefi_and_no_network(hypervisor: Hypervisor, spec: Spec, deadline: Deadline) -> None:
    with running(hypervisor, spec(firmware="uefi"), deadline) as machine:
        wait_ready(machine, deadline)
        assert "firmware uefi nics 0" in machine.console_tail()
        with pytest.raises(HostError, match="no network"):
            machine.forward(22)


def test_forwards_lead_to_the_guest(hypervisor: Hypervisor, spec: Spec, deadline: Deadline) -> None:
    with running(hypervisor, spec(network="user"), deadline) as machine:
        address = machine.forward(22)
        assert address[0] == "127.0.0.1"
        assert address != machine.forward(22)
        wait_ready(machine, deadline)
        with socket.create_connection(address, timeout=60) as connection:
            assert connection.recv(64) == b"SSH-2.0-bare\n"
        with pytest.raises(HostError, match=f"port {address[1]} of 127.0.0.1"):
            machine.forward(23, address[1])
        with socket.create_server(("127.0.0.1", 0)) as other:
            taken = other.getsockname()[1]
            with pytest.raises(HostError, match=f"port {taken}"):
                machine.forward(22, taken)
        assert machine.forward(22, taken) == ("127.0.0.1", taken)  # free again: now it can be had


def test_every_reboot_is_counted_once(hypervisor: Hypervisor, spec: Spec, deadline: Deadline) -> None:
    with running(hypervisor, spec("reboot"), deadline) as machine:
        deadline.wait_until(lambda: machine.console_tail(65536).count("READY") == 3, "booting three times")
        assert machine.reboots() == 2
        assert machine.is_running()


def test_a_panic_is_a_reboot_and_not_an_end(hypervisor: Hypervisor, spec: Spec, deadline: Deadline) -> None:
    with running(hypervisor, spec("panic"), deadline) as machine:
        deadline.wait_until(lambda: machine.reboots() >= 1, "the panic")
        assert machine.is_running()
        assert "Kernel panic" in machine.console_tail(65536)


def test_the_power_button_works(hypervisor: Hypervisor, spec: Spec, tmp_path: Path, deadline: Deadline) -> None:
    image = tmp_path / "os.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "64M"], check=True)
    with running(hypervisor, spec(disks=(DiskSpec(image, "qcow2"),)), deadline) as machine:
        wait_ready(machine, deadline)
        assert machine.power_off(deadline) is True
        assert "POWER BUTTON" in machine.console_tail()
        assert not machine.is_running()
        assert gone(machine.qemu_pid)
        subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", image], check=True)  # no lock is left on it
        assert machine.power_off(deadline) is True  # off is off


def test_a_guest_that_does_not_hear_loses_its_power(hypervisor: Hypervisor, spec: Spec, deadline: Deadline) -> None:
    with running(hypervisor, spec("deaf"), deadline) as machine:
        wait_console(machine, deadline, "DEAF")
        assert machine.power_off(deadline.limited(2, "two seconds")) is False
        assert gone(machine.qemu_pid)


def test_a_guest_may_end_by_itself(hypervisor: Hypervisor, spec: Spec, deadline: Deadline) -> None:
    with running(hypervisor, spec("poweroff"), deadline) as machine:
        machine.wait_off(deadline)
        assert not machine.is_running()
        assert gone(machine.qemu_pid)
        assert machine.reboots() == 0


def test_waiting_ends_with_the_deadline(hypervisor: Hypervisor, spec: Spec, deadline: Deadline) -> None:
    with running(hypervisor, spec(), deadline) as machine:
        with pytest.raises(DeadlineExceeded, match="one second is used up while waiting for the VM"):
            machine.wait_off(deadline.limited(1, "one second"))
        assert machine.is_running()
    assert gone(machine.qemu_pid)


def test_a_cancelled_power_off_pulls_the_plug(hypervisor: Hypervisor, spec: Spec, deadline: Deadline) -> None:
    token = CancelToken()
    with running(hypervisor, spec(), deadline) as machine:
        token.cancel()
        with pytest.raises(Cancelled):
            machine.power_off(Deadline.after(60, token=token))
        assert gone(machine.qemu_pid)


def test_disks_come_and_go(hypervisor: Hypervisor, spec: Spec, tmp_path: Path, deadline: Deadline) -> None:
    payloads = [DiskSpec(disk(tmp_path / f"{n}.raw"), "raw", readonly=True, serial=f"payload{n}") for n in range(3)]
    with running(hypervisor, spec(), deadline) as machine:
        wait_ready(machine, deadline)
        for number, target in enumerate(("vda", "vdb", "vdc")):
            assert machine.attach_disk(payloads[number]) == target
            # One by one: what is plugged in at once may get its names in any order.
            wait_console(machine, deadline, f"disk {target} serial payload{number} ro 1 sectors 2048")
        machine.detach_disk("vdb", deadline)
        wait_console(machine, deadline, "gone vdb")
        assert machine.attach_disk(payloads[1]) == "vdb"
        with pytest.raises(HostError, match="no disk vdz"):
            machine.detach_disk("vdz", deadline)


def test_what_the_screen_shows(hypervisor: Hypervisor, spec: Spec, deadline: Deadline) -> None:
    with running(hypervisor, spec(graphics=True), deadline) as machine:
        wait_ready(machine, deadline)
        assert machine.screenshot().startswith(b"\x89PNG\r\n")
        vnc = machine.vnc
        assert vnc is not None
        address, port, password = vnc
        assert password
        with socket.create_connection((address, port), timeout=10) as connection:
            assert connection.recv(12).startswith(b"RFB 003")


def test_a_screen_can_be_photographed_and_not_be_connected_to(
    hypervisor: Hypervisor, spec: Spec, deadline: Deadline
) -> None:
    with running(hypervisor, spec(screen=True), deadline) as machine:
        wait_ready(machine, deadline)
        assert machine.screenshot().startswith(b"\x89PNG\r\n")
        assert machine.vnc is None


def test_without_a_screen_there_is_nothing_to_show(hypervisor: Hypervisor, spec: Spec, deadline: Deadline) -> None:
    with running(hypervisor, spec(), deadline) as machine:
        assert machine.vnc is None
        with pytest.raises(HostError, match="no screen"):
            machine.screenshot()


def test_an_error_in_the_block_ends_the_vm(hypervisor: Hypervisor, spec: Spec, deadline: Deadline) -> None:
    with pytest.raises(RuntimeError, match="ours"), running(hypervisor, spec(), deadline) as machine:
        raise RuntimeError("ours")
    assert gone(machine.qemu_pid)


def test_a_qemu_that_is_killed_is_noticed(hypervisor: Hypervisor, spec: Spec, deadline: Deadline) -> None:
    with running(hypervisor, spec(), deadline) as machine:
        os.kill(machine.qemu_pid, signal.SIGKILL)
        machine.wait_off(deadline)
    assert gone(machine.qemu_pid)


def test_a_second_vm_beside_the_first(hypervisor: Hypervisor, spec: Spec, deadline: Deadline) -> None:
    with running(hypervisor, spec("sleep"), deadline) as first:
        with running(hypervisor, spec("reboot"), deadline) as second:
            deadline.wait_until(lambda: second.reboots() == 1, "the second VM's reboot")
        assert first.reboots() == 0
        assert gone(second.qemu_pid)
        assert first.is_running()


@pytest.mark.parametrize("content", [b"", b"QFI\xfb\x00\x00\x00\x03" + b"\xff" * 600], ids=["empty", "corrupt"])
def test_a_broken_disk_is_named_and_nothing_is_left(
    hypervisor: Hypervisor, spec: Spec, tmp_path: Path, deadline: Deadline, content: bytes
) -> None:
    image = tmp_path / "broken.qcow2"
    image.write_bytes(content)
    with pytest.raises(HypervisorError) as caught, contextlib.ExitStack() as stack:
        stack.enter_context(running(hypervisor, spec(disks=(DiskSpec(image, "qcow2"),)), deadline))
    assert caught.value.exit_code == 3
    assert "aib-test-sleep" in caught.value.message
    assert hypervisor.handle.listAllDomains() == []


def test_a_missing_disk_is_named(hypervisor: Hypervisor, spec: Spec, tmp_path: Path, deadline: Deadline) -> None:
    missing = tmp_path / "missing.qcow2"
    with pytest.raises(HypervisorError, match=re.escape(str(missing))), contextlib.ExitStack() as stack:
        stack.enter_context(running(hypervisor, spec(disks=(DiskSpec(missing, "qcow2"),)), deadline))


def test_the_console_starts_empty_and_is_private(hypervisor: Hypervisor, spec: Spec, deadline: Deadline) -> None:
    wanted = spec()
    wanted.console_log.write_text("an earlier run")
    with running(hypervisor, wanted, deadline) as machine:
        wait_ready(machine, deadline)
        assert "an earlier run" not in machine.console_tail(65536)
        assert wanted.console_log.stat().st_mode & 0o077 == 0
