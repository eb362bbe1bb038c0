"""Distributed VHDs as blobs: by plain HTTP and by Azure's own way of asking for ranges."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import requests
from starlette.applications import Starlette

from orchestrator.service.blobs import SAS_SECONDS, Blobs
from tests.contract.serving import serving

CONTENT = bytes(range(256)) * 400


@pytest.fixture(scope="module")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> Blobs:
    folder = tmp_path_factory.mktemp("vhds")
    (folder / "nightly").mkdir()
    (folder / "nightly" / "my image.vhd").write_bytes(CONTENT)
    (folder / "nightly" / "out.vhd").symlink_to("/etc/passwd")
    return Blobs(folder, b"key")


@pytest.fixture(scope="module")
def origin(blobs: Blobs) -> Iterator[str]:
    with serving(Starlette(routes=blobs.routes)) as address:
        yield address


def test_a_blob_is_read_whole_and_in_parts(origin: str, blobs: Blobs) -> None:
    address = blobs.sas_uri(origin, "nightly", "my image.vhd")
    whole = requests.get(address, timeout=10)
    assert (whole.content, whole.headers["x-ms-blob-type"]) == (CONTENT, "PageBlob")
    for header in ("Range", "x-ms-range"):
        part = requests.get(address, headers={header: "bytes=1000-1999"}, timeout=10)
        assert (part.status_code, part.content) == (206, CONTENT[1000:2000])
        assert part.headers["Content-Range"] == f"bytes 1000-1999/{len(CONTENT)}"
    beyond = requests.get(address, headers={"Range": "bytes=999999-"}, timeout=10)
    assert beyond.status_code == 416
    head = requests.head(address, timeout=10)
    assert (head.headers["Content-Length"], head.content) == (str(len(CONTENT)), b"")
    assert head.headers["ETag"] == whole.headers["ETag"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda a: a.partition("?")[0], "PublicAccessNotPermitted"),
        (lambda a: a.replace("sig=", "sig=0"), "AuthenticationFailed"),
        (lambda a: a.partition("sig=")[0] + "sig=%C3%BC", "AuthenticationFailed"),
        (lambda a: a.replace("sp=r", "sp=rw"), "AuthenticationFailed"),
        (lambda a: a.replace("/nightly/", "/other/"), "AuthenticationFailed"),
        (lambda a: a.replace("se=2", "se=3"), "AuthenticationFailed"),
    ],
    ids=["no-sas", "signature", "umlaut", "permission", "blob", "expiry"],
)
def test_what_a_sas_does_not_say_is_refused(origin: str, blobs: Blobs, change: object, code: str) -> None:
    assert callable(change)
    answer = requests.get(change(blobs.sas_uri(origin, "nightly", "my image.vhd")), timeout=10)
    assert answer.headers["x-ms-error-code"] == code
    assert answer.status_code in (403, 409)


def test_a_sas_ends(origin: str, blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - SAS_SECONDS - 60)
    address = blobs.sas_uri(origin, "nightly", "my image.vhd")
    monkeypatch.undo()
    assert requests.get(address, timeout=10).status_code == 403


@pytest.mark.parametrize("name", ["out.vhd", "none.vhd", "../../etc/passwd", ""])
def test_nothing_but_files_of_the_folder(origin: str, blobs: Blobs, name: str) -> None:
    request = requests.Request("GET", blobs.sas_uri(origin, "nightly", name)).prepare()
    request.url = blobs.sas_uri(origin, "nightly", name)  # as written: requests would resolve the dots
    with requests.Session() as session:
        answer = session.send(request, timeout=10)
    assert answer.status_code == 404
    assert b"root:" not in answer.content
