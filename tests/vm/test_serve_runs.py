"""Builds through HTTP on a real guest: the server is killed in the middle of one, another is cancelled, one waits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.vm.conftest import TemplateWriter
from tests.vm.support import AIB, SCOPE, TINY_URN, Home, command_of, descendants, qemus_of, shell, wait_for

pytestmark = pytest.mark.vm

SERVE = ("serve", "--http", "--port", "0", "--no-cache")
VERSION = "2023-07-01"
STARTED: list[subprocess.Popen[str]] = []


@pytest.fixture
def home(tmp_path: Path, tiny_image: Path) -> Iterator[Home]:
    home = Home(tmp_path / "home")
    home.ok("image", "import", tiny_image, "--urn", TINY_URN, "--os", "linux")
    yield home
    for process in STARTED:  # of a test that failed
        process.kill()
        process.wait()
    STARTED.clear()
    for run in home.runs():
        home.aib("cancel", run.name)
    assert qemus_of(home.path) == []
    logs = [*home.path.glob("runs/*/worker.log"), *home.path.glob("runs/*/supervisor.log")]
    assert "".join(log.read_text() for log in logs) == ""


class Server:
    """`aib serve` in a process of its own, and a client that is signed in."""

    def __init__(self, home: Home, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [str(AIB), *SERVE, *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=home.environment, start_new_session=True,
        )  # fmt: skip
        STARTED.append(self.process)
        assert self.process.stdout is not None
        self.origin = self.process.stdout.readline().strip()
        form = {"grant_type": "client_credentials", "client_id": "t", "client_secret": "-", "scope": "x/.default"}
        token = requests.post(f"{self.origin}/t/oauth2/v2.0/token", data=form, timeout=30).json()["access_token"]
        self.headers = {"Authorization": f"Bearer {token}"}

    def ask(self, method: str, path: str, body: Any = None) -> requests.Response:
        url = f"{path if path.startswith('http') else self.origin + path}"
        url += "" if "api-version=" in url else f"?api-version={VERSION}"
        return requests.request(method, url, json=body, headers=self.headers, timeout=60)

    def status(self, path: str) -> dict[str, Any]:
        found: dict[str, Any] = self.ask("GET", path).json()["properties"]
        return found

    def end(self, number: int = signal.SIGTERM) -> None:
        os.kill(self.process.pid, number)
        self.process.wait(60)
        STARTED.remove(self.process)
        assert self.process.stdout is not None
        self.process.stdout.close()


def submitted(server: Server, written: Path, name: str) -> str:
    """PUT the template in the file, wait until it is there; its path."""
    body = json.loads(written.read_text())
    body = {key: body[key] for key in ("location", "identity", "properties")}
    path = f"{SCOPE}/Microsoft.VirtualMachineImages/imageTemplates/{name}"
    answer = server.ask("PUT", path, body)
    assert answer.status_code == 201, answer.text
    wait_for(lambda: server.status(path)["provisioningState"] == "Succeeded", 60, "the template")
    return path


def test_a_build_outlives_the_server_that_began_it(home: Home, write_template: TemplateWriter) -> None:
    server = Server(home)
    distribute = [
        {"type": "ManagedImage", "runOutputName": "image", "location": "eastus",
         "imageId": f"{SCOPE}/Microsoft.Compute/images/outlives"},
        {"type": "VHD", "runOutputName": "disk"},
    ]  # fmt: skip
    waits = shell("echo begun", "sleep 12")
    path = submitted(server, write_template("outlives", waits, distribute=distribute), "outlives")
    operation = server.ask("POST", f"{path}/run").headers["Azure-AsyncOperation"].removeprefix(server.origin)
    states: list[str] = []

    def customizing() -> bool:
        status = server.status(path)["lastRunStatus"]
        states.append(status["runSubState"])
        assert status["runState"] == "Running", status
        return status["runSubState"] == "Customizing"

    wait_for(customizing, 300, "the first step")
    assert list(dict.fromkeys(states)) in (["Queued", "Building", "Customizing"], ["Building", "Customizing"])
    server.end(signal.SIGKILL)
    (run,) = home.runs()
    assert len(qemus_of(home.path)) == 1
    again = Server(home)
    assert again.status(path)["lastRunStatus"]["runState"] == "Running"
    assert again.ask("GET", operation).json()["status"] == "InProgress"
    refused = again.ask("POST", f"{path}/run").json()["error"]
    assert refused["code"] == "OperationNotAllowed" and "run state: running" in refused["message"]
    wait_for(lambda: again.ask("GET", operation).json()["status"] != "InProgress", 240, "the end of the run")
    assert again.ask("GET", operation).json()["status"] == "Succeeded"
    assert again.status(path)["lastRunStatus"]["runState"] == "Succeeded"
    deviations = [each["code"] for each in home.record(run)["deviations"]]
    assert "network-isolated" in deviations and "network-user-mode" not in deviations, "nobody allowed the other one"
    outputs = {each["name"]: each["properties"] for each in again.ask("GET", f"{path}/runOutputs").json()["value"]}
    assert outputs["image"] == {
        "artifactId": f"{SCOPE}/Microsoft.Compute/images/outlives", "provisioningState": "Succeeded",
    }  # fmt: skip
    assert outputs["disk"]["provisioningState"] == "Succeeded" and "artifactUri" in outputs["disk"]
    assert home.runs() == [run], "never doubled"
    assert "Succeeded" in home.ok("runs") and "outlives" in home.ok("image", "list")
    assert (home.path / "vhds" / "outlives" / "disk.vhd").exists()
    assert again.ask("DELETE", path).status_code == 202
    assert not (home.path / "vhds" / "outlives").exists() and "outlives" in home.ok("image", "list")
    again.end()


def test_builds_wait_for_room_and_are_cancelled(home: Home, write_template: TemplateWriter) -> None:
    server = Server(home, "--allow-host-network")
    # As many vCPUs as the machine has: the second one waits for the first.
    profile = {"vmSize": "Standard_D16s_v3"}
    names = ("first", "second")
    paths = [submitted(server, write_template(name, shell("sleep 600"), vmProfile=profile), name) for name in names]
    state = lambda path: server.status(path)["lastRunStatus"].get("runSubState")  # noqa: E731
    runs = [server.ask("POST", f"{paths[0]}/run").headers["Azure-AsyncOperation"]]
    wait_for(lambda: state(paths[0]) not in (None, "Queued"), 60, "the first build's start")
    runs.append(server.ask("POST", f"{paths[1]}/run").headers["Azure-AsyncOperation"])
    wait_for(lambda: state(paths[0]) == "Customizing", 300, "the first build's step")
    assert state(paths[1]) == "Queued"
    assert len(qemus_of(home.path)) == 1
    # The one that waits ends at once; then the one that builds.
    for path, run in reversed(list(zip(paths, runs, strict=True))):
        assert server.ask("POST", f"{path}/cancel").status_code == 202
        assert server.status(path)["lastRunStatus"]["runState"] in ("Canceling", "Canceled")
        wait_for(lambda run=run: server.ask("GET", run).json()["status"] == "Canceled", 30, "the end of the run")
        assert server.status(path)["lastRunStatus"]["runState"] == "Canceled"
    assert qemus_of(home.path) == []
    assert home.ok("runs").count("Canceled") == 2
    server.end()


def test_a_run_whose_processes_were_killed_is_failed_with_the_reason(
    home: Home, write_template: TemplateWriter
) -> None:
    server = Server(home, "--allow-host-network")
    path = submitted(server, write_template("shot", shell("sleep 600")), "shot")
    operation = server.ask("POST", f"{path}/run").headers["Azure-AsyncOperation"]
    wait_for(lambda: qemus_of(home.path), 300, "the build VM")
    (run,) = home.runs()
    workers = [pid for pid in descendants(server.process.pid) if b"orchestrator.build" in command_of(pid)]
    assert len(workers) == 2, "a supervisor and a worker"
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: server.ask("GET", operation).json()["status"] == "Failed", 60, "the end of the run")
    status = server.status(path)["lastRunStatus"]
    assert status["runState"] == "Failed" and status["message"]
    wait_for(lambda: qemus_of(home.path) == [], 30, "the end of the build VM")
    assert home.record(run)["lastRunStatus"]["runState"] == "Failed"
    assert server.ask("POST", f"{path}/run").status_code == 202
    assert server.ask("POST", f"{path}/cancel").status_code == 202
    wait_for(lambda: server.status(path)["lastRunStatus"]["runState"] == "Canceled", 60, "the second run's end")
    server.end()
