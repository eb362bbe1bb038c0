"""What a disk's partition table says: how it boots, and what kind of system is on it; read from the disk itself."""

from __future__ import annotations

import struct
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hypervisor.disk_format import DiskFormat
from hypervisor.qemu_img import read_bytes

Generation = Literal["V1", "V2"]
System = Literal["linux", "windows"]

ESP = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"  # EFI System Partition
BIOS_BOOT = "21686148-6449-6E6F-744E-656564454649"
_WINDOWS_TYPES = {"E3C9E316-0B5C-4DB8-817D-F92DF00215AE", "DE94BBA4-06D1-4D40-A16A-BFD50179D6AC"}  # MSR, recovery
_MBR_ESP, _MBR_PROTECTIVE = "0xEF", "0xEE"
_MBR_EXTENDED = ("0x05", "0x0F", "0x85")
_LEGACY_BOOTABLE = 1 << 2  # GPT attribute: extlinux and gptmbr boot such a partition by BIOS
_TABLE_BYTES = 1024 * 1024
_SYSTEM_BYTES = 65536 + 512  # up to the magic number of btrfs
_BOOT_CODE = 440


@dataclass(frozen=True, slots=True)
class Partition:
    """`type` is the GPT type GUID (upper case) or the MBR type as `0x83`; `start` and `size` in bytes."""

    number: int
    type: str
    start: int
    size: int
    attributes: int = 0


@dataclass(frozen=True, slots=True)
class PartitionTable:
    """`boot_code`: the first sector holds a program that a BIOS can start."""

    scheme: Literal["gpt", "mbr", "none"]
    boot_code: bool
    partitions: tuple[Partition, ...] = ()


def read_table(path: Path, format: DiskFormat) -> PartitionTable:
    """The primary GPT (512 or 4096-byte sectors) or the MBR of the disk in `path`."""
    head = read_bytes(path, format, 0, _TABLE_BYTES)
    if len(head) < 512:
        return PartitionTable("none", boot_code=False)
    signed = head[510:512] == b"\x55\xaa"
    boot_code = signed and any(head[:_BOOT_CODE])
    for sector in (512, 4096):
        if head[sector : sector + 8] == b"EFI PART":
            return PartitionTable("gpt", boot_code, tuple(_gpt(head, sector)))
    if not signed:
        return PartitionTable("none", boot_code=False)
    entries = tuple(_mbr(head))
    return PartitionTable("mbr" if entries else "none", boot_code, entries)


def _gpt(head: bytes, sector: int) -> list[Partition]:
    first, count, size = struct.unpack_from("<QII", head, sector + 72)
    found = []
    for index in range(min(count, 1024) if size >= 128 else 0):
        entry = head[first * sector + index * size :][:128]
        if len(entry) == 128 and any(entry[:16]):
            start, end, attributes = struct.unpack_from("<QQQ", entry, 32)
            kind = str(uuid.UUID(bytes_le=entry[:16])).upper()
            found.append(Partition(index + 1, kind, start * sector, (end - start + 1) * sector, attributes))
    return found


def _mbr(head: bytes) -> list[Partition]:
    found = []
    for index in range(4):
        status, kind, start, sectors = struct.unpack_from("<B3xB3xII", head, 446 + 16 * index)
        if status not in (0x00, 0x80):
            return []  # a boot sector without a table: what is here is its code
        if kind and sectors:
            found.append(Partition(index + 1, f"0x{kind:02X}", start * 512, sectors * 512))
    return [part for part in found if part.type != _MBR_PROTECTIVE]


def generations(path: Path, format: DiskFormat) -> frozenset[Generation]:
    """How the disk can boot: an EFI System Partition makes it V2; BIOS boot code that has something to start, V1."""
    return table_generations(read_table(path, format))


def table_generations(table: PartitionTable) -> frozenset[Generation]:
    """`generations` for a table that was already read."""
    found: set[Generation] = set()
    if any(part.type in (ESP, _MBR_ESP) for part in table.partitions):
        found.add("V2")
    starts_by_bios = table.scheme != "gpt" or any(
        part.type == BIOS_BOOT or part.attributes & _LEGACY_BOOTABLE for part in table.partitions
    )
    if table.boot_code and starts_by_bios:
        found.add("V1")
    return frozenset(found)


def operating_system(path: Path, format: DiskFormat, table: PartitionTable | None = None) -> System | None:
    """linux or windows, by the file systems on the disk; None when they do not tell. `table` saves reading it again."""
    table = table or read_table(path, format)
    if any(part.type in _WINDOWS_TYPES for part in table.partitions):
        return "windows"
    largest_first = sorted(table.partitions, key=lambda part: part.size, reverse=True)
    starts = [part.start for part in largest_first if part.type not in (ESP, _MBR_ESP, BIOS_BOOT, *_MBR_EXTENDED)]
    for start in starts or [0]:
        if system := _file_system_owner(read_bytes(path, format, start, _SYSTEM_BYTES)):
            return system
    return None


def _file_system_owner(head: bytes) -> System | None:
    linux = (
        head[1080:1082] == b"\x53\xef"  # ext2, ext3, ext4
        or head[:4] == b"XFSB"
        or head[65600:65608] == b"_BHRfS_M"
        or head[:6] == b"LUKS\xba\xbe"
        or head[512:520] == b"LABELONE"  # LVM
        or head[1024:1028] == b"\x10\x20\xf5\xf2"  # F2FS
    )
    if linux:
        return "linux"
    windows = head[3:11] in (b"NTFS    ", b"-FVE-FS-") or head[3:7] == b"ReFS"
    return "windows" if windows else None
