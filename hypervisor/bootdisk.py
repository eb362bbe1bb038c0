"""A bootable disk from a root file system: GPT, GRUB for BIOS and UEFI, with no loop device and no root.

The layout is Azure's and Debian's: partition 1 the root file system, last on the disk so that it can grow; 14 GRUB's
core (bios_grub); 15 the EFI system partition. `grub-bios-setup` wants a block device, so its three small writes are
made here. SOURCE: `util/setup.c` of GRUB 2.06 for the offsets.
"""

from __future__ import annotations

import os
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hypervisor.deadline import Deadline
from hypervisor.errors import HostError
from hypervisor.process import run

MIB = 1024 * 1024
SECTOR = 512
_BOOT_CODE = 440  # bytes of an MBR before the disk signature
_CORE_LBA_AT = 0x5C  # boot.img: u64 sector of core.img
_DRIVE_CHECK_AT = 0x66  # boot.img: the jump that mends BIOSes which pass a wrong drive; NOPs keep the passed one
_BLOCKLIST_AT = 0x1F4  # core.img, first sector: u64 start, u16 length, u16 segment of the rest
_CORE_SEGMENT = 0x820
_BIOS_START, _BIOS_MIB = 2048, 3

# Built into the core images, so that nothing has to be found before the root file system is.
MODULES = (
    *("part_gpt", "part_msdos", "ext2", "search", "search_fs_uuid", "normal", "configfile", "linux", "echo"),
    *("test", "terminal", "serial", "gzio", "all_video", "boot", "minicmd", "reboot", "halt"),
)
MODULES_BIOS = ("biosdisk", *MODULES)
MODULES_UEFI = ("fat", "efi_gop", *MODULES)


@dataclass(frozen=True, slots=True)
class BootLoader:
    """GRUB as bytes: `boot` and `core` for BIOS, `efi` for UEFI (empty: the disk has no UEFI loader)."""

    boot: bytes
    core: bytes
    efi: bytes = b""


@dataclass(frozen=True, slots=True)
class BootDisk:
    """What to put together. `esp_mib` is the EFI system partition's size in MiB, `size` the disk's in bytes."""

    root: Path
    loader: BootLoader
    size: int
    esp_mib: int = 124


def embedded_config(fs_uuid: str) -> str:
    """The configuration inside both core images: find the root file system, go on with its /boot/grub/grub.cfg."""
    return f"search --fs-uuid --set=root {fs_uuid}\nset prefix=($root)/boot/grub\nconfigfile $prefix/grub.cfg\n"


def root_size(disk: int, esp_mib: int = 124) -> int:
    """Bytes that partition 1 has on a disk of `disk` bytes: a whole number of MiB."""
    return disk // MIB * MIB - (_BIOS_START * SECTOR + (_BIOS_MIB + esp_mib) * MIB) - MIB  # the last MiB: backup GPT


def write_raw(disk: BootDisk, target: Path, deadline: Deadline) -> None:
    """Write the disk as a sparse raw file `target`, which must not exist.

    Raises `HostError` when the root file system or GRUB's core does not fit, `ToolMissing`, `ProcessError`.
    """
    space = root_size(disk.size, disk.esp_mib)
    if disk.root.stat().st_size > space:
        raise HostError(f"{disk.root}: {disk.root.stat().st_size} bytes do not fit in a root partition of {space}")
    if len(disk.loader.core) > _BIOS_MIB * MIB:
        raise HostError(f"GRUB's core image of {len(disk.loader.core)} bytes does not fit in {_BIOS_MIB} MiB")
    with target.open("xb") as stream:
        stream.truncate(disk.size // MIB * MIB)
    esp_start = _BIOS_START + _BIOS_MIB * MIB // SECTOR
    root_start = esp_start + disk.esp_mib * MIB // SECTOR
    root_end = root_start + space // SECTOR - 1
    partitions = [
        *(f"--new=14:{_BIOS_START}:{esp_start - 1}", "--typecode=14:ef02"),
        *(f"--new=15:{esp_start}:{root_start - 1}", "--typecode=15:ef00"),
        *(f"--new=1:{root_start}:{root_end}", "--typecode=1:8304"),
    ]
    run(["sgdisk", "--clear", *partitions, target], deadline=deadline)
    with target.open("r+b") as stream:
        copy_sparse(disk.root, stream.fileno(), root_start * SECTOR)
        if disk.loader.efi:
            _write_esp(disk, stream.fileno(), esp_start * SECTOR, deadline)
        for offset, data in bios_writes(disk.loader, _BIOS_START):
            os.pwrite(stream.fileno(), data, offset)


def bios_writes(loader: BootLoader, core_lba: int) -> list[tuple[int, bytes]]:
    """(offset, bytes) of what makes a disk start GRUB by BIOS, with core.img at sector `core_lba`."""
    boot = bytearray(loader.boot[:_BOOT_CODE])
    struct.pack_into("<Q", boot, _CORE_LBA_AT, core_lba)
    boot[_DRIVE_CHECK_AT : _DRIVE_CHECK_AT + 2] = b"\x90\x90"
    core = bytearray(loader.core)
    rest = -(-len(core) // SECTOR) - 1
    struct.pack_into("<QHH", core, _BLOCKLIST_AT, core_lba + 1, rest, _CORE_SEGMENT)
    return [(0, bytes(boot)), (core_lba * SECTOR, bytes(core))]


def copy_sparse(source: Path, target: int, offset: int) -> None:
    """Copy the data of `source` (not its holes) into the file descriptor `target`, from `offset` on."""
    with source.open("rb") as stream:
        descriptor, end, at = stream.fileno(), source.stat().st_size, 0
        while at < end:
            try:
                at = os.lseek(descriptor, at, os.SEEK_DATA)
            except OSError:  # ENXIO: only a hole is left
                return
            stop = os.lseek(descriptor, at, os.SEEK_HOLE)
            while at < stop:
                chunk = os.pread(descriptor, min(stop - at, 4 * MIB), at)
                at += os.pwrite(target, chunk, offset + at)


def _write_esp(disk: BootDisk, target: int, offset: int, deadline: Deadline) -> None:
    with tempfile.TemporaryDirectory(prefix="aib-esp-") as scratch:
        image, loader = Path(scratch, "esp.img"), Path(scratch, "BOOTX64.EFI")
        loader.write_bytes(disk.loader.efi)
        with image.open("wb") as stream:
            stream.truncate(disk.esp_mib * MIB)
        run(["mkfs.vfat", "-n", "ESP", image], deadline=deadline)
        run(["mmd", "-i", image, "::/EFI", "::/EFI/BOOT"], deadline=deadline)
        run(["mcopy", "-i", image, loader, "::/EFI/BOOT/BOOTX64.EFI"], deadline=deadline)
        copy_sparse(image, target, offset)
