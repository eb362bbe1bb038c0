"""Disks as files: what they are, what is on them, and making new ones. The one door to qemu-img.

Formats are always given, never probed: `detect_format` proves what a foreign file is, once, when it enters.
"""

from __future__ import annotations

from hypervisor.disk_check import check
from hypervisor.disk_format import DiskFormat, NotADiskImage, detect_format, foreign_files
from hypervisor.partitions import generations, operating_system, read_table
from hypervisor.publish import publish
from hypervisor.qemu_img import (
    CorruptImage,
    DiskInfo,
    ImagesDiffer,
    compare,
    convert,
    create_empty,
    create_overlay,
    info,
    read_bytes,
)
from hypervisor.vhd import round_up_to_mib, verify_fixed_vhd, write_fixed_vhd, write_qcow2

__all__ = [
    "CorruptImage",
    "DiskFormat",
    "DiskInfo",
    "ImagesDiffer",
    "NotADiskImage",
    "check",
    "compare",
    "convert",
    "create_empty",
    "create_overlay",
    "detect_format",
    "foreign_files",
    "generations",
    "info",
    "operating_system",
    "publish",
    "read_bytes",
    "read_table",
    "round_up_to_mib",
    "verify_fixed_vhd",
    "write_fixed_vhd",
    "write_qcow2",
]
