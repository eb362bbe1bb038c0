"""Reading disks in the inspection VM: every file system, hostile names, what cannot be read, nothing followed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hypervisor import appliance, inspect
from hypervisor.appliance import Appliance
from hypervisor.bootdisk import copy_sparse
from hypervisor.connection import Hypervisor, open_hypervisor
from hypervisor.deadline import Deadline
from hypervisor.inspect import Inspection, InspectionError, Request
from hypervisor.machine import DiskSpec
from hypervisor.process import run

pytestmark = pytest.mark.vm
MIB = 1024 * 1024
NEEDLE = b"b3BlbnNzaC1rZXktdjEAAAAA"
ODD_NAME = "line\nbreak and $(touch x) 'quote'"


@pytest.fixture(scope="module")
def hypervisor(build_cache: Path) -> Iterator[Hypervisor]:
    with open_hypervisor(cache=build_cache) as opened:
        yield opened


@pytest.fixture(scope="module")
def built(build_cache: Path) -> Appliance:
    return appliance.ensure(build_cache, Deadline.after(600, "building the appliance"), print)


def tool(*argv: str | Path) -> None:
    run(argv, deadline=Deadline.after(120, "preparing a test disk"))


def tree(folder: Path, marker: str) -> Path:
    (folder / "etc").mkdir(parents=True)
    (folder / "etc/marker").write_text(marker)
    return folder


def file_of(path: Path, mib: int) -> Path:
    with path.open("wb") as stream:
        stream.truncate(mib * MIB)
    return path


def make_ext4(work: Path) -> Path:
    source = tree(work / "ext4", "ext4")
    (source / "etc/os-release").write_text("ID=test\n")
    (source / "root/.ssh").mkdir(parents=True)
    (source / "root/.ssh/authorized_keys").write_bytes(b"x " + NEEDLE + b"\n")
    (source / "etc" / ODD_NAME).write_text("odd")
    (source / "etc/shortcut").symlink_to("/proc/cmdline")
    (source / "etc/big.marker").write_bytes(b"x" * 70_000)
    (source / "etc/marker").chmod(0o640)
    image = file_of(work / "ext4.img", 64)
    tool("mke2fs", "-q", "-t", "ext4", "-E", "root_owner=0:0", "-d", source, image)
    return image


def make_btrfs(work: Path) -> Path:
    image = file_of(work / "btrfs.img", 160)
    tool("mkfs.btrfs", "-q", "--rootdir", tree(work / "btrfs", "btrfs"), image)
    return image


def make_xfs(work: Path) -> Path:
    marker = tree(work / "xfs", "xfs") / "etc/marker"
    prototype = work / "xfs.proto"
    prototype.write_text(f"boot\n0 0\nd--755 0 0\netc d--755 0 0\nmarker ---644 12 34 {marker}\n$\n$\n")
    image = file_of(work / "xfs.img", 320)
    tool("mkfs.xfs", "-q", "-p", prototype, image)
    return image


def make_ntfs(work: Path) -> Path:
    image = file_of(work / "ntfs.img", 32)
    tool("mkntfs", "-q", "-F", "-Q", image)
    tool("ntfscp", image, tree(work / "ntfs", "ntfs") / "etc/marker", "marker")
    return image


def make_vfat(work: Path) -> Path:
    image = file_of(work / "vfat.img", 8)
    tool("mkfs.vfat", image)
    tool("mcopy", "-i", image, tree(work / "vfat", "vfat") / "etc/marker", "::/marker")
    return image


def make_encrypted(work: Path) -> Path:
    image = file_of(work / "luks.img", 8)
    # The header of LUKS 1 is enough to be recognized, and nothing can mount it.
    with image.open("r+b") as stream:
        stream.write(b"LUKS\xba\xbe\x00\x01" + b"aes".ljust(32, b"\0") + b"xts-plain64".ljust(32, b"\0"))
        stream.write(b"sha256".ljust(32, b"\0") + b"\x00\x00\x10\x00\x00\x00\x00\x40" + bytes(60))
        stream.seek(168)
        stream.write(b"6a7d9b3e-7d0c-4a2b-9a55-0123456789ab\0")
    return image


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> DiskSpec:
    """One disk with a partition of each kind."""
    work = tmp_path_factory.mktemp("disk")
    makers = (make_ext4, make_btrfs, make_xfs, make_ntfs, make_vfat, make_encrypted)
    images = [make(work) for make in makers]
    start = 2048
    layout: list[tuple[int, int, Path]] = []
    for image in images:
        sectors = image.stat().st_size // 512
        layout.append((start, sectors, image))
        start += sectors + 2048
    target = file_of(work / "disk.raw", start // 2048 + 8)
    tool("sgdisk", "--clear", *(f"--new={n}:{s}:{s + c - 1}" for n, (s, c, _) in enumerate(layout, 1)), target)
    with target.open("r+b") as stream:
        for first, _, image in layout:
            copy_sparse(image, stream.fileno(), first * 512)
    return DiskSpec(target, "raw")


@pytest.fixture(scope="module")
def found(
    hypervisor: Hypervisor, built: Appliance, disk: DiskSpec, tmp_path_factory: pytest.TempPathFactory
) -> Inspection:
    before = disk.path.read_bytes()
    result = inspect.read(
        hypervisor,
        disk,
        Request(["*marker", "*/authorized_keys", "/etc/line*"], [NEEDLE], largest=65_536),
        appliance=built,
        work=tmp_path_factory.mktemp("work"),
        deadline=Deadline.after(300, "inspecting"),
    )
    assert disk.path.read_bytes() == before, "the disk was written to"
    return result


@pytest.mark.parametrize(
    ("device", "kind", "path"),
    [
        ("vda1", "ext4", "/etc/marker"),
        ("vda2", "btrfs", "/etc/marker"),
        ("vda3", "xfs", "/etc/marker"),
        ("vda4", "ntfs", "/marker"),
        ("vda5", "vfat", "/marker"),
    ],
)
def test_every_file_system_is_read(found: Inspection, device: str, kind: str, path: str) -> None:
    [system] = [item for item in found.file_systems if item.device == device]
    assert (system.type, system.state, system.detail) == (kind, "read", "")
    assert system.files[path] == kind.encode()
    assert system.entries[path].size == len(kind)


def test_what_cannot_be_read_is_said_and_is_no_pass(found: Inspection) -> None:
    [system] = [item for item in found.file_systems if item.device == "vda6"]
    assert (system.type, system.state) == ("crypto_LUKS", "not-inspected")
    assert not found.complete


def test_the_root_file_system_gives_the_names(found: Inspection) -> None:
    assert found.root is not None
    assert found.root.device == "vda1"
    assert found.files["/etc/marker"] == b"ext4"
    assert found.files["[vda2]/etc/marker"] == b"btrfs"


def test_names_of_any_kind_arrive_unharmed(found: Inspection) -> None:
    assert found.files[f"/etc/{ODD_NAME}"] == b"odd"


def test_links_are_listed_and_never_followed(found: Inspection) -> None:
    [(_, entry)] = found.matching("/etc/shortcut")
    assert (entry.kind, entry.target) == ("l", "/proc/cmdline")
    assert "/etc/shortcut" not in found.files


def test_modes_and_owners_are_listed(found: Inspection) -> None:
    [(_, ext4)] = found.matching("/etc/marker")
    assert ext4.mode == 0o640
    [(_, xfs)] = found.matching("[[]vda3]/etc/marker")
    assert (xfs.uid, xfs.gid) == (12, 34)


def test_large_files_are_listed_only(found: Inspection) -> None:
    assert "/etc/big.marker" not in found.files
    assert [entry.size for _, entry in found.matching("/etc/big.marker")] == [70_000]


def test_files_that_hold_a_needle_are_named(found: Inspection) -> None:
    assert found.holders == ("/root/.ssh/authorized_keys",)


@pytest.fixture(scope="module")
def with_a_deleted_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ext4 file system with two files of a needle, of which the second was deleted afterwards."""
    work = tmp_path_factory.mktemp("deleted")
    source = tree(work / "ext4", "ext4")
    (source / "etc/os-release").write_text("ID=test\n")
    for name in ("kept", "deleted"):
        (source / name).write_bytes(name.encode() + b" " + NEEDLE + b"\n")
    image = file_of(work / "ext4.img", 64)
    tool("mke2fs", "-q", "-t", "ext4", "-d", source, image)
    tool("debugfs", "-w", "-R", "rm /deleted", image)
    return image


@pytest.mark.parametrize(("known", "holders"), [("deleted", ()), ("kept", ("/kept",))])
def test_files_are_searched_only_where_a_block_that_holds_the_needle_is_in_use(
    hypervisor: Hypervisor,
    built: Appliance,
    with_a_deleted_file: Path,
    tmp_path: Path,
    known: str,
    holders: tuple[str, ...],
) -> None:
    first = with_a_deleted_file.read_bytes().index(known.encode() + b" " + NEEDLE) + len(known) + 1
    found = inspect.read(
        hypervisor,
        DiskSpec(with_a_deleted_file, "raw"),
        Request([], [NEEDLE], [(first, first + len(NEEDLE) - 1)]),
        appliance=built,
        work=tmp_path,
        deadline=Deadline.after(300, "inspecting"),
    )
    assert (found.complete, found.holders) == (True, holders)


def test_a_disk_full_of_rubbish_is_not_inspected(hypervisor: Hypervisor, built: Appliance, tmp_path: Path) -> None:
    rubbish = tmp_path / "rubbish.raw"
    rubbish.write_bytes(os.urandom(2 * MIB))
    deadline = Deadline.after(300, "inspecting")
    result = inspect.read(
        hypervisor, DiskSpec(rubbish, "raw"), Request(["*"]), appliance=built, work=tmp_path, deadline=deadline
    )
    assert result.root is None
    assert not result.complete


def test_an_inspection_vm_that_crashes_is_an_error(hypervisor: Hypervisor, built: Appliance, tmp_path: Path) -> None:
    broken = tmp_path / "initrd"
    broken.write_bytes(b"")
    nothing = file_of(tmp_path / "empty.raw", 1)
    with pytest.raises(InspectionError, match="crashed"):
        inspect.read(
            hypervisor,
            DiskSpec(nothing, "raw"),
            Request([]),
            appliance=Appliance(built.kernel, broken),
            work=tmp_path,
            deadline=Deadline.after(300, "inspecting"),
        )


def test_the_appliance_is_built_once(built: Appliance, build_cache: Path) -> None:
    said: list[str] = []
    again = appliance.ensure(build_cache, Deadline.after(600, "building the appliance"), said.append)
    assert (again, said) == (built, [])
    listed = run(["cpio", "--quiet", "-t"], input=built.initrd.read_bytes(), deadline=Deadline.after(60, "reading it"))
    assert b"init\n" in listed.stdout
