"""Azure's SDK for Python in several versions, unmodified, each in an environment of its own (made once per version)."""

from __future__ import annotations

import fcntl
import hashlib
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests

from orchestrator.service.host.environment import variables
from orchestrator.service.host.listen import Listen
from orchestrator.service.host.server import serving
from orchestrator.service.host.start import Wanted, prepared
from orchestrator.service.settings import Settings
from tests.contract.served import clean_environment

pytestmark = pytest.mark.install

CLIENTS = Path(__file__).parent / "clients"
COMPUTE = {"2.0.0": "39.0.0", "1.4.0": "31.0.0", "1.3.0": "34.1.0"}
"""Version of azure-mgmt-imagebuilder -> the azure-mgmt-compute it is used with; az 2.91 has the last pair."""
REST = ("azure-identity==1.27.0", "azure-core==1.41.0", "azure-mgmt-core==1.6.0", "msal==1.39.0", "aiohttp==3.14.5")


def python_with(version: str, cache: Path) -> Path:
    """The Python of an environment with this version of the SDK; installing takes some 20 seconds, once."""
    needed = (f"azure-mgmt-imagebuilder=={version}", f"azure-mgmt-compute=={COMPUTE[version]}", *REST)
    folder = cache / "sdks" / f"{version}-{hashlib.sha256(repr(needed).encode()).hexdigest()[:8]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    python = folder / "bin/python"
    with (folder.parent / f"{version}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "installed").exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True, timeout=300)
            argv = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *needed]
            done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=600)
            assert done.returncode == 0, done.stderr
            (folder / "installed").touch()
    return python


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A server of scripted runs with pages of two, and what `aib env` says of it."""
    settings = Settings(tmp_path / "home", in_memory=True, scripted=True, page_size=2)
    with ExitStack() as stack:
        served, endpoint = stack.enter_context(prepared(Wanted(settings, Listen(port=0))))
        stack.enter_context(serving(served))
        known = {**clean_environment(tmp_path), **variables(endpoint)}
        form = {"grant_type": "client_credentials", "client_id": "test", "client_secret": "x"}
        answer = requests.post(f"{endpoint.url}/t/oauth2/token", data=form, verify=endpoint.ca, timeout=30)
        group = f"{endpoint.url}/subscriptions/{endpoint.subscription}/resourceGroups/sdk?api-version=2024-11-01"
        bearer = {"Authorization": f"Bearer {answer.json()['access_token']}"}
        made = requests.put(group, json={"location": "westus2"}, headers=bearer, verify=endpoint.ca, timeout=30)
        assert made.status_code == 201, made.text
        yield known


def run(python: Path, script: str, environment: dict[str, str]) -> None:
    argv = [python, "-W", "error::DeprecationWarning:__main__", CLIENTS / script]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("version", list(COMPUTE))
def test_the_sdk_does_all_it_does_with_the_service(
    version: str, build_cache: Path, environment: dict[str, str]
) -> None:
    run(python_with(version, build_cache), "flow.py", environment)


def test_the_asynchronous_client_too(build_cache: Path, environment: dict[str, str]) -> None:
    run(python_with("2.0.0", build_cache), "flow_async.py", environment)
