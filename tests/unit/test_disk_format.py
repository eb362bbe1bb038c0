"""Real small disks in every format: what they are is proved, what is damaged or not a disk is refused."""

from __future__ import annotations

import gzip
import lzma
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from hypervisor import disk
from hypervisor.deadline import Deadline
from hypervisor.disk import CorruptImage, DiskFormat, NotADiskImage
from hypervisor.errors import InputError

MIB = 1024 * 1024
FORMATS: list[tuple[DiskFormat, str]] = [
    ("qcow2", ""),
    ("vpc", "subformat=fixed,force_size=on"),
    ("vpc", "subformat=dynamic,force_size=on"),
    ("vhdx", ""),
    ("vmdk", "subformat=monolithicSparse"),
    ("vmdk", "subformat=streamOptimized"),
]


@pytest.fixture
def deadline() -> Deadline:
    return Deadline.after(60)


@pytest.fixture
def raw_disk(small_disk: Path) -> Path:
    return small_disk


def _converted(raw_disk: Path, folder: Path, format: DiskFormat, options: str) -> Path:
    path = folder / "disk.img"  # the name must not give the format away
    disk.convert(raw_disk, "raw", path, format, Deadline.after(60), options=options)
    return path


@pytest.mark.parametrize(("format", "options"), FORMATS)
def test_every_format_is_proved_and_looked_into(
    raw_disk: Path, tmp_path: Path, format: DiskFormat, options: str, deadline: Deadline
) -> None:
    path = _converted(raw_disk, tmp_path, format, options)
    assert disk.detect_format(path) == format
    disk.check(path, format)
    assert disk.info(path, format).virtual_size == 16 * MIB
    assert disk.generations(path, format) == {"V1", "V2"}
    assert disk.operating_system(path, format) == "linux"
    disk.compare(raw_disk, "raw", path, format, deadline)


def test_a_raw_disk_is_known_by_its_partition_table(raw_disk: Path) -> None:
    assert disk.detect_format(raw_disk) == "raw"
    disk.check(raw_disk, "raw")
    assert disk.generations(raw_disk, "raw") == {"V1", "V2"}


@pytest.mark.parametrize(("format", "options"), FORMATS)
@pytest.mark.parametrize("kept", [0.3, 0.8])
def test_a_truncated_image_is_refused(
    raw_disk: Path, tmp_path: Path, format: DiskFormat, options: str, kept: float
) -> None:
    path = _converted(raw_disk, tmp_path, format, options)
    os.truncate(path, int(path.stat().st_size * kept) // 512 * 512)
    with pytest.raises(InputError) as caught:
        disk.check(path, disk.detect_format(path))
    assert str(path) in caught.value.message


def test_a_truncated_raw_disk_is_refused(raw_disk: Path, tmp_path: Path) -> None:
    path = tmp_path / "disk"
    shutil.copy(raw_disk, path)
    path.chmod(0o600)
    os.truncate(path, 9 * MIB)
    with pytest.raises(CorruptImage, match="truncated"):
        disk.check(path, "raw")


def test_a_qcow2_with_damaged_tables_is_refused(raw_disk: Path, tmp_path: Path) -> None:
    path = _converted(raw_disk, tmp_path, "qcow2", "")
    with path.open("r+b") as file:
        file.seek(40)
        (l1_table,) = struct.unpack(">Q", file.read(8))
        file.seek(l1_table)
        file.write(struct.pack(">Q", 0x8000_0000_0FFF_0200))  # no cluster starts there
    with pytest.raises(CorruptImage, match="damaged qcow2"):
        disk.check(path, "qcow2")


def test_a_qcow2_marked_corrupt_is_refused(raw_disk: Path, tmp_path: Path) -> None:
    path = _converted(raw_disk, tmp_path, "qcow2", "")
    with path.open("r+b") as file:
        file.seek(72)
        file.write(struct.pack(">Q", 0b10))
    with pytest.raises(CorruptImage, match="corrupt"):
        disk.check(path, "qcow2")


def test_a_qcow2_with_a_backing_file_is_refused_before_it_is_opened(raw_disk: Path, tmp_path: Path) -> None:
    path = tmp_path / "overlay"
    disk.create_overlay(raw_disk, "raw", path)
    assert disk.detect_format(path) == "qcow2"
    with pytest.raises(InputError, match=r"depends on .*disk\.raw"):
        disk.check(path, "qcow2")


def test_a_qcow2_with_an_external_data_file_is_refused(tmp_path: Path) -> None:
    path, data = tmp_path / "disk", tmp_path / "data"
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-o", f"data_file={data},data_file_raw=on", path, "1M"]
    subprocess.run(argv, check=True)
    with pytest.raises(InputError, match="external data file"):
        disk.check(path, "qcow2")


def test_a_vmdk_with_a_parent_is_refused(raw_disk: Path, tmp_path: Path) -> None:
    base, path = _converted(raw_disk, tmp_path, "vmdk", ""), tmp_path / "child"
    subprocess.run(["qemu-img", "create", "-q", "-f", "vmdk", "-b", base, "-F", "vmdk", path], check=True)
    with pytest.raises(InputError, match="depends on"):
        disk.check(path, disk.detect_format(path))


def test_a_differencing_vhd_is_refused(raw_disk: Path, tmp_path: Path) -> None:
    path = _converted(raw_disk, tmp_path, "vpc", "subformat=dynamic")
    with path.open("r+b") as file:
        file.seek(-512, os.SEEK_END)
        footer = bytearray(file.read(512))
        footer[60:68] = struct.pack(">II", 4, 0)
        footer[64:68] = struct.pack(">I", ~sum(footer) & 0xFFFFFFFF)
        file.seek(-512, os.SEEK_END)
        file.write(footer)
    with pytest.raises(InputError, match="parent"):
        disk.check(path, disk.detect_format(path))


def test_a_vmdk_descriptor_is_refused(raw_disk: Path, tmp_path: Path) -> None:
    path = tmp_path / "disk.vmdk"
    disk.convert(raw_disk, "raw", path, "vmdk", Deadline.after(60), options="subformat=monolithicFlat")
    with pytest.raises(NotADiskImage, match="other files"):
        disk.detect_format(path)


def test_a_fixed_vhd_with_a_broken_footer_is_not_taken_for_a_raw_disk_silently(raw_disk: Path, tmp_path: Path) -> None:
    path = _converted(raw_disk, tmp_path, "vpc", "subformat=fixed,force_size=on")
    with path.open("r+b") as file:
        file.seek(-512 + 40, os.SEEK_END)
        file.write(b"\xff")
    with pytest.raises(InputError, match="VHD"):
        disk.detect_format(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"# a text file\nnot a disk\n" * 100, "not a disk image"),
        (b"\0" * MIB, "not a disk image"),
        (lzma.compress(b"disk" * 1000), "xz archive"),
        (gzip.compress(b"disk" * 1000), "gzip archive"),
        (b"QFI\xfb\0\0\0\x01" + b"\0" * 4096, "version 1"),
        (b"x" * 0x8001 + b"CD001" + b"x" * 4096, "ISO"),
    ],
    # Not after the contents: a gzip archive holds the time it was made.
    ids=["nothing", "text", "zeros", "xz", "gzip", "old-qcow", "iso"],
)
def test_what_is_not_a_disk_is_called_by_its_name(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "disk.qcow2"
    path.write_bytes(content)
    with pytest.raises(NotADiskImage, match=words) as caught:
        disk.detect_format(path)
    assert caught.value.exit_code == 4


def test_directories_missing_files_and_devices_are_refused(tmp_path: Path) -> None:
    for path, words in ((tmp_path, "directory"), (tmp_path / "no", "no such file"), (Path("/dev/null"), "regular")):
        with pytest.raises(InputError, match=words):
            disk.detect_format(path)


def test_a_file_that_may_not_be_read_says_so(tmp_path: Path) -> None:
    """As root nothing is unreadable: the check then runs under an ordinary uid."""
    path = tmp_path / "disk"
    path.write_bytes(b"QFI\xfb" + b"\0" * 600)
    path.chmod(0o000)
    code = (
        "import os, pathlib, sys\n"
        "from hypervisor import disk, errors\n"
        "if os.getuid() == 0:\n"
        "    os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try:\n"
        "    disk.detect_format(pathlib.Path(sys.argv[1]))\n"
        "except errors.InputError as error:\n"
        "    print(error.exit_code, error.message, error.hint)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, path], check=True, capture_output=True, text=True)
    assert done.stdout.startswith(f"4 {path} may not be read"), done.stdout
    assert "read permission" in done.stdout
