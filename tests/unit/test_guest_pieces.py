"""The pieces that guests and disks are made of: raw search, cpio, modules, boot sectors, apt sources, cache folders."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from hypervisor.apt_sources import debian_sources
from hypervisor.bootdisk import BootLoader, bios_writes, root_size
from hypervisor.bootstrap import BootstrapRecipe, version
from hypervisor.cachefolder import ensure_folder
from hypervisor.deadline import Deadline
from hypervisor.errors import HostError
from hypervisor.initramfs import Initramfs, modules
from hypervisor.inspection import InspectionError, parse
from hypervisor.process import run
from hypervisor.rawscan import scan_raw

MIB = 1024 * 1024


def soon() -> Deadline:
    return Deadline.after(60, "the test")


def test_a_needle_is_found_across_chunks_once_and_in_utf16(tmp_path: Path) -> None:
    needle = b"0123456789abcdef"
    path = tmp_path / "disk.raw"
    with path.open("wb") as stream:
        stream.truncate(8 * MIB)
        for offset in (0, 4096 - 7, 5 * MIB):
            stream.seek(offset)
            stream.write(needle)
        stream.seek(6 * MIB + 1)
        stream.write(needle.decode().encode("utf-16-le"))
    found = scan_raw(path, [needle, b"absent"], soon(), chunk=4096)
    assert found[needle].offsets == (0, 4096 - 7, 5 * MIB, 6 * MIB + 1)
    assert found[needle].count == 4
    assert found[b"absent"].count == 0


def test_the_initramfs_is_an_archive_that_cpio_reads(tmp_path: Path) -> None:
    target = Initramfs()
    target.add("sbin/tool", b"#!/bin/sh\n", mode=0o755)
    target.link("bin/sh", "busybox")
    target.device("dev/console", 5, 1)
    listed = run(["cpio", "-tv", "--quiet"], input=target.archive(), deadline=soon()).stdout.decode().splitlines()
    kinds = {line.split()[-1] if " -> " not in line else line.split()[-3]: line.split()[0] for line in listed}
    assert kinds["sbin/tool"] == "-rwxr-xr-x"
    assert kinds["bin/sh"].startswith("l")
    assert kinds["dev/console"] == "crw-------"
    assert kinds["sbin"] == "drwxr-xr-x"


def test_modules_come_after_what_they_depend_on(tmp_path: Path) -> None:
    for name, depends in {"virtio-blk": "virtio,virtio_ring", "virtio": "", "virtio_ring": "virtio"}.items():
        (tmp_path / f"{name}.ko").write_bytes(b"\x7fELF\0license=GPL\0depends=" + depends.encode() + b"\0rest")
    (tmp_path / "modules.builtin").write_text("kernel/fs/ext4/ext4.ko\n")
    loaded = [module.name for module in modules(tmp_path, ["virtio_blk", "ext4"])]
    assert loaded == ["virtio", "virtio_ring", "virtio_blk"]
    with pytest.raises(HostError, match="ntfs3"):
        modules(tmp_path, ["ntfs3"])


def test_boot_sector_and_core_point_at_each_other() -> None:
    boot, core = bytes(range(256)) * 2, bytes(512 * 3 + 10)
    (at_boot, sector), (at_core, written) = bios_writes(BootLoader(boot, core), 2048)
    assert (at_boot, len(sector), at_core) == (0, 440, 2048 * 512)
    assert struct.unpack_from("<Q", sector, 0x5C) == (2048,)
    assert struct.unpack_from("<QHH", written, 0x1F4) == (2049, 3, 0x820)


def test_the_root_partition_leaves_room_for_both_partition_tables() -> None:
    assert root_size(512 * MIB, 4) == (512 - 1 - 3 - 4 - 1) * MIB


def sources_of(tmp_path: Path, **files: str) -> list[tuple[str, str]]:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "os-release").write_text("VERSION_CODENAME=bookworm\n")
    for name, text in files.items():
        path = tmp_path / name.replace("_", ".")
        (path if name == "sources_list" else tmp_path / "sources.list.d" / name.replace("_", ".")).write_text(text)
    found = debian_sources("bookworm", tmp_path, tmp_path / "os-release")
    return [(source.uri, source.suite) for source in found]


def test_both_forms_of_apt_sources_are_read_and_others_left_out(tmp_path: Path) -> None:
    found = sources_of(
        tmp_path,
        sources_list="# deb http://old/ bookworm main\ndeb [arch=amd64] http://m/debian bookworm main contrib\n",
        debian_sources="Types: deb\nURIs: http://m/security\nSuites: bookworm-security\nComponents: main\n"
        "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n"
        "Types: deb\nEnabled: no\nURIs: http://m/off\nSuites: bookworm\nComponents: main\n",
        vendor_list="deb [signed-by=/etc/vendor.gpg] http://vendor/apt bookworm main\ndeb http://v2/apt stable main\n",
    )
    assert found == [("http://m/debian", "bookworm"), ("http://m/security", "bookworm-security")]


def test_another_suite_comes_from_the_same_archives(tmp_path: Path) -> None:
    (tmp_path / "os-release").write_text("VERSION_CODENAME=trixie\n")
    (tmp_path / "sources.list").write_text("deb http://m/debian trixie main\ndeb http://m/sec trixie-security main\n")
    found = debian_sources("bookworm", tmp_path, tmp_path / "os-release")
    assert [source.line for source in found] == [
        "deb http://m/debian bookworm main",
        "deb http://m/sec bookworm-security main",
    ]


def test_no_debian_source_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text("deb http://archive/ubuntu jammy main\n")
    with pytest.raises(HostError, match="bookworm") as caught:
        debian_sources("bookworm", tmp_path, tmp_path / "none")
    assert "aib image import" in caught.value.hint


def release(lists: Path, name: str, date: str, origin: str = "Debian") -> None:
    (lists / name).write_text(f"Origin: {origin}\nSuite: stable\nDate: {date}\nCodename: x\n")


def test_the_version_changes_with_every_input_and_carries_the_newest_date(tmp_path: Path) -> None:
    release(tmp_path, "m_debian_dists_bookworm_InRelease", "Sat, 05 Sep 2026 09:50:00 UTC")
    release(tmp_path, "m_security_dists_bookworm-security_InRelease", "Sat, 21 Nov 2026 09:50:00 UTC")
    recipe = BootstrapRecipe()
    first = version(recipe, tmp_path)
    assert first.startswith("0.20261121.")
    assert version(recipe, tmp_path) == first
    assert version(BootstrapRecipe(packages=("one",)), tmp_path) != first
    release(tmp_path, "v_dists_bookworm_InRelease", "Sun, 22 Nov 2026 09:50:00 UTC", origin="Vendor")
    assert version(recipe, tmp_path) == first
    release(tmp_path, "m_debian_dists_bookworm-updates_InRelease", "Sun, 22 Nov 2026 09:50:00 UTC")
    assert version(recipe, tmp_path).startswith("0.20261122.")


def test_no_package_lists_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(HostError) as caught:
        version(BootstrapRecipe(), tmp_path)
    assert "apt-get update" in caught.value.hint


def test_a_cache_folder_is_built_once_and_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    final = tmp_path / "shelf" / "key"

    def broken(staging: Path) -> None:
        (staging / "half").write_text("x")
        raise HostError("no")

    with pytest.raises(HostError):
        ensure_folder(final, broken)
    assert list(final.parent.iterdir()) == []
    ensure_folder(final, lambda staging: (staging / "file").write_text("first") and None)
    ensure_folder(final, broken)
    assert [path.name for path in final.parent.iterdir()] == ["key"]


def test_who_builds_a_cache_folder_second_uses_the_firsts(tmp_path: Path) -> None:
    final = tmp_path / "key"

    def overtaken(staging: Path) -> None:
        (staging / "file").write_text("second")
        final.mkdir()
        (final / "file").write_text("first")

    ensure_folder(final, overtaken)
    assert (final / "file").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


@pytest.mark.parametrize(
    ("trailer", "reason"),
    [(b"", "its console ends with:\nOut of memory"), (b"aib-inspect failed tar ended with 2", "tar ended with 2")],
)
def test_an_unfinished_inspection_concludes_nothing_and_says_why(tmp_path: Path, trailer: bytes, reason: str) -> None:
    output = tmp_path / "out.raw"
    output.write_bytes(bytes(4096) + trailer.ljust(512))
    with pytest.raises(InspectionError, match=reason):
        parse(output, MIB, "Out of memory\n")
