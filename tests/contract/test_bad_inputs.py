"""What bad input gets, through the command line: the cause, the way out, an exit code, a complete record.

Nothing here boots: all of it is refused before there is a virtual machine.
"""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.vm.support import SCOPE, Home

SCRIPT = b"#!/bin/sh\r\necho hello\r\n"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path.startswith("/script.sh"):
            self.send_response(200)
            self.send_header("Content-Length", str(len(SCRIPT)))
            self.end_headers()
            self.wfile.write(SCRIPT)
        else:
            self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def _template(folder: Path, *, source: dict[str, Any] | None = None, **properties: Any) -> Path:
    body = {
        "source": source
        or {"type": "PlatformImage", "publisher": "Debian", "offer": "debian-12", "sku": "12", "version": "latest"},
        "customize": [{"type": "Shell", "name": "hello", "inline": ["echo hello"]}],
        "distribute": [
            {
                "type": "ManagedImage", "runOutputName": "out", "location": "eastus",
                "imageId": f"{SCOPE}/Microsoft.Compute/images/out",
            }
        ],
        **properties,
    }  # fmt: skip
    path = folder / "bad.json"
    template = {
        "type": "Microsoft.VirtualMachineImages/imageTemplates",
        "apiVersion": "2020-02-14",
        "location": "eastus",
        "identity": {"type": "UserAssigned", "userAssignedIdentities": {}},
        "properties": body,
    }
    path.write_text(json.dumps(template, indent=2))
    return path


def _refused(home: Home, template: Path, code: int, *texts: str, run: bool) -> str:
    """Build must refuse with `code`, saying all `texts`; a refused run leaves a complete record."""
    done = home.aib("build", template, timeout=120)
    assert done.returncode == code, done.stderr
    for text in texts:
        assert text in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    runs = home.runs() if (home.path / "runs").exists() else []
    assert bool(runs) == run
    if run:
        record = home.record()
        assert record["lastRunStatus"]["runState"] == "Failed"
        assert record["lastRunStatus"]["message"]
        assert not list(runs[-1].glob("work/*"))
        home.ok("logs", runs[-1].name)
    return done.stderr


def _by_uri(uri: str, checksum: str = "") -> list[dict[str, Any]]:
    return [{"type": "Shell", "name": "hello", "scriptUri": uri, "sha256Checksum": checksum}]


def test_not_json(home: Home, tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_text('{"type": oops}')
    _refused(home, path, 2, "AIB001", "bad.json:1:10", run=False)


def test_a_missing_template_file(home: Home, tmp_path: Path) -> None:
    _refused(home, tmp_path / "nowhere.json", 4, "nowhere.json", run=False)


def test_a_wrong_checksum_shows_both_and_the_line_ends(home: Home, tmp_path: Path, web: str) -> None:
    wanted = hashlib.sha256(SCRIPT.replace(b"\r\n", b"\n")).hexdigest()
    template = _template(tmp_path, customize=_by_uri(f"{web}/script.sh", wanted))
    _refused(home, template, 4, wanted, hashlib.sha256(SCRIPT).hexdigest(), "CRLF", run=True)


def test_a_script_that_is_not_there(home: Home, tmp_path: Path, web: str) -> None:
    _refused(home, _template(tmp_path, customize=_by_uri(f"{web}/gone.sh")), 4, "404", "gone.sh", run=True)


def test_a_server_that_refuses(home: Home, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: refused for certain
        uri = f"http://127.0.0.1:{taken.getsockname()[1]}/script.sh"
        _refused(home, _template(tmp_path, customize=_by_uri(uri)), 4, "refused", run=True)


def test_a_signature_is_never_written_down(home: Home, tmp_path: Path, web: str) -> None:
    secret = "c2VjcmV0c2lnbmF0dXJl"
    uri = f"{web}/gone.sh?sv=2020-01-01&sig={secret}"
    said = _refused(home, _template(tmp_path, customize=_by_uri(uri)), 4, "404", run=True)
    assert secret not in said
    for path in home.path.rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes(), path


def test_a_local_script_that_is_not_there(home: Home, tmp_path: Path) -> None:
    _refused(home, _template(tmp_path, customize=_by_uri("scripts/none.sh")), 4, "none.sh", run=True)


def test_an_unknown_source_image_names_the_near_ones(home: Home, tmp_path: Path) -> None:
    source = {"type": "PlatformImage", "publisher": "Debian", "offer": "debian-21", "sku": "12", "version": "latest"}
    _refused(home, _template(tmp_path, source=source), 4, "debian-21", "debian-12", run=True)


def test_a_managed_image_that_nobody_made(home: Home, tmp_path: Path) -> None:
    source = {"type": "ManagedImage", "imageId": f"{SCOPE}/Microsoft.Compute/images/none"}
    _refused(home, _template(tmp_path, source=source), 4, "none", "aib image import", run=True)


def test_a_gallery_that_is_not_there_comes_with_the_command(home: Home, tmp_path: Path) -> None:
    target = {
        "type": "SharedImage", "runOutputName": "out", "replicationRegions": ["eastus"],
        "galleryImageId": f"{SCOPE}/Microsoft.Compute/galleries/lab/images/web",
    }  # fmt: skip
    _refused(home, _template(tmp_path, distribute=[target]), 2, "aib gallery create lab", run=True)


def test_an_unknown_size_names_the_near_ones(home: Home, tmp_path: Path) -> None:
    template = _template(tmp_path, vmProfile={"vmSize": "Standard_D2_v22"})
    assert "Standard_D2_v2" in _refused(home, template, 2, "Standard_D2_v22", run=True)


def test_a_size_that_this_host_does_not_have_when_strict(home: Home, tmp_path: Path) -> None:
    template = _template(tmp_path, vmProfile={"vmSize": "Standard_D64s_v3"})
    done = home.aib("build", template, "--strict-size")
    assert done.returncode == 3
    assert "Standard_D64s_v3" in done.stderr


def test_every_problem_of_a_template_at_once(home: Home, tmp_path: Path) -> None:
    template = _template(
        tmp_path,
        buildTimeoutInMinutes="60",
        customize=[
            {"type": "Shel", "name": "a", "inline": ["true"]},
            {"type": "Shell", "name": "b", "inline": "true"},
            {"type": "File", "name": "c", "sourceUri": "x"},
        ],
        distribute=[
            {"type": "VHD", "runOutputName": "same"},
            {"type": "VHD", "runOutputName": "same"},
        ],
    )
    said = _refused(home, template, 2, "AIB016", "AIB029", "AIB058", run=False)
    assert said.count("error") >= 5
    assert "/properties/customize/0/type" in said
    assert "did you mean" in said.lower()


def test_an_unknown_connection(home: Home, tmp_path: Path) -> None:
    done = home.aib("build", _template(tmp_path), "--connect", "xen:///")
    assert done.returncode == 3
    assert "qemu:///session" in done.stderr
    assert not list((home.path / "layers").iterdir()), "it is refused before the source image is made"
