"""The pytest plugin, in a project of its own, as its users have it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.served import clean_environment

TESTS = """
import os
import time

import requests

GROUP = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/aib"
PROVIDERS = f"{GROUP}/providers"
TEMPLATE = f"{PROVIDERS}/Microsoft.VirtualMachineImages/imageTemplates/nightly"
BODY = {
    "location": "eastus",
    "identity": {"type": "UserAssigned", "userAssignedIdentities": {
        f"{PROVIDERS}/Microsoft.ManagedIdentity/userAssignedIdentities/i": {}}},
    "properties": {
        "source": {"type": "PlatformImage", "publisher": "p", "offer": "o", "sku": "s", "version": "1.0.0"},
        "customize": [{"type": "Shell", "name": "install", "inline": ["true"]}],
        "distribute": [{"type": "ManagedImage", "runOutputName": "out", "location": "eastus",
                        "imageId": f"{PROVIDERS}/Microsoft.Compute/images/made"}],
    },
}


def wait_for(image_builder, state):
    for _ in range(300):
        status = image_builder.arm("GET", TEMPLATE).json()["properties"].get("lastRunStatus") or {}
        if state in (status.get("runState"), status.get("runSubState")):
            return status
        time.sleep(0.1)
    raise AssertionError(status)


def put(image_builder):
    assert image_builder.arm("PUT", TEMPLATE, BODY).status_code == 201
    for _ in range(300):
        if image_builder.arm("GET", TEMPLATE).json()["properties"]["provisioningState"] == "Succeeded":
            return
        time.sleep(0.1)


def test_a_run_fails_as_told(image_builder):
    image_builder.script("nightly", fail_at="install", exit_code=7, output={"install": "oh no\\n"})
    put(image_builder)
    assert image_builder.arm("POST", f"{TEMPLATE}/run").status_code == 202
    assert wait_for(image_builder, "Failed")["message"]


def test_each_test_begins_with_nothing(image_builder):
    assert image_builder.arm("GET", TEMPLATE).status_code == 404
    put(image_builder)
    image_builder.arm("POST", f"{TEMPLATE}/run")
    wait_for(image_builder, "Succeeded")


def test_clients_find_it_by_the_environment(image_builder):
    assert os.environ["AIB_ENDPOINT"] == image_builder.url
    answer = requests.get(os.environ["AIB_ENDPOINT"] + "/_aib/health")  # trusts REQUESTS_CA_BUNDLE
    assert answer.json()["scripted"] is True
    assert "AZURE_STRAY" not in os.environ


def test_a_held_run_can_be_cancelled(image_builder):
    image_builder.script(hold_at="install")
    put(image_builder)
    image_builder.arm("POST", f"{TEMPLATE}/run")
    wait_for(image_builder, "Customizing")
    assert image_builder.arm("POST", f"{TEMPLATE}/cancel").status_code == 202
    wait_for(image_builder, "Canceled")


def test_a_held_run_ends_with_its_test(image_builder):
    image_builder.script(hold_at="Building")
    put(image_builder)
    image_builder.arm("POST", f"{TEMPLATE}/run")
    wait_for(image_builder, "Building")


def test_without_the_fixture():
    assert "AIB_ENDPOINT" not in os.environ
"""


def run(folder: Path, *arguments: str, **environment: str) -> str:
    environment = {**clean_environment(folder / "home"), "AZURE_STRAY": "1", **environment}
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300)
    return done.stdout + done.stderr


@pytest.mark.parametrize("place", ["child", "thread"])
def test_a_project_s_tests_use_the_endpoint(tmp_path: Path, place: str) -> None:
    (tmp_path / "pytest.ini").write_text(f"[pytest]\naib_serve = {place}\nfilterwarnings = error\n")
    (tmp_path / "test_it.py").write_text(TESTS)
    said = run(tmp_path)
    assert "6 passed" in said, said


def test_the_plugin_costs_nothing_unless_it_is_used(tmp_path: Path) -> None:
    heavy = "libvirt paramiko winrm starlette uvicorn cryptography requests rich hypervisor orchestrator.build"
    (tmp_path / "test_it.py").write_text(
        f"import sys\n\n\ndef test_it():\n    assert not set({heavy!r}.split()) & set(sys.modules)\n"
    )
    said = run(tmp_path, "-p", "orchestrator.pytest_plugin", PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    assert "1 passed" in said, said
    assert "image_builder" in run(tmp_path, "--fixtures")


def test_a_wrong_setting_is_said(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("def test_it(image_builder):\n    pass\n")
    said = run(tmp_path, "-o", "aib_serve=cloud")
    assert "aib_serve = cloud: child or thread" in said
