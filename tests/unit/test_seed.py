"""Seed images: read back by the same means as a guest's, through Joliet and Rock Ridge."""

from __future__ import annotations

import io
import stat
from pathlib import Path

import pycdlib
import pytest

from hypervisor import seed
from hypervisor.errors import UsageError

FILES = {
    "meta-data": b"",
    "user-data": b"#cloud-config\n" + "pässwörd\n".encode(),
    "openstack/latest/meta_data.json": b"{}",
    "openstack/latest/a file with a rather long name, and more.bin": bytes(range(256)) * 300,
    "Autounattend.xml": b"<unattend/>",
}


def _read(path: Path, kind: str) -> dict[str, bytes]:
    iso = pycdlib.PyCdlib()
    iso.open(str(path))
    try:
        found = {}
        for folder, _, names in iso.walk(**{kind: "/"}):
            for name in names:
                inside = f"{folder.rstrip('/')}/{name}"
                data = io.BytesIO()
                iso.get_file_from_iso_fp(data, **{kind: inside})
                found[inside.removeprefix("/")] = data.getvalue()
        return found
    finally:
        iso.close()


@pytest.mark.parametrize("kind", ["joliet_path", "rr_path"])
def test_a_guest_reads_what_was_written(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "seed.iso"
    seed.write_iso(path, FILES)
    assert _read(path, kind) == FILES


def test_the_label_is_the_one_asked_for_and_only_the_owner_may_read(tmp_path: Path) -> None:
    path = tmp_path / "seed.iso"
    seed.write_iso(path, {"a": b"b"})
    seed.write_iso(path, {"a": b"c"}, volume="OEMDRV")
    assert path.read_bytes()[0x8000 + 40 : 0x8000 + 72].rstrip() == b"OEMDRV"
    assert _read(path, "joliet_path") == {"a": b"c"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["seed.iso"]


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../up", "a//b", "a/./b", "a/" * 9 + "b"])
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="name of a file"):
        seed.write_iso(tmp_path / "seed.iso", {name: b""})
    assert not list(tmp_path.iterdir())
