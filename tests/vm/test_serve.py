"""From Azure's SDK to a VHD that boots, through `aib serve`, with a server that is killed on the way."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.contract.served import Served, served
from tests.contract.test_sdks import CLIENTS, python_with
from tests.vm.conftest import TemplateWriter
from tests.vm.support import SCOPE, Home, qemus_of, shell, wait_for

pytestmark = [pytest.mark.vm, pytest.mark.install]
OPTIONS = ("--allow-host-network", "--no-cache")
LONGEST = 600


def body(written: Path, folder: Path) -> Path:
    """A template file as the body of a request: what belongs to the deployment is not in it."""
    value = json.loads(written.read_text())
    identity = f"{SCOPE}/Microsoft.ManagedIdentity/userAssignedIdentities/builder"
    value["identity"]["userAssignedIdentities"] = {identity: {}}
    kept = {key: value[key] for key in ("location", "identity", "properties")}
    path = folder / "body.json"
    path.write_text(json.dumps(kept))
    return path


def status(server: Served, name: str) -> Any:
    form = {"grant_type": "client_credentials", "client_id": "test", "client_secret": "x"}
    token = requests.post(f"{server.url}/t/oauth2/token", data=form, verify=server.ca, timeout=30).json()
    path = f"{SCOPE}/Microsoft.VirtualMachineImages/imageTemplates/{name}?api-version=2024-02-01"
    answer = server.get(path, Authorization=f"Bearer {token['access_token']}")
    return answer.json()["properties"].get("lastRunStatus") or {}


def sdk(python: Path, server: Served, *words: str | Path) -> str:
    argv = [python, CLIENTS / "build.py", *words]
    done = subprocess.run(argv, env=server.environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def test_the_sdk_builds_a_vhd_that_boots(
    home: Home, write_template: TemplateWriter, build_cache: Path, tmp_path: Path
) -> None:
    python = python_with("2.0.0", build_cache)
    steps = (shell("echo served | sudo tee /etc/served", name="mark"), shell("sleep 15", name="wait"))
    written = write_template("by-sdk", *steps, distribute=[{"type": "VHD", "runOutputName": "disk"}])
    template = body(written, tmp_path)
    with served(home.path, *OPTIONS) as server:
        sdk(python, server, template, "by-sdk", "create")
        sdk(python, server, template, "by-sdk", "run")
        wait_for(lambda: status(server, "by-sdk").get("runSubState") == "Customizing", LONGEST, "customizing")
        listed = json.loads(home.ok("runs", "--json"))
        [running] = [each for each in listed if each["template"] == "by-sdk"]
        assert running["alive"]
        picture = server.get(f"/ui/runs/{running['runId']}/screen.png")
        assert picture.content.startswith(b"\x89PNG")
        server.process.kill()
        server.process.wait()
    assert qemus_of(home.path), "the build goes on without its server"
    with served(home.path, *OPTIONS) as server:
        wait_for(lambda: status(server, "by-sdk").get("runState") != "Running", LONGEST, "the end of the run")
        assert status(server, "by-sdk")["runState"] == "Succeeded"
        uri = sdk(python, server, template, "by-sdk", "uri")
        disk = tmp_path / "disk.vhd"
        with requests.get(uri, stream=True, verify=server.ca, timeout=60) as answer:
            assert answer.status_code == 200
            with disk.open("wb") as file:
                for chunk in answer.iter_content(1 << 20):
                    file.write(chunk)
    urn = "aib-tests:served:vhd:1.0.0"
    home.ok("image", "import", disk, "--urn", urn, "--os", "linux")
    publisher, offer, sku, version = urn.split(":")
    source = {"type": "PlatformImage", "publisher": publisher, "offer": offer, "sku": sku, "version": version}
    home.ok("build", write_template("again", shell("grep -q served /etc/served"), source=source))
