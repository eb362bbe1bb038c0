"""An answer file put into the disk of a Windows that is not running: on NTFS as on the stand-in's file system."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hypervisor import appliance, inspect
from hypervisor.appliance import Appliance
from hypervisor.bootdisk import copy_sparse
from hypervisor.connection import Hypervisor, open_hypervisor
from hypervisor.deadline import Deadline
from hypervisor.errors import HostError
from hypervisor.machine import DiskSpec
from hypervisor.offline_edit import put_into_panther
from hypervisor.process import run

pytestmark = pytest.mark.vm
MIB = 1024 * 1024
CAN_MOUNT = os.geteuid() == 0 and Path("/dev/fuse").exists()


@pytest.fixture(scope="module")
def hypervisor(build_cache: Path) -> Iterator[Hypervisor]:
    with open_hypervisor(cache=build_cache) as opened:
        yield opened


@pytest.fixture(scope="module")
def built(build_cache: Path) -> Appliance:
    return appliance.ensure(build_cache, soon(600), print)


def soon(seconds: float = 120) -> Deadline:
    return Deadline.after(seconds, "the time of a test")


def fill(folder: Path, *, windows: bool) -> None:
    if windows:
        (folder / "Windows/System32").mkdir(parents=True)
        (folder / "Windows/Panther").mkdir()
        (folder / "Windows/Panther/UNATTEND.xml").write_text("<old/>")
    else:
        (folder / "Data").mkdir(parents=True)


def ntfs(work: Path, name: str, *, windows: bool) -> Path:
    image, mounted = work / f"{name}.img", work / f"{name}-mounted"
    with image.open("wb") as stream:
        stream.truncate(32 * MIB)
    run(["mkntfs", "-q", "-F", "-Q", image], deadline=soon())
    mounted.mkdir()
    # Not through `run`, which ends what a program leaves behind: this one stays until the unmount.
    subprocess.run(["ntfs-3g", image, mounted], check=True)
    try:
        fill(mounted, windows=windows)
    finally:
        run(["umount", mounted], deadline=soon())
    return image


def ext4(work: Path, name: str, *, windows: bool) -> Path:
    image, source = work / f"{name}.img", work / f"{name}-source"
    fill(source, windows=windows)
    run(["mke2fs", "-q", "-t", "ext4", "-d", source, image, "16M"], deadline=soon())
    return image


def disk_of(work: Path, *images: Path) -> DiskSpec:
    target, start, layout = work / "disk.raw", 2048, []
    for image in images:
        sectors = image.stat().st_size // 512
        layout.append((start, sectors, image))
        start += sectors + 2048
    with target.open("wb") as stream:
        stream.truncate((start + 4096) * 512)
    run(
        ["sgdisk", "--clear", *(f"--new={n}:{s}:{s + c - 1}" for n, (s, c, _) in enumerate(layout, 1)), target],
        deadline=soon(),
    )
    with target.open("r+b") as stream:
        for first, _, image in layout:
            copy_sparse(image, stream.fileno(), first * 512)
    return DiskSpec(target, "raw")


@pytest.mark.parametrize("make", [pytest.param(ntfs, marks=pytest.mark.skipif(not CAN_MOUNT, reason="no FUSE")), ext4])
def test_the_file_takes_the_place_of_every_spelling_of_its_name(
    hypervisor: Hypervisor, built: Appliance, tmp_path: Path, make
) -> None:
    disk = disk_of(tmp_path, make(tmp_path, "data", windows=False), make(tmp_path, "system", windows=True))
    put_into_panther(hypervisor, disk, {"unattend.xml": b"<new/>"}, appliance=built, work=tmp_path, deadline=soon())
    found = inspect.read(
        hypervisor, disk, inspect.Request(["*/Panther/*"]), appliance=built, work=tmp_path, deadline=soon()
    )
    assert {name: data for system in found.file_systems for name, data in system.files.items()} == {
        "/Windows/Panther/unattend.xml": b"<new/>"
    }
    assert not (tmp_path / "edit.iso").exists()


def test_a_disk_without_windows_is_refused(hypervisor: Hypervisor, built: Appliance, tmp_path: Path) -> None:
    disk = disk_of(tmp_path, ext4(tmp_path, "data", windows=False))
    before = disk.path.read_bytes()
    with pytest.raises(HostError, match=r"no file system with Windows/Panther"):
        put_into_panther(hypervisor, disk, {"unattend.xml": b"x"}, appliance=built, work=tmp_path, deadline=soon())
    assert len(disk.path.read_bytes()) == len(before)
