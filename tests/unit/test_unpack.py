"""What image hosts serve: plain, xz, gz, and tar archives with one disk inside."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from hypervisor.deadline import Deadline
from hypervisor.errors import DeadlineExceeded, HostError, InputError
from orchestrator.plan.unpack import unpack

DISK = os.urandom(1 << 20) + bytes(4 << 20) + os.urandom(100)


def _tar(mode: str, members: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=f"w:{mode}") as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
        for name, target in (links or {}).items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            archive.addfile(entry)
    return out.getvalue()


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("disk.qcow2", lambda: DISK),
        ("disk.raw.xz", lambda: lzma.compress(DISK)),
        ("disk.vhdfixed.xz", lambda: lzma.compress(DISK)),
        ("disk.img.gz", lambda: gzip.compress(DISK)),
        ("disk-azure.vhd.tar.gz", lambda: _tar("gz", {"livecd.azure.vhd": DISK})),
        ("debian-azure.tar.xz", lambda: _tar("xz", {"disk.raw": DISK})),
        ("both.tar.gz", lambda: _tar("gz", {"README": b"read me", "a/../../../disk.raw": DISK})),
        ("nosuffix.tgz", lambda: _tar("gz", {"disk": DISK})),
    ],
)
def test_one_disk_comes_out(tmp_path: Path, name: str, pack: Callable[[], bytes]) -> None:
    source, target = tmp_path / "in" / "abcdef", tmp_path / "out" / "disk"
    source.parent.mkdir()
    target.parent.mkdir()
    source.write_bytes(pack())
    unpack(source, name, target, Deadline.after(60))
    assert target.read_bytes() == DISK
    assert [path.name for path in target.parent.iterdir()] == ["disk"]
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out"}


def test_what_is_unpacked_is_sparse(tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "disk"
    source.write_bytes(lzma.compress(bytes(8 << 20) + b"end"))
    unpack(source, "disk.raw.xz", target, Deadline.after(60))
    assert target.stat().st_size == (8 << 20) + 3
    assert target.stat().st_blocks * 512 < 1 << 20


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("disk.raw.xz", lzma.compress(DISK)[:-1000], "cannot be unpacked"),
        ("disk.raw.xz", b"not xz at all", "cannot be unpacked"),
        ("disk.img.gz", gzip.compress(DISK)[:1000], "cannot be unpacked"),
        ("disk.img.gz", b"<html>please log in</html>", "cannot be unpacked"),
        ("disk.tar.gz", _tar("gz", {"disk.raw": DISK})[:5000], "cannot be unpacked"),
        ("disk.tar.xz", b"", "cannot be unpacked"),
        ("two.tar.gz", _tar("gz", {"a.raw": b"1", "b.vhd": b"2"}), "one disk file; found: a.raw, b.vhd"),
        ("none.tar.gz", _tar("gz", {}), "found: none"),
        ("link.tar.gz", _tar("gz", {}, {"disk.raw": "/etc/passwd"}), "found: none"),
    ],
    # An archive holds the time it was made: as part of a test's name it would differ between two processes.
    ids=["xz-cut", "xz-text", "gz-cut", "gz-html", "tar-cut", "tar-empty", "two-disks", "no-disk", "link"],
)
def test_damaged_and_unsuitable_archives_leave_nothing(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    source, target = tmp_path / "in", tmp_path / "disk"
    source.write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        unpack(source, name, target, Deadline.after(60))
    assert name in caught.value.message
    assert not target.exists()


def test_unpacking_ends_with_the_deadline(tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "disk"
    source.write_bytes(lzma.compress(DISK))
    with pytest.raises(DeadlineExceeded):
        unpack(source, "disk.raw.xz", target, Deadline.after(0))
    assert not target.exists()


def test_a_target_that_cannot_be_written_is_this_machines_fault(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.write_bytes(lzma.compress(DISK))
    with pytest.raises(HostError, match=r"disk\.raw\.xz"):
        unpack(source, "disk.raw.xz", tmp_path / "no" / "such" / "folder", Deadline.after(60))
