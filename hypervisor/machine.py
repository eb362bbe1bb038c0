"""A VM that exists only inside a `with`: whatever happens, nothing of it is left running."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import secrets
import select
import signal
import threading
import time
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypervisor import network
from hypervisor.connection import Hypervisor
from hypervisor.deadline import Deadline
from hypervisor.domain import disk_targets, disk_xml, domain_xml
from hypervisor.errors import DeadlineExceeded, HostError
from hypervisor.guest_events import GuestEvents
from hypervisor.libvirt_errors import NO_DOMAIN, NOT_RUNNING, HypervisorError, translated
from hypervisor.spec import DiskSpec, MachineSpec

__all__ = ["DiskSpec", "Machine", "MachineSpec", "running"]

_PRESS_AGAIN = 30.0  # seconds: a guest that was still booting has not heard the first press of the power button
_UNPLUG_LIMIT = 30.0  # seconds a guest may take to let go of a disk
_EXIT_LIMIT = 10.0  # seconds until a QEMU that should be gone is killed
_LIVE = 1  # VIR_DOMAIN_AFFECT_LIVE
_FORCE = 4  # VIR_DOMAIN_DEVICE_MODIFY_FORCE: though the guest may have locked the drive
_ASK = 0.1  # seconds between looks at a state that libvirt also tells by event
_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[ -/]*[0-~]|[\x00-\x08\x0b-\x1f\x7f]")


@contextlib.contextmanager
def running(hypervisor: Hypervisor, spec: MachineSpec, deadline: Deadline) -> Iterator[Machine]:
    """Start `spec` and hand it out; destroyed at the end, however that comes.

    Raises HypervisorError (a HostError) when libvirt or QEMU refuses, Cancelled or DeadlineExceeded when it is late.
    """
    deadline.check(f"starting the VM {spec.name}")
    network.check(spec.network, hypervisor.connect)
    spec = dataclasses.replace(
        spec,
        uuid=spec.uuid or str(uuid.uuid4()),
        vnc_password=spec.vnc_password or (secrets.token_hex(4) if spec.graphics else ""),
    )
    xml = domain_xml(spec, emulator=hypervisor.emulator, root=hypervisor.root, dac_label=hypervisor.dac_label)
    fresh_log(spec.console_log)
    hypervisor.expect(spec.uuid)
    with contextlib.ExitStack() as stack:
        net = stack.enter_context(network.opened(spec, hypervisor.root))
        machine = Machine(hypervisor, spec, _create(hypervisor, spec, xml), deadline, net)
        stack.callback(machine.close)
        machine.start()
        yield machine


def _create(hypervisor: Hypervisor, spec: MachineSpec, xml: str) -> Any:
    import libvirt

    # Paused, so that no event of the guest can be missed before somebody listens.
    flags = libvirt.VIR_DOMAIN_START_PAUSED
    if not hypervisor.embedded:
        flags |= libvirt.VIR_DOMAIN_START_AUTODESTROY  # the embedded driver does not know it
    with hypervisor.calling(f"starting the VM {spec.name}"):
        return hypervisor.handle.createXML(xml, flags)


def fresh_log(path: Path) -> None:
    """Empty and ours, so that a system daemon writes into a file that we may read."""
    path.unlink(missing_ok=True)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))


class Machine:
    """A running VM. All methods may be called from any thread."""

    def __init__(
        self, hypervisor: Hypervisor, spec: MachineSpec, domain: Any, deadline: Deadline, net: network.Network
    ) -> None:
        self.spec = spec
        self._network = net
        self.domain = domain
        found = hypervisor.qemu_processes(spec.uuid)
        self.qemu_pid = found[0] if found else 0  # 0: not visible to us (a daemon's, under another user)
        self._qemu = os.pidfd_open(self.qemu_pid) if self.qemu_pid else -1
        self._hypervisor = hypervisor
        self._deadline = deadline
        self._events: GuestEvents | None = None
        self._destroyed = False
        self._lock = threading.RLock()

    def start(self) -> None:
        """Listen to it, then let it run."""
        with translated("listening to the VM"):
            self._events = GuestEvents(self._hypervisor.handle, self.domain)
        self._events.when_disk_fails(self._disk_failed)
        if not self._hypervisor.embedded and (nvram := self._description().findtext("os/nvram")):
            self._hypervisor.discard(Path(nvram))  # a daemon keeps a UEFI guest's variables even of a transient VM
        with translated("letting the VM run"):
            self.domain.resume()
        self._hypervisor.started()

    def _disk_failed(self, path: str, reason: str) -> None:
        """The VM is paused and will never go on: whoever waits for it must hear of it."""
        folder = Path(path).parent
        if reason == "enospc":
            error = HostError(
                f"no space left in {folder}: the VM {self.spec.name} was paused while writing its disk",
                hint=f"free space on the file system of {folder}: `aib gc`, `df -h {folder}`",
            )
        else:
            error = HostError(f"this host failed {path}, a disk of the VM {self.spec.name}: {reason or 'I/O error'}")
        self._deadline.token.fail(error)

    def reboots(self) -> int:
        """How often the guest has restarted itself since it was started."""
        return self._events.reboots if self._events else 0

    def is_running(self) -> bool:
        """Whether the VM exists still; a transient one is gone with its power-off."""
        if self._destroyed or (self._events is not None and self._events.stopped.is_set()):
            return False
        try:
            with translated("asking for the VM's state"):
                return bool(self.domain.isActive())
        except HypervisorError as error:
            if error.code == NO_DOMAIN:
                return False
            raise

    def forward(self, guest_port: int, host_port: int = 0) -> tuple[str, int]:
        """Address and port of the host side by which `guest_port` can be reached.

        User-mode and isolated network: 127.0.0.1 and a free port (or `host_port`; HostError when it is taken). libvirt
        network: the guest's own address, waited for until it has a lease.
        """
        if self.spec.network in ("user", "isolated"):
            return network.LOOPBACK, self._network.forward(self.domain, guest_port, host_port)
        if self.spec.network == "none":
            raise HostError(f"the VM {self.spec.name} has no network: its port {guest_port} cannot be reached")
        return self._lease(), guest_port

    def _lease(self) -> str:
        import libvirt

        while True:
            with translated("asking for the VM's address"):
                interfaces = self.domain.interfaceAddresses(libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE)
            for interface in interfaces.values():
                for address in interface["addrs"] or ():
                    if address["type"] == libvirt.VIR_IP_ADDR_TYPE_IPV4:
                        return str(address["addr"])
            if not self.is_running():
                raise HostError(f"the VM {self.spec.name} ended before it had an address")
            self._deadline.pause(1.0, f"waiting for an address of the network {self.spec.network}")

    def power_off(self, deadline: Deadline) -> bool:
        """Press the power button and wait; when the time is over, pull the plug.

        True when the guest went down by itself. Raises Cancelled (after pulling the plug) when the user asked to stop.
        """
        try:
            self._wait_stopped(deadline, press=True)
        except DeadlineExceeded:
            return False
        else:
            return True
        finally:
            self.destroy()

    def wait_off(self, deadline: Deadline) -> None:
        """Wait until the guest has powered itself off; raises as `Deadline.check` does."""
        self._wait_stopped(deadline, press=False)

    def _wait_stopped(self, deadline: Deadline, *, press: bool) -> None:
        pressed = float("-inf")
        while self.is_running():
            if press and time.monotonic() - pressed >= _PRESS_AGAIN:
                self._press()
                pressed = time.monotonic()
            deadline.pause(_ASK, f"waiting for the VM {self.spec.name} to power off")
        self._wait_for_qemu(_EXIT_LIMIT)

    def _press(self) -> None:
        import libvirt

        try:
            with self._hypervisor.calling("pressing the power button"):
                self.domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)
        except HypervisorError as error:
            if error.code not in (NO_DOMAIN, NOT_RUNNING):
                raise

    def destroy(self) -> None:
        """Pull the plug. Harmless when the VM is gone; when libvirt cannot do it, QEMU is killed directly."""
        with self._lock:
            if self._destroyed:
                return
            self._destroyed = True
        if self._events is not None:
            self._events.close()
        try:
            with self._hypervisor.calling(f"destroying the VM {self.spec.name}"):
                self.domain.destroy()
        except HypervisorError as error:
            if error.code not in (NO_DOMAIN, NOT_RUNNING) and not self.qemu_pid:
                raise
        finally:
            self._end_qemu()

    def _end_qemu(self) -> None:
        if self._qemu < 0:
            return
        if not self._wait_for_qemu(_EXIT_LIMIT):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._qemu, signal.SIGKILL)
            self._wait_for_qemu(_EXIT_LIMIT)

    def close(self) -> None:
        """Destroy the VM and let go of the handle on its process."""
        self.destroy()
        if self._qemu >= 0:
            os.close(self._qemu)
            self._qemu = -1

    def _wait_for_qemu(self, seconds: float) -> bool:
        """Whether QEMU's process is gone, and with it its locks on the disks."""
        if self._qemu < 0:
            return True
        poll = select.poll()
        poll.register(self._qemu, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def console_tail(self, size: int = 4096) -> str:
        """The last `size` bytes of the serial console as plain text, without terminal control sequences."""
        try:
            with self.spec.console_log.open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - size))
                text = log.read().decode(errors="replace")
        except FileNotFoundError:
            return ""
        return _CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))

    def screenshot(self) -> bytes:
        """What the screen shows, as PNG (a VM made with `screen` or `graphics`)."""
        if not (self.spec.screen or self.spec.graphics):
            raise HostError(f"the VM {self.spec.name} has no screen", hint="the serial console is in the run folder")
        with translated("taking a screenshot"):
            stream = self._hypervisor.handle.newStream(0)
            chunks: list[bytes] = []
            kind = self.domain.screenshot(stream, 0, 0)
            stream.recvAll(lambda _stream, data, _opaque: chunks.append(data), None)
            stream.finish()
        if kind != "image/png":
            raise HostError(f"QEMU gave a screenshot of the type {kind}", hint="QEMU 7.1 or newer writes PNG")
        return b"".join(chunks)

    @property
    def vnc(self) -> tuple[str, int, str] | None:
        """Address, port and password of the VNC server; None without `graphics`."""
        if not self.spec.graphics:
            return None
        graphics = self._description().find("devices/graphics")
        port = int(graphics.get("port", "-1")) if graphics is not None else -1
        return network.LOOPBACK, port, self.spec.vnc_password

    def attach_disk(self, disk: DiskSpec) -> str:
        """Plug a disk into the running guest; returns its device name as libvirt says it (vdc)."""
        with self._lock:
            target = disk_targets(self.disk_targets())[0]
            with translated(f"attaching {disk.path}"):
                self.domain.attachDeviceFlags(disk_xml(disk, target), _LIVE)
        return target

    def disk_targets(self) -> list[str]:
        """The device names of the disks, as libvirt says them (vda, vdb), the first one first."""
        return [target.get("dev", "") for target in self._description().iterfind("devices/disk/target")]

    def nvram(self) -> Path | None:
        """The file with a UEFI guest's variables; None for a BIOS guest."""
        found = self._description().findtext("os/nvram")
        return Path(found) if found else None

    def detach_disk(self, target: str, deadline: Deadline) -> None:
        """Unplug a disk and wait until the guest has let go of it; raises HostError when it does not."""
        disk = self._find_disk(target)
        if disk is None:
            raise HostError(f"the VM {self.spec.name} has no disk {target}")
        with translated(f"detaching {target}"):
            self.domain.detachDeviceFlags(ET.tostring(disk, encoding="unicode"), _LIVE)
        limit = deadline.limited(
            _UNPLUG_LIMIT, f"{_UNPLUG_LIMIT:.0f} seconds for the guest to let go of the disk {target}"
        )
        try:
            limit.wait_until(lambda: self._find_disk(target) is None, f"detaching {target}", _ASK)
        except DeadlineExceeded:
            deadline.check(f"detaching {target}")
            raise HostError(f"the guest does not let go of the disk {target}", hint="unmount it in the guest") from None

    def eject(self, path: Path) -> None:
        """Take the medium `path` out of its CD drive, which stays; harmless when it is not there."""
        with self._lock:
            drive = next(
                (
                    disk
                    for disk in self._description().iterfind("devices/disk[@device='cdrom']")
                    if (source := disk.find("source")) is not None and source.get("file") == str(path)
                ),
                None,
            )
            if drive is None:
                return
            for child in drive.findall("source"):
                drive.remove(child)
            with translated(f"taking out {path.name}"):
                self.domain.updateDeviceFlags(ET.tostring(drive, encoding="unicode"), _LIVE | _FORCE)

    def _find_disk(self, target: str) -> ET.Element | None:
        return self._description().find(f"devices/disk/target[@dev='{target}']/..")

    def _description(self) -> ET.Element:
        with translated("asking for the VM's devices"):
            return ET.fromstring(self.domain.XMLDesc(0))  # noqa: S314 - libvirt's own output
