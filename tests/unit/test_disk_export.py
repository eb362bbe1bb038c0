"""Writing disks: the fixed VHD that Azure takes, overlays that can be moved with their base, nothing half-written."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from hypervisor import disk
from hypervisor.deadline import Deadline
from hypervisor.disk import ImagesDiffer
from hypervisor.errors import DeadlineExceeded, HostError
from hypervisor.vhd_footer import VhdFooter, VhdKind

MIB = 1024 * 1024


@pytest.fixture
def deadline() -> Deadline:
    return Deadline.after(60)


@pytest.fixture
def odd_disk(tmp_path: Path) -> Path:
    """A raw disk whose size is no whole number of MiB."""
    path = tmp_path / "odd.raw"
    path.write_bytes(os.urandom(MIB) + bytes(2 * MIB) + os.urandom(512 * 3))
    return path


def test_a_fixed_vhd_is_rounded_up_to_a_mib_before_it_is_written(
    odd_disk: Path, tmp_path: Path, deadline: Deadline
) -> None:
    target = tmp_path / "image.vhd"
    percentages: list[float] = []
    disk.write_fixed_vhd(odd_disk, "raw", target, deadline, percentages.append)

    raw = target.read_bytes()
    footer = VhdFooter.parse(raw[-512:])
    assert footer is not None
    assert footer.kind is VhdKind.FIXED
    assert footer.current_size == 4 * MIB == len(raw) - 512
    assert raw[: odd_disk.stat().st_size] == odd_disk.read_bytes()
    assert not any(raw[odd_disk.stat().st_size : -512])
    assert percentages[-1] == 100.0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image.vhd", "odd.raw"]


def test_a_fixed_vhd_of_an_overlay_holds_what_the_overlay_shows(tmp_path: Path, deadline: Deadline) -> None:
    base, overlay, target = tmp_path / "base.raw", tmp_path / "overlay.qcow2", tmp_path / "image.vhd"
    base.write_bytes(os.urandom(MIB))
    disk.create_overlay(base, "raw", overlay, 3 * MIB)
    assert disk.info(overlay, "qcow2").backing == "base.raw"
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -P 0x5a 2M 64k", overlay], check=True, capture_output=True)
    disk.write_fixed_vhd(overlay, "qcow2", target, deadline)
    raw = target.read_bytes()
    assert raw[:MIB] == base.read_bytes()
    assert raw[2 * MIB : 2 * MIB + 65536] == b"\x5a" * 65536


def test_a_failed_export_leaves_nothing(odd_disk: Path, tmp_path: Path) -> None:
    target = tmp_path / "image.vhd"
    with pytest.raises(DeadlineExceeded):
        disk.write_fixed_vhd(odd_disk, "raw", target, Deadline.after(0))
    broken = tmp_path / "broken.qcow2"
    broken.write_bytes(b"QFI\xfb\0\0\0\3" + bytes(1000))
    with pytest.raises(Exception, match=r"broken\.qcow2"):
        disk.write_qcow2(broken, "qcow2", tmp_path / "image.qcow2", Deadline.after(60))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.qcow2", "odd.raw"]


def test_an_export_replaces_the_target_only_when_it_is_whole(
    odd_disk: Path, tmp_path: Path, deadline: Deadline
) -> None:
    target = tmp_path / "image.qcow2"
    target.write_bytes(b"the old one")
    with pytest.raises(DeadlineExceeded):
        disk.write_qcow2(odd_disk, "raw", target, Deadline.after(0))
    assert target.read_bytes() == b"the old one"
    disk.write_qcow2(odd_disk, "raw", target, deadline)
    disk.compare(odd_disk, "raw", target, "qcow2", deadline)


def test_a_vhd_whose_footer_is_not_what_was_asked_for_is_refused(tmp_path: Path, deadline: Deadline) -> None:
    raw, dynamic = tmp_path / "disk.raw", tmp_path / "dynamic.vhd"
    raw.write_bytes(os.urandom(2 * MIB))
    disk.convert(raw, "raw", dynamic, "vpc", deadline, options="subformat=dynamic,force_size=on")
    with pytest.raises(HostError, match="footer"):
        disk.verify_fixed_vhd(dynamic, 2 * MIB)
    fixed = tmp_path / "fixed.vhd"
    disk.write_fixed_vhd(raw, "raw", fixed, deadline)
    with pytest.raises(HostError, match="expected"):
        disk.verify_fixed_vhd(fixed, 3 * MIB)


def test_compare_sees_one_byte_and_a_longer_disk(odd_disk: Path, tmp_path: Path, deadline: Deadline) -> None:
    other = tmp_path / "other.raw"
    shutil.copy(odd_disk, other)
    disk.compare(odd_disk, "raw", other, "raw", deadline)
    os.truncate(other, other.stat().st_size + 512)
    with pytest.raises(ImagesDiffer, match="holds"):
        disk.compare(odd_disk, "raw", other, "raw", deadline)
    os.truncate(other, odd_disk.stat().st_size)
    with other.open("r+b") as file:
        file.seek(MIB + 5)
        file.write(b"x")
    with pytest.raises(ImagesDiffer, match="differ"):
        disk.compare(odd_disk, "raw", other, "raw", deadline)


def test_an_overlay_is_found_again_when_its_store_is_moved(odd_disk: Path, tmp_path: Path, deadline: Deadline) -> None:
    home = tmp_path / "home"
    (home / "layers").mkdir(parents=True)
    (home / "runs" / "one").mkdir(parents=True)
    base = home / "layers" / "base.raw"
    odd_disk.rename(base)
    disk.create_overlay(base, "raw", home / "runs" / "one" / "os.qcow2")
    moved = home.rename(tmp_path / "moved")
    disk.compare(moved / "layers" / "base.raw", "raw", moved / "runs" / "one" / "os.qcow2", "qcow2", deadline)


@pytest.mark.parametrize("name", ["with:colon.qcow2", "with,comma.qcow2", "-dash.qcow2", "a b'c\".qcow2"])
def test_names_that_mean_something_to_qemu_are_just_names(
    odd_disk: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, deadline: Deadline
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path(name)
    disk.convert(odd_disk, "raw", path, "qcow2", deadline)
    disk.check(path, "qcow2")
    assert disk.read_bytes(path, "qcow2", 0, 4096) == odd_disk.read_bytes()[:4096]
    assert disk.read_bytes(path, "qcow2", 3 * MIB, 1 << 20) == odd_disk.read_bytes()[3 * MIB :]
