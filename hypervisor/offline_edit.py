"""Put files into a Windows that is not running: a small VM without a network mounts its disk, not this machine."""

from __future__ import annotations

import dataclasses
import os
import uuid
from collections.abc import Mapping
from pathlib import Path

from hypervisor.appliance import Appliance
from hypervisor.connection import Hypervisor
from hypervisor.deadline import Deadline
from hypervisor.errors import HostError
from hypervisor.inspection import InspectionError, parse_verdict
from hypervisor.machine import running
from hypervisor.seed import write_iso
from hypervisor.spec import AccelName, DiskSpec, MachineSpec

_OUTPUT = 1024 * 1024
_REQUEST = b"limit 0\nedit\nend\n"
_MEMORY_MIB = 512


def put_into_panther(
    hypervisor: Hypervisor,
    disk: DiskSpec,
    files: Mapping[str, bytes],
    *,
    appliance: Appliance,
    work: Path,
    deadline: Deadline,
    accel: AccelName = "tcg",
) -> None:
    """Write `files` (plain names) into the folder `Windows/Panther` of the system on `disk`, over what is there.

    Raises `HostError` when no file system of the disk has that folder or it cannot be written (a Windows that sleeps,
    or was not shut down); HypervisorError, `DeadlineExceeded`, `Cancelled`.
    """
    output, medium = work / "edit.raw", work / "edit.iso"
    write_iso(medium, files, "AIB_EDIT")
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(_REQUEST)
        stream.truncate(_OUTPUT)
    spec = MachineSpec(
        name=f"aib-edit-{uuid.uuid4().hex[:8]}",
        vcpus=1,
        memory_mib=_MEMORY_MIB,
        # The VM's program goes by these serials.
        disks=(
            dataclasses.replace(disk, serial="disk"),
            DiskSpec(output, "raw", serial="output"),
            DiskSpec(medium, "raw", readonly=True),
        ),
        console_log=work / "edit-console.log",
        accel=accel,
        network="none",
        kernel=appliance.kernel,
        initrd=appliance.initrd,
        cmdline="console=ttyS0 quiet panic=-1",
    )
    try:
        with running(hypervisor, spec, deadline) as machine:
            deadline.wait_until(lambda: not machine.is_running() or machine.reboots() > 0, "editing the disk")
            console = machine.console_tail(2048)
        parse_verdict(output, console)
    except InspectionError as error:
        raise HostError(
            f"the answer file cannot be put into the image: {error.message}",
            hint="shut Windows down first (`shutdown /s /f /t 0`, no fast startup), or leave out --answer disk",
        ) from error
    finally:
        output.unlink(missing_ok=True)
        medium.unlink(missing_ok=True)
