"""Pulling images from a local server that is laid out as the public hosts are.

The built-in catalogue's own entries are used, with the hosts' addresses replaced by the server's.
"""

from __future__ import annotations

import hashlib
import io
import lzma
import os
import re
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from importlib.resources import files
from pathlib import Path

import pytest

from hypervisor import disk
from hypervisor.deadline import CancelToken, Deadline
from hypervisor.errors import Cancelled, DeadlineExceeded, InputError
from orchestrator.plan import pull
from orchestrator.plan.catalogue import Catalogue, UrlSource
from orchestrator.record.store import Store
from orchestrator.verbs import image

QUICK = replace(pull.LIMITS, connect=2, silence=5, total=30, attempts=2, backoff=0.01)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pull, "LIMITS", QUICK)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


@pytest.fixture(scope="module")
def qcow2(small_disk: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("qcow2") / "disk.qcow2"
    disk.convert(small_disk, "raw", path, "qcow2", Deadline.after(60))
    return path.read_bytes()


@pytest.fixture
def catalogue(web, tmp_path: Path) -> Catalogue:
    """The built-in catalogue with every host replaced by the local server."""
    text = files("orchestrator.plan").joinpath("catalogue.toml").read_text()
    path = tmp_path / "local.toml"
    path.write_text(re.sub(r"https://[a-z.-]+/", f"{web.url}/", text))
    return Catalogue.load(path)


def listing(*names: str) -> bytes:
    """An index page as Apache and nginx write it."""
    rows = "".join(
        f'<tr><td><a href="{name}">{name[:20]}..&gt;</a></td><td>2024-02-11 06:19</td></tr>' for name in names
    )
    return f'<html><body><a href="../">Parent</a><a href="?C=M;O=A">Modified</a>{rows}</body></html>'.encode()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def ranged(body: bytes, *, cut: int | None = None, etag: str = '"one"') -> Callable[[BaseHTTPRequestHandler], None]:
    """A server that continues files; with `cut` the first answer breaks after so many bytes."""
    state = {"cut": cut}

    def answer(handler: BaseHTTPRequestHandler) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        start = int(asked[1]) if asked and handler.headers.get("If-Range") == etag else 0
        rest = body[start:]
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        handler.send_header("ETag", etag)
        handler.send_header("Content-Length", str(len(rest)))
        handler.end_headers()
        limit, state["cut"] = state["cut"], None
        handler.wfile.write(rest[:limit])
        if limit is not None:
            handler.wfile.flush()
            handler.close_connection = True

    return answer


def fetch(store: Store, catalogue: Catalogue, urn: str, **options):
    options = {"deadline": Deadline.after(60), "say": lambda text: None, **options}
    return image.pull_image(store, catalogue, urn, **options)


def debian(web, qcow2: bytes) -> str:
    """Debian 13 in two builds; returns the newer one's path."""
    web.on("/images/cloud/trixie/", listing("latest/", "daily/", "20250806-2196/", "20251006-2257/"))
    for build in ("20250806-2196", "20251006-2257"):
        name = f"debian-13-genericcloud-amd64-{build}.qcow2"
        web.on(f"/images/cloud/trixie/{build}/{name}", ranged(qcow2))
        sums = f"{'0' * 128}  debian-13-genericcloud-arm64-{build}.qcow2\n{hashlib.sha512(qcow2).hexdigest()}  {name}\n"
        web.on(f"/images/cloud/trixie/{build}/SHA512SUMS", sums.encode())
    return f"/images/cloud/trixie/20251006-2257/debian-13-genericcloud-amd64-{'20251006-2257'}.qcow2"


def test_debian_is_pulled_with_its_sha512(web, store: Store, catalogue: Catalogue, qcow2: bytes) -> None:
    debian(web, qcow2)
    said: list[str] = []
    seen: list[tuple[int, int | None]] = []
    resource = fetch(store, catalogue, "Debian:debian-13:13", say=said.append, progress=lambda *n: seen.append(n))
    assert resource.id == "/aib/platformImages/Debian/debian-13/13/versions/0.20251006.2257"
    assert resource.digest == sha256(qcow2)
    assert resource.properties["aib"]["generation"] == "V1"
    assert resource.properties["aib"]["os"] == "linux"
    assert resource.properties["aib"]["source"]["checksum"].startswith("sha512:")
    layer = store.layer(resource.digest)
    assert layer is not None
    assert layer.path.read_bytes() == qcow2
    assert layer.virtual_size == 16 << 20
    assert seen[-1] == (len(qcow2), len(qcow2))
    assert any("downloading" in line for line in said)
    assert not list((store.home / "downloads").iterdir())
    assert not list((store.home / "incoming").iterdir())


def test_a_pin_is_pulled_and_the_gen2_name_shares_the_download(
    web, store: Store, catalogue: Catalogue, qcow2: bytes
) -> None:
    debian(web, qcow2)
    first = fetch(store, catalogue, "Debian:debian-13:13:0.20250806.2196")
    assert first.name == "0.20250806.2196"
    second = fetch(store, catalogue, "debian:DEBIAN-13:13-gen2:0.20250806.2196")
    assert second.properties["aib"]["generation"] == "V2"
    assert second.digest == first.digest
    assert sum(path.endswith(".qcow2") for path in web.paths()) == 1
    again = fetch(store, catalogue, "Debian:debian-13:13:0.20250806.2196", say=lambda text: None)
    assert again == first


@pytest.mark.parametrize(
    ("urn", "index", "names", "file", "sums", "shape", "version"),
    [
        (
            "Canonical:0001-com-ubuntu-server-jammy:22_04-lts-gen2",
            "/releases/jammy/",
            ("release/", "release-20240126/", "release-20240223.1/", "release-20240223/"),
            "release-20240223.1/ubuntu-22.04-server-cloudimg-amd64.img",
            "release-20240223.1/SHA256SUMS",
            "{sum} *{name}\n",
            "22.04.202402231",
        ),
        (
            "almalinux:almalinux-x86_64:9-gen2",
            "/almalinux/9/cloud/x86_64/images/",
            (
                "AlmaLinux-9-GenericCloud-latest.x86_64.qcow2",
                "AlmaLinux-9-GenericCloud-9.9-20240101.x86_64.qcow2",
                "AlmaLinux-9-GenericCloud-9.10-20240507.x86_64.qcow2",
                "CHECKSUM",
            ),
            "AlmaLinux-9-GenericCloud-9.10-20240507.x86_64.qcow2",
            "CHECKSUM",
            "{sum}  {name}\n",
            "9.10.20240507",
        ),
        (
            "resf:rockylinux-x86_64:9-base",
            "/pub/rocky/9/images/x86_64/",
            ("Rocky-9-GenericCloud-Base-9.4-20240609.1.x86_64.qcow2", "Rocky-9-GenericCloud.latest.x86_64.qcow2"),
            "Rocky-9-GenericCloud-Base-9.4-20240609.1.x86_64.qcow2",
            "CHECKSUM",
            "# {name}: 12 bytes\nSHA256 ({name}) = {sum}\n",
            "9.4.202406091",
        ),
        (
            "OpenLogic:CentOS:7_9",
            "/centos/7/images/",
            ("CentOS-7-x86_64-GenericCloud-1907.qcow2", "CentOS-7-x86_64-GenericCloud-2009.qcow2"),
            "CentOS-7-x86_64-GenericCloud-2009.qcow2",
            "sha256sum.txt",
            "{sum}  {name}\n",
            "7.20.09",
        ),
        (
            "SUSE:opensuse-leap-15-6:gen2",
            "/distribution/leap/15.6/appliances/",
            (
                "openSUSE-Leap-15.6-Minimal-VM.x86_64-15.6.0-Cloud-Build19.91.qcow2",
                "openSUSE-Leap-15.6-Minimal-VM.x86_64-15.6.0-Cloud-Build19.146.qcow2",
                "openSUSE-Leap-15.6-Minimal-VM.x86_64-Cloud.qcow2",
            ),
            "openSUSE-Leap-15.6-Minimal-VM.x86_64-15.6.0-Cloud-Build19.146.qcow2",
            "openSUSE-Leap-15.6-Minimal-VM.x86_64-15.6.0-Cloud-Build19.146.qcow2.sha256",
            "{sum}  {name}\n",
            "15.6.190146",
        ),
    ],
)
def test_each_host_has_its_layout(
    web, store: Store, catalogue: Catalogue, qcow2: bytes, urn, index, names, file, sums, shape, version
) -> None:
    web.on(index, listing(*names))
    web.on(index + file, qcow2)
    web.on(index + sums, shape.format(sum=sha256(qcow2), name=file.rsplit("/", 1)[-1]).encode())
    resource = fetch(store, catalogue, urn)
    assert resource.name == version
    assert resource.digest == sha256(qcow2)


def _own(web, tmp_path: Path, file: str) -> Catalogue:
    """An overlay of the user's, whose index is the checksum file itself."""
    path = tmp_path / "own.toml"
    path.write_text(
        f"""
schema = 1
[[image]]
name = "own"
urns = ["me:own:*"]
[image.source]
type = "url"
index = "{web.url}/SUMS"
release = '{file}'
version = "1.{{v}}.0"
file = "{{release}}"
sums = "SUMS"
"""
    )
    return Catalogue.load(path)


def test_archives_are_unpacked_and_the_checksum_file_can_be_the_index(
    web, store: Store, tmp_path: Path, small_disk: Path
) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:xz") as archive:
        archive.add(small_disk, "disk.raw")
    vhd = tmp_path / "disk.vhd"
    disk.write_fixed_vhd(small_disk, "raw", vhd, Deadline.after(60))
    packed = {"me-1.tar.xz": out.getvalue(), "me-2.vhdfixed.xz": lzma.compress(vhd.read_bytes())}
    web.on("/SUMS", "".join(f"{sha256(data)} *{name}\n" for name, data in packed.items()).encode())
    for name, data in packed.items():
        web.on(f"/{name}", data)
    catalogue = _own(web, tmp_path, r"me-(?P<v>\d)\.(tar|vhdfixed)\.xz")
    newest = fetch(store, catalogue, "me:own:x")
    assert newest.name == "1.2.0"
    for resource in (newest, fetch(store, catalogue, "me:own:x:1.1.0")):
        layer = store.layer(resource.digest)
        assert layer is not None
        disk.compare(small_disk, "raw", layer.path, "qcow2", Deadline.after(60))  # no footer in it


def test_a_download_that_breaks_is_continued_where_it_stopped(
    web, store: Store, catalogue: Catalogue, qcow2: bytes
) -> None:
    path = debian(web, qcow2)
    web.on(path, ranged(qcow2, cut=100_000))
    assert fetch(store, catalogue, "Debian:debian-13:13").digest == sha256(qcow2)
    ranges = [headers.get("Range") for where, headers in web.seen if where == path]
    assert ranges == [None, "bytes=100000-"]


def test_the_next_call_continues_what_an_earlier_one_left(
    web, store: Store, catalogue: Catalogue, qcow2: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = debian(web, qcow2)
    web.on(path, ranged(qcow2, cut=100_000))
    monkeypatch.setattr(pull, "LIMITS", replace(QUICK, attempts=1))
    with pytest.raises(InputError, match="cannot fetch"):
        fetch(store, catalogue, "Debian:debian-13:13")
    assert image.stored_images(store) == ()
    fetch(store, catalogue, "Debian:debian-13:13")
    assert [headers.get("Range") for where, headers in web.seen if where == path] == [None, "bytes=100000-"]


def test_a_file_that_changed_meanwhile_is_fetched_anew(
    web, store: Store, catalogue: Catalogue, qcow2: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = debian(web, qcow2)
    monkeypatch.setattr(pull, "LIMITS", replace(QUICK, attempts=1))
    web.on(path, ranged(b"another file" * 100_000, cut=100_000, etag='"old"'))
    with pytest.raises(InputError, match="cannot fetch"):
        fetch(store, catalogue, "Debian:debian-13:13")
    web.on(path, ranged(qcow2, etag='"new"'))
    assert fetch(store, catalogue, "Debian:debian-13:13").digest == sha256(qcow2)


def test_a_wrong_checksum_leaves_nothing(web, store: Store, catalogue: Catalogue, qcow2: bytes) -> None:
    path = debian(web, qcow2)
    web.on(path, ranged(qcow2[:-1] + b"!"))
    with pytest.raises(InputError, match="wrong checksum") as caught:
        fetch(store, catalogue, "Debian:debian-13:13")
    assert hashlib.sha512(qcow2).hexdigest() in caught.value.message
    assert not [p for p in store.home.rglob("*") if p.is_file() and p.stat().st_size > 100_000]
    assert image.stored_images(store) == ()


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda web: web.answers.clear(), "404"),
        (lambda web: web.on("/images/cloud/trixie/", listing("latest/", "daily/")), "no release"),
        (lambda web: web.answers.pop("/images/cloud/trixie/20251006-2257/SHA512SUMS"), "404"),
        (lambda web: web.on("/images/cloud/trixie/20251006-2257/SHA512SUMS", b"nothing\n"), "no checksum"),
        (
            lambda web: web.answers.pop(
                "/images/cloud/trixie/20251006-2257/debian-13-genericcloud-amd64-20251006-2257.qcow2"
            ),
            "404",
        ),
    ],
)
def test_what_the_host_lacks_is_said(web, store: Store, catalogue: Catalogue, qcow2: bytes, prepare, words) -> None:
    debian(web, qcow2)
    prepare(web)
    with pytest.raises(InputError, match=words) as caught:
        fetch(store, catalogue, "Debian:debian-13:13")
    assert web.url in caught.value.message
    assert image.stored_images(store) == ()


def test_a_version_that_is_not_offered_names_those_that_are(
    web, store: Store, catalogue: Catalogue, qcow2: bytes
) -> None:
    debian(web, qcow2)
    with pytest.raises(InputError, match=r"13:0\.1\.2 is not stored") as caught:
        fetch(store, catalogue, "Debian:debian-13:13:0.1.2")
    assert "0.20250806.2196, 0.20251006.2257" in caught.value.hint


def test_what_is_no_disk_is_refused_although_its_checksum_is_right(
    web, store: Store, catalogue: Catalogue, qcow2: bytes
) -> None:
    debian(web, b"<html>please log in</html>" * 100)
    with pytest.raises(InputError, match="not a disk image"):
        fetch(store, catalogue, "Debian:debian-13:13")
    assert not list((store.home / "incoming").iterdir())


def test_a_slow_host_ends_with_the_deadline_and_a_cancel_at_once(
    web, store: Store, catalogue: Catalogue, qcow2: bytes
) -> None:
    path = debian(web, qcow2)
    token = CancelToken()

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(qcow2)))
        handler.end_headers()
        handler.wfile.write(qcow2[:10])
        handler.wfile.flush()
        token.wait(3)

    web.on(path, drip)
    with pytest.raises(DeadlineExceeded, match="the test's second"):
        fetch(store, catalogue, "Debian:debian-13:13", deadline=Deadline.after(1, "the test's second"))
    with pytest.raises(Cancelled):
        fetch(
            store,
            catalogue,
            "Debian:debian-13:13",
            deadline=Deadline.after(60, token=token),
            progress=lambda done, total: token.cancel(),
        )


def test_sigterm_ends_a_pull_on_the_command_line(web, tmp_path: Path, qcow2: bytes) -> None:
    hanging, over = threading.Event(), threading.Event()

    def hang(handler: BaseHTTPRequestHandler) -> None:
        hanging.set()
        over.wait(30)

    web.on("/SUMS", f"{sha256(qcow2)}  me-1.qcow2\n".encode())
    web.on("/me-1.qcow2", hang)
    _own(web, tmp_path, r"me-(?P<v>\d)\.qcow2")
    code = "from orchestrator.cli.main import main; main()"
    argv = [sys.executable, "-c", code, "image", "pull", "me:own:x", "--catalogue", str(tmp_path / "own.toml")]
    environment = {**os.environ, "AIB_HOME": str(tmp_path / "home")}
    with subprocess.Popen(argv, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert hanging.wait(30)
        process.terminate()
        _, err = process.communicate(timeout=10)
    over.set()
    assert process.returncode == 130, err
    assert "SIGTERM" in err
    assert "Traceback" not in err


def test_every_url_entry_of_the_catalogue_is_secure_and_whole() -> None:
    for entry in Catalogue.load().entries:
        if isinstance(entry.source, UrlSource):
            assert entry.source.index.startswith("https://")
            assert entry.source.index.endswith("/")
