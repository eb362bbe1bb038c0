"""Read files and lists out of a disk without trusting it: a small VM without a network mounts it, not this machine."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from hypervisor.appliance import Appliance
from hypervisor.connection import Hypervisor
from hypervisor.deadline import Deadline
from hypervisor.disk_format import DiskFormat
from hypervisor.errors import UsageError
from hypervisor.inspection import Entry, FileSystem, Inspection, InspectionError, parse
from hypervisor.machine import DiskSpec, Machine, MachineSpec, running
from hypervisor.qemu_img import create_overlay
from hypervisor.spec import AccelName

__all__ = ["Entry", "FileSystem", "Inspection", "InspectionError", "Inspector", "Request", "inspector", "read"]

MIB = 1024 * 1024
_OUTPUT = 4096 * MIB  # sparse: only what the VM writes takes space
_REQUEST = 256 * 1024  # what the VM reads of the request at most
_LARGEST = MIB  # bytes of one file; bigger ones are in the listing only
_TOTAL = 256 * MIB
_MEMORY_MIB = 512
_DOING = "inspecting the disk"
_ONE_DISK, _SOON = "inspect: one disk is there", 0.02
"""What the VM's program says at the first disk, and how often to look for that, in seconds."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be read of a disk. Patterns are find's `-path` ones without brackets: they match the path from the
    file system's root on (symbolic links are never followed), and `*` matches slashes, so `*/authorized_keys` means
    anywhere.

    Names that match `listed` come with type, mode, owner, size and time; the contents of those that match `paths` too,
    up to `largest` bytes. `needles` (no NUL, no newline) are searched for in all files: `Inspection.holders`. Where all
    `places` of the disk that hold them are known (first and last byte), an ext file system is spared the search, which
    is slow, when its blocks there are free. The disk is attached read-only and no journal is replayed; with `replay`,
    for the disk of a system that was running, journals are replayed on a throw-away overlay: the disk itself is not
    written.
    """

    paths: Sequence[str]
    needles: Sequence[bytes] = ()
    places: Sequence[tuple[int, int]] = ()
    largest: int = _LARGEST
    listed: Sequence[str] = ("*",)
    replay: bool = False


@dataclass(frozen=True, slots=True)
class Inspector:
    """An inspection VM that is up, or about to be, and waits for its disks. It reads one disk."""

    machine: Machine
    work: Path
    deadline: Deadline

    def read(self, disk: DiskSpec, request: Request) -> Inspection:
        """Read `disk`; the folder `work` holds the request and the result meanwhile.

        Raises `InspectionError` when the VM cannot finish, HypervisorError, `DeadlineExceeded`, `Cancelled`. A single
        file system that cannot be read is in the result instead, as "not-inspected".
        """
        output, overlay = self.work / "inspection.raw", self.work / "inspection.qcow2"
        machine = self.machine
        seen = DiskSpec(disk.path, disk.format, readonly=True, serial="disk")
        try:
            if request.replay:
                create_overlay(disk.path, cast(DiskFormat, disk.format), overlay, None, self.deadline)
                seen = DiskSpec(overlay, "qcow2", serial="disk")
            _write_request(output, request)
            machine.attach_disk(seen)
            # The VM's program goes by the order of the disks, and two that are plugged in at once come in any order.
            self.deadline.wait_until(lambda: self._ended or _ONE_DISK in machine.console_tail(2048), _DOING, _SOON)
            if not self._ended:
                machine.attach_disk(DiskSpec(output, "raw", serial="output"))
            self.deadline.wait_until(lambda: self._ended, _DOING)
            console = machine.console_tail(2048)
            if machine.reboots():
                raise InspectionError(f"the inspection VM crashed while it read {disk.path.name}:\n{console}")
            return parse(output, _TOTAL, console)
        finally:
            output.unlink(missing_ok=True)
            overlay.unlink(missing_ok=True)

    @property
    def _ended(self) -> bool:
        """Whether the VM is off. A kernel that panics restarts the VM: it would go on for ever."""
        return not self.machine.is_running() or self.machine.reboots() > 0


@contextmanager
def inspector(
    hypervisor: Hypervisor, *, appliance: Appliance, work: Path, deadline: Deadline, accel: AccelName = "tcg"
) -> Iterator[Inspector]:
    """Start an inspection VM, which boots while its disks are not ready yet; it is gone at the end of the block."""
    spec = MachineSpec(
        name=f"aib-inspect-{uuid.uuid4().hex[:8]}",
        vcpus=1,
        memory_mib=_MEMORY_MIB,
        disks=(),
        console_log=work / "inspection-console.log",
        accel=accel,
        network="none",
        kernel=appliance.kernel,
        initrd=appliance.initrd,
        cmdline="console=ttyS0 quiet panic=-1",
    )
    with running(hypervisor, spec, deadline) as machine:
        yield Inspector(machine, work, deadline)


def read(
    hypervisor: Hypervisor,
    disk: DiskSpec,
    request: Request,
    *,
    appliance: Appliance,
    work: Path,
    deadline: Deadline,
    accel: AccelName = "tcg",
) -> Inspection:
    """List and read `disk` in an inspection VM of its own; see `Inspector.read`."""
    with inspector(hypervisor, appliance=appliance, work=work, deadline=deadline, accel=accel) as one:
        return one.read(disk, request)


def _write_request(output: Path, wanted: Request) -> None:
    needles = wanted.needles
    lines = [b"limit %d" % wanted.largest]
    lines += [b"replay"] * wanted.replay
    lines += [b"list " + _expression(path) for path in wanted.listed]
    lines += [b"path " + _expression(path) for path in wanted.paths]
    lines += [b"needle " + needle for needle in needles]
    lines += [b"place %d %d" % place for place in wanted.places]
    if any(b"\n" in line or b"\0" in line for line in lines) or b"" in needles:
        raise UsageError("a path pattern or needle holds a newline or NUL, or is empty")
    request = b"\n".join([*lines, b"end\n"])
    if len(request) > _REQUEST:
        raise UsageError(f"an inspection request of {len(request)} bytes is too long")
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)  # needles are secrets
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(request)
        stream.truncate(_OUTPUT)


def _expression(pattern: str) -> bytes:
    """A pattern of find's `-path` as an extended regular expression for grep, over a path below a mount point.

    Find itself would try every pattern on every name, which takes most of the time on a disk with many files.
    """
    special = {"*": b".*", "?": b"."}
    if "[" in pattern:
        raise UsageError(f"a path pattern with brackets cannot be used: {pattern}")
    literal = (re.sub(rb"([][\\^$.|(){}+])", rb"\\\1", os.fsencode(each)) for each in pattern)
    words = (special.get(each, escaped) for each, escaped in zip(pattern, literal, strict=True))
    return b"/disk/[^/]*" + b"".join(words)
