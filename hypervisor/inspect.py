"""Read files and lists out of a disk without trusting it: a small VM without a network mounts it, not this machine."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from hypervisor.appliance import Appliance
from hypervisor.connection import Hypervisor
from hypervisor.deadline import Deadline
from hypervisor.disk_format import DiskFormat
from hypervisor.errors import UsageError
from hypervisor.inspection import Entry, FileSystem, Inspection, InspectionError, parse
from hypervisor.machine import DiskSpec, MachineSpec, running
from hypervisor.qemu_img import create_overlay
from hypervisor.spec import AccelName

__all__ = ["Entry", "FileSystem", "Inspection", "InspectionError", "read"]

MIB = 1024 * 1024
_OUTPUT = 4096 * MIB  # sparse: only what the VM writes takes space
_REQUEST = 256 * 1024  # what the VM reads of the request at most
_LARGEST = MIB  # bytes of one file; bigger ones are in the listing only
_TOTAL = 256 * MIB
_MEMORY_MIB = 512


def read(
    hypervisor: Hypervisor,
    disk: DiskSpec,
    paths: Sequence[str],
    *,
    appliance: Appliance,
    work: Path,
    deadline: Deadline,
    needles: Sequence[bytes] = (),
    accel: AccelName = "tcg",
    largest: int = _LARGEST,
    replay: bool = False,
) -> Inspection:
    """List every file system of `disk` and read the files whose path matches one of `paths`.

    Patterns are find's `-path` ones: they match the real path from the file system's root on (symbolic links are never
    followed), and `*` matches slashes, so `*/authorized_keys` means anywhere. Files above `largest` bytes are listed,
    not read. `needles` (no NUL, no newline) are searched for in all files: `Inspection.holders`. The disk is attached
    read-only and no journal is replayed; `work` holds the request and the result meanwhile. With `replay`, for the disk
    of a system that was running, journals are replayed on a throw-away overlay: the disk itself is not written.

    Raises `InspectionError` when the VM cannot finish, HypervisorError, `DeadlineExceeded`, `Cancelled`. A single file
    system that cannot be read is in the result instead, as "not-inspected".
    """
    output, console = work / "inspection.raw", work / "inspection-console.log"
    overlay = work / "inspection.qcow2"
    seen = DiskSpec(disk.path, disk.format, readonly=True)
    if replay:
        create_overlay(disk.path, cast(DiskFormat, disk.format), overlay, None, deadline)
        seen = DiskSpec(overlay, "qcow2")
    _write_request(output, paths, needles, largest, replay=replay)
    spec = MachineSpec(
        name=f"aib-inspect-{uuid.uuid4().hex[:8]}",
        vcpus=1,
        memory_mib=_MEMORY_MIB,
        disks=(seen, DiskSpec(output, "raw")),
        console_log=console,
        accel=accel,
        network="none",
        kernel=appliance.kernel,
        initrd=appliance.initrd,
        cmdline="console=ttyS0 quiet panic=-1",
    )
    try:
        with running(hypervisor, spec, deadline) as machine:
            # A kernel that panics restarts the VM: it would go on for ever.
            deadline.wait_until(lambda: not machine.is_running() or machine.reboots() > 0, "inspecting the disk")
            if machine.reboots():
                said = machine.console_tail(2048)
                raise InspectionError(f"the inspection VM crashed while it read {disk.path.name}:\n{said}")
        return parse(output, _TOTAL)
    finally:
        output.unlink(missing_ok=True)
        overlay.unlink(missing_ok=True)


def _write_request(output: Path, paths: Sequence[str], needles: Sequence[bytes], largest: int, *, replay: bool) -> None:
    lines = [b"limit %d" % largest]
    lines += [b"replay"] * replay
    lines += [b"path " + os.fsencode(path) for path in paths]
    lines += [b"needle " + needle for needle in needles]
    if any(b"\n" in line or b"\0" in line for line in lines) or b"" in needles:
        raise UsageError("a path pattern or needle holds a newline or NUL, or is empty")
    request = b"\n".join([*lines, b"end\n"])
    if len(request) > _REQUEST:
        raise UsageError(f"an inspection request of {len(request)} bytes is too long")
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)  # needles are secrets
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(request)
        stream.truncate(_OUTPUT)
