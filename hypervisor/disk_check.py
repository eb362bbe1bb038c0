"""Is this image whole? Structure, truncation, and whether it stands alone."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, replace
from pathlib import Path

from hypervisor import qemu_img
from hypervisor.deadline import Deadline
from hypervisor.disk_format import DiskFormat, foreign_files, open_image
from hypervisor.errors import InputError
from hypervisor.partitions import PartitionTable, read_table
from hypervisor.qemu_img import CorruptImage, DiskInfo
from hypervisor.vhd_footer import FOOTER_SIZE, VhdKind, fixed_size, read_footer

_UNUSED_BLOCK = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class CheckedDisk:
    """What the check has read on its way."""

    info: DiskInfo
    table: PartitionTable


def check(path: Path, format: DiskFormat, deadline: Deadline | None = None) -> CheckedDisk:
    """Refuse an image that is damaged, truncated, or depends on another file; raises `InputError`.

    Whether it stands alone is read before qemu-img opens the image, which would follow the reference.
    """
    if other := foreign_files(path, format):
        raise InputError(
            f"{path} depends on {other}: an image must stand alone",
            hint="make it one file first: qemu-img convert (beside its backing file), then give the result",
        )
    if format == "vpc":
        _check_vhd(path)
    facts = qemu_img.info(path, format, deadline)
    if format == "vpc" and (size := fixed_size(path)) is not None:
        facts = replace(facts, virtual_size=size)
    if facts.corrupt:
        raise CorruptImage(f"{path} is a qcow2 image that is marked corrupt")
    if facts.encrypted:
        raise InputError(f"{path} is encrypted", hint="decrypt it first: qemu-img convert --object secret,...")
    if facts.virtual_size == 0:
        raise CorruptImage(f"{path} holds a disk of 0 bytes")
    qemu_img.check_structure(path, format, deadline)
    table = read_table(path, format)
    end = max((part.start + part.size for part in table.partitions), default=0)
    if end > facts.virtual_size:
        raise CorruptImage(
            f"{path} is truncated: its last partition ends at byte {end}, the disk has {facts.virtual_size}"
        )
    return CheckedDisk(facts, table)


def _check_vhd(path: Path) -> None:
    """qemu-img has no check for VHD: the length of a fixed one, and every block of a dynamic one, must be there."""
    with open_image(path) as file:
        length = os.fstat(file.fileno()).st_size
        footer = read_footer(file)
        if footer is None:
            raise CorruptImage(f"{path} has no valid VHD footer: it is truncated or damaged")
        if footer.kind is VhdKind.FIXED:
            if length != footer.current_size + FOOTER_SIZE:
                raise CorruptImage(
                    f"{path} is truncated: a fixed VHD of {footer.current_size} bytes must be "
                    f"{footer.current_size + FOOTER_SIZE} bytes long, it is {length}"
                )
            return
        file.seek(footer.data_offset)
        header = file.read(1024)
        if len(header) != 1024 or header[:8] != b"cxsparse":
            raise CorruptImage(f"{path} is a dynamic VHD without its header")
        table, _, entries, block_size = struct.unpack_from(">QIII", header, 16)
        if entries * block_size < footer.current_size:
            raise CorruptImage(f"{path}: the block table does not cover the disk")
        file.seek(table)
        raw = file.read(4 * entries)
        if len(raw) != 4 * entries:
            raise CorruptImage(f"{path} is truncated: its block table is not whole")
    used = [block for (block,) in struct.iter_unpack(">I", raw) if block != _UNUSED_BLOCK]
    bitmap = -(-(block_size // 512) // 8 // 512) * 512 or 512
    if used and max(used) * 512 + bitmap + block_size > length:
        raise CorruptImage(f"{path} is truncated: the last block of the VHD is not whole")
