"""What a disk image file really is, proved by its own bytes before any other program opens it.

`qemu-img info` calls a fixed VHD "raw" (its mark is in the last sector) and follows what a hostile header refers to,
so the format, and the other files an image depends on, are read here first.
"""

from __future__ import annotations

import os
import re
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal

from hypervisor.errors import InputError
from hypervisor.vhd_footer import FOOTER_SIZE, VhdFooter, VhdKind, read_footer

DiskFormat = Literal["qcow2", "raw", "vpc", "vhdx", "vmdk"]

_HEAD = 0x9000  # bytes: up to the volume descriptor of an ISO at 0x8000
_SECTOR = 512
_IMPORT_HINT = "give a qcow2, raw, VHD, VHDX or VMDK disk image"
# Files that are often given by mistake, and what to do with them.
_OTHERS: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"\xfd7zXZ\x00", "an xz archive", "unpack it first: xz -d"),
    (0, b"\x1f\x8b", "a gzip archive", "unpack it first: gunzip or tar -xzf"),
    (0, b"BZh", "a bzip2 archive", "unpack it first: bunzip2"),
    (0, b"\x28\xb5\x2f\xfd", "a zstd archive", "unpack it first: unzstd"),
    (0, b"PK\x03\x04", "a zip archive", "unpack it first: unzip"),
    (257, b"ustar", "a tar archive", "unpack it first: tar -xf"),
    (0, b"<<< ", "a VirtualBox VDI image", "convert it first: qemu-img convert -f vdi -O qcow2"),
    (0, b"# Disk DescriptorFile", "a VMDK descriptor whose data is in other files",
     "convert it to one file first: qemu-img convert -f vmdk -O qcow2"),
    (0, b"COWD", "an old ESX VMDK", "convert it to one file first: qemu-img convert -f vmdk -O qcow2"),
    (0x8001, b"CD001", "an ISO image", "ISO sources were retired by the service on 2020-03-31; give a disk image"),
)  # fmt: skip


class NotADiskImage(InputError):
    """A file that is not a disk image this can use."""


@contextmanager
def open_image(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file for reading; raises `InputError` that says why it cannot be read."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise NotADiskImage(f"{path} is a directory", hint=_IMPORT_HINT)
        if not stat.S_ISREG(mode):
            raise NotADiskImage(f"{path} is not a regular file", hint=_IMPORT_HINT)
        file = path.open("rb")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except PermissionError as error:
        raise InputError(
            f"{path} may not be read: {error.strerror}", hint=f"give yourself read permission on {path} and its folder"
        ) from error
    except OSError as error:
        raise InputError(f"{path} cannot be opened: {error.strerror}") from error
    with file:
        yield file


def detect_format(path: Path) -> DiskFormat:
    """The format of the disk image `path`, proved by its magic bytes.

    A raw disk is recognized by its partition table or boot sector. Raises `InputError` when nothing is proved.
    """
    with open_image(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            raise NotADiskImage(f"{path} is empty", hint=_IMPORT_HINT)
        head = file.read(_HEAD)
        file.seek(max(0, size - FOOTER_SIZE))
        tail = file.read(FOOTER_SIZE)
    footer = VhdFooter.parse(tail)
    if footer is not None and footer.kind is VhdKind.FIXED:
        return "vpc"
    if head[:4] == b"QFI\xfb":
        return _qcow(path, head)
    if head[:8] == b"vhdxfile":
        return "vhdx"
    if head[:4] == b"KDMV":
        return "vmdk"
    if head[:8] == b"conectix":
        if footer is None:
            raise NotADiskImage(f"{path} starts as a VHD but its footer is missing: the file is truncated")
        return "vpc"
    if footer is None and tail.startswith(b"conectix"):
        raise NotADiskImage(f"{path} ends with the footer of a VHD, and the footer is damaged")
    for offset, magic, name, hint in _OTHERS:
        if head[offset : offset + len(magic)] == magic:
            raise NotADiskImage(f"{path} is {name}, not a disk image", hint=hint)
    if _is_raw_disk(head, size):
        return "raw"
    raise NotADiskImage(
        f"{path} is not a disk image: no known magic number, partition table or boot sector", hint=_IMPORT_HINT
    )


def _qcow(path: Path, head: bytes) -> DiskFormat:
    version = int.from_bytes(head[4:8], "big")
    if version in (2, 3):
        return "qcow2"
    raise NotADiskImage(f"{path} is a qcow image of version {version}; versions 2 and 3 are known")


def _is_raw_disk(head: bytes, size: int) -> bool:
    """A whole number of sectors with a GPT, an MBR with a possible entry, or a boot sector that starts with a jump."""
    if size % _SECTOR or len(head) < 2 * _SECTOR:
        return False
    if head[_SECTOR : _SECTOR + 8] == b"EFI PART" or head[4096 : 4096 + 8] == b"EFI PART":
        return True
    if head[510:512] != b"\x55\xaa":
        return False
    if head[0] in (0xEB, 0xE9):
        return True
    entries = [head[446 + 16 * i : 462 + 16 * i] for i in range(4)]
    if any(entry[0] not in (0x00, 0x80) for entry in entries):
        return False
    return any(entry[4] and int.from_bytes(entry[8:12], "little") and any(entry[12:16]) for entry in entries)


def foreign_files(path: Path, format: DiskFormat) -> str:
    """The other file this image depends on (backing file, parent, data file, extents); empty when it stands alone."""
    with open_image(path) as file:
        match format:
            case "qcow2":
                return _qcow2_foreign(file)
            case "vmdk":
                return _vmdk_foreign(file, path)
            case "vpc":
                footer = read_footer(file)
                return "its parent disk" if footer is not None and footer.kind is VhdKind.DIFFERENCING else ""
            case _:
                return ""  # qemu refuses a VHDX with a parent itself


def _qcow2_foreign(file: BinaryIO) -> str:
    head = file.read(104).ljust(104, b"\0")
    version, offset, length = struct.unpack(">4xIQI", head[:20])
    if offset:
        file.seek(offset)
        return file.read(min(length, 1023)).decode(errors="replace") or "an unnamed backing file"
    external_data = version >= 3 and int.from_bytes(head[72:80], "big") & 0b100
    return "an external data file" if external_data else ""


def _vmdk_foreign(file: BinaryIO, path: Path) -> str:
    """The embedded descriptor names a parent, or (with capacity 0) extents in other files."""
    head = file.read(_SECTOR).ljust(_SECTOR, b"\0")
    capacity, descriptor, sectors = struct.unpack_from("<Q8xQQ", head, 12)
    if not descriptor:
        return ""
    file.seek(descriptor * _SECTOR)
    text = file.read(min(sectors, 128) * _SECTOR).split(b"\0", 1)[0].decode(errors="replace")
    if parent := re.search(r'^parentFileNameHint\s*=\s*"([^"]*)"', text, re.MULTILINE):
        return parent.group(1)
    if capacity == 0:
        extents = [name for name in re.findall(r'^RW\s.*"([^"]*)"', text, re.MULTILINE) if name != path.name]
        return ", ".join(extents) or "extents in other files"
    return ""
