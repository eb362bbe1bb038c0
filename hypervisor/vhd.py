"""The fixed VHD that Azure takes: a whole number of MiB, a verified footer, the same content as its source."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hypervisor import qemu_img
from hypervisor.deadline import Deadline
from hypervisor.disk_format import DiskFormat
from hypervisor.errors import HostError
from hypervisor.publish import publish
from hypervisor.qemu_img import Progress
from hypervisor.vhd_footer import FOOTER_SIZE, VhdKind, read_footer

MIB = 1024 * 1024


def round_up_to_mib(size: int) -> int:
    """Azure takes virtual sizes in whole MiB only."""
    return -(-size // MIB) * MIB


def write_fixed_vhd(
    source: Path, source_format: DiskFormat, target: Path, deadline: Deadline, progress: Progress | None = None
) -> None:
    """Write the disk `source` as a fixed VHD to `target`, which appears complete or not at all.

    The virtual size is rounded up to a whole MiB before the conversion (force_size keeps a size but does not round it,
    and without it qemu-img rounds to CHS geometry instead). Then the footer is verified and the content compared.
    """
    size = qemu_img.info(source, source_format).virtual_size
    rounded = round_up_to_mib(size)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
        part = Path(folder) / "disk.vhd"
        if rounded != size:
            grown = Path(folder) / "rounded.qcow2"
            qemu_img.create_overlay(source, source_format, grown, rounded)
            source, source_format = grown, "qcow2"
        qemu_img.convert(
            source,
            source_format,
            part,
            "vpc",
            deadline,
            progress=progress,
            options="subformat=fixed,force_size=on",
            any_order=True,
        )
        verify_fixed_vhd(part, rounded)
        qemu_img.compare(source, source_format, part, "vpc", deadline)
        publish(part, target)


def verify_fixed_vhd(path: Path, virtual_size: int) -> None:
    """Check length and footer of a fixed VHD that was just written; raises `HostError`: the tool went wrong."""
    with path.open("rb") as file:
        length = file.seek(0, os.SEEK_END)
        footer = read_footer(file)
    if footer is None or footer.kind is not VhdKind.FIXED:
        raise HostError(f"{path} has no valid footer of a fixed VHD")
    if footer.current_size != virtual_size or length != virtual_size + FOOTER_SIZE or virtual_size % MIB:
        raise HostError(
            f"{path}: the VHD says {footer.current_size} bytes and is {length} bytes long, "
            f"expected a disk of {virtual_size} bytes in whole MiB"
        )


def write_qcow2(
    source: Path, source_format: DiskFormat, target: Path, deadline: Deadline, progress: Progress | None = None
) -> None:
    """Write the disk `source` as a qcow2 that stands alone to `target`, which appears complete or not at all."""
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
        part = Path(folder) / "disk.qcow2"
        qemu_img.convert(source, source_format, part, "qcow2", deadline, progress=progress)
        qemu_img.check_structure(part, "qcow2", deadline)
        qemu_img.compare(source, source_format, part, "qcow2", deadline)
        publish(part, target)
