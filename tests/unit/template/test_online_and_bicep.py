"""Checks that fetch, against a server on this machine; and Bicep through a compiler on the PATH."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from hypervisor.errors import AibError, HostError, InputError
from orchestrator.cli.validate import command

GOOD = b"#!/bin/sh -e\ntrue\n"
FILES = {"/good.sh": GOOD, "/broken.sh": b"#!/bin/sh\nif true; then\n", "/large.bin": bytes(20 * 1024 * 1024)}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        data = FILES.get(self.path)
        self.send_response(404 if data is None else 200)
        self.send_header("Content-Length", str(len(data or b"")))
        self.end_headers()
        self.wfile.write(data or b"")

    def log_message(self, *_: object) -> None:
        """Nothing: the tests' output stays clean."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()


def template(*steps: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "Microsoft.VirtualMachineImages/imageTemplates", "apiVersion": "2019-05-01-preview",
        "location": "eastus",
        "properties": {
            "source": {"type": "PlatformImage", "publisher": "P", "offer": "o", "sku": "s", "version": "1"},
            "customize": [{"name": f"s{i}", **step} for i, step in enumerate(steps)],
            "distribute": [{"type": "VHD", "runOutputName": "o"}],
        },
    }  # fmt: skip


@pytest.fixture
def online(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("AIB_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def run(*steps: dict[str, Any]) -> tuple[int, dict[str, dict[str, Any]]]:
        (tmp_path / "t.json").write_text(json.dumps(template(*steps), indent=1))
        result = CliRunner().invoke(command, ["--online", "--json", str(tmp_path / "t.json")])
        return result.exit_code, {d["rule"]: d for d in json.loads(result.stdout)["diagnostics"]}

    return run


def test_a_reachable_script_with_its_sum_passes(online: Any, server: str) -> None:
    sums = hashlib.sha256(GOOD).hexdigest()
    code, told = online({"type": "Shell", "scriptUri": f"{server}/good.sh", "sha256Checksum": sums})
    assert (code, set(told)) == (0, {"AIB006"})


def test_a_missing_script_a_wrong_sum_a_large_file_and_broken_shell(online: Any, server: str) -> None:
    code, told = online(
        {"type": "Shell", "scriptUri": f"{server}/none.sh"},
        {"type": "Shell", "scriptUri": f"{server}/good.sh", "sha256Checksum": "0" * 64},
        {"type": "File", "sourceUri": f"{server}/large.bin", "destination": "/tmp/large.bin"},
        {"type": "Shell", "scriptUri": f"{server}/broken.sh"},
    )
    assert code == 2
    assert {"AIB034", "AIB039", "AIB040", "AIB048"} <= set(told)
    assert "[attempt 1 of 10]" in told["AIB039"]["hint"]
    assert told["AIB039"]["pointer"] == "/properties/customize/0/scriptUri"
    assert hashlib.sha256(GOOD).hexdigest() in told["AIB034"]["message"]
    assert told["AIB034"]["line"] > told["AIB039"]["line"]


def bicep(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `bicep` as the only program beside the system's shell."""
    (folder / "bin").mkdir()
    if script:
        tool = folder / "bin" / "bicep"
        tool.write_text(f"#!/bin/sh\n{script}\n")
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:/usr/bin:/bin")
    file = folder / "main.bicep"
    file.write_text("param x string\n")
    return file


def validated(file: Path) -> tuple[int, list[dict[str, Any]]]:
    result = CliRunner().invoke(command, ["--json", str(file)])
    if isinstance(result.exception, AibError):
        raise result.exception
    return result.exit_code, json.loads(result.stdout)["diagnostics"]


def test_bicep_is_compiled_with_the_users_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resource = template({"type": "Shell", "inline": "true"})
    (tmp_path / "out.json").write_text(json.dumps({"resources": [resource]}))
    line = f'[ "$1 $2 $3" = "build {tmp_path}/main.bicep --stdout" ] && cat {tmp_path}/out.json'
    code, told = validated(bicep(tmp_path, line, monkeypatch))
    assert code == 2
    assert {d["file"] for d in told} == {f"{tmp_path}/main.bicep.json"}
    assert "AIB029" in {d["rule"] for d in told}


def test_what_the_compiler_says_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = bicep(tmp_path, "echo 'main.bicep(1,7): Error BCP000' >&2; exit 1", monkeypatch)
    with pytest.raises(InputError, match="BCP000"):
        validated(file)


def test_without_a_compiler_the_way_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = bicep(tmp_path, "", monkeypatch)
    with pytest.raises(HostError) as caught:
        validated(file)
    assert "az bicep install" in caught.value.hint
