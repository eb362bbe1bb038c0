"""pytest plugin: the fixture `image_builder` is an ARM endpoint for the time of a test.

    def test_it(image_builder):
        image_builder.script("nightly", fail_at="install", exit_code=7)
        ...  # code that uses Azure's SDK or az finds the endpoint by its environment variables

Runs follow scripts and boot nothing. `aib_serve = thread` in pytest's configuration serves from the test process
instead of a child, `aib_real = true` builds in real virtual machines. Nothing heavy is imported before the first use.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import requests

    from orchestrator.service.host.endpoint import Endpoint

API_VERSION = "2024-02-01"
_START = "import sys; from orchestrator.cli.main import main; sys.argv[0] = 'aib'; main()"
_CLOUD = ("AZURE_", "ARM_", "IDENTITY_", "MSI_")


def pytest_addoption(parser: pytest.Parser) -> None:
    """What pytest's configuration may say."""
    parser.addini("aib_serve", "where image_builder is served: child (a process of its own) or thread", default="child")
    parser.addini("aib_real", "whether image_builder builds in real virtual machines", type="bool", default=False)


@dataclass(frozen=True)
class ImageBuilder:
    """A running endpoint. `environment` is what its clients need; the fixture has set it for the test."""

    url: str
    subscription: str
    ca: str
    environment: Mapping[str, str]

    def script(
        self,
        template: str = "*",
        *,
        seconds: float = 0.0,
        output: Mapping[str, str] | None = None,
        fail_at: str = "",
        exit_code: int = 1,
        message: str = "",
        hold_at: str = "",
    ) -> None:
        """Say how runs of `template` go ("*": of every other). By default a run succeeds at once.

        `seconds`: what each step takes. `output`: what steps print, by name. `fail_at`: the step that fails with
        `exit_code`, or Building or Distributing; `message` says why. `hold_at`: the step (or Building, Distributing)
        before which the run waits until it is cancelled or the script is replaced.
        """
        wanted = {
            "seconds": seconds, "output": dict(output or {}), "failAt": fail_at, "exitCode": exit_code,
            "message": message, "holdAt": hold_at,
        }  # fmt: skip
        self._ours("PUT", f"/_aib/scripts/{template}", wanted)

    def reset(self) -> None:
        """Forget everything: resources, runs, scripts."""
        self._ours("POST", "/_aib/reset")

    def arm(self, method: str, path: str, body: Any = None, *, api_version: str = API_VERSION) -> requests.Response:
        """One signed-in request to ARM, for what a test wants to prepare or look at."""
        import requests

        separator = "&" if "?" in path else "?"
        return requests.request(
            method,
            f"{self.url}{path}{separator}api-version={api_version}",
            json=body,
            headers={"Authorization": f"Bearer {self._token()}"},
            verify=self.ca,
            timeout=60,
        )

    def _token(self) -> str:
        import requests

        form = {
            "grant_type": "client_credentials",
            "client_id": self.environment["AZURE_CLIENT_ID"],
            "client_secret": self.environment["AZURE_CLIENT_SECRET"],
            "scope": f"{self.url}/.default",
        }
        answer = requests.post(f"{self.url}/adfs/oauth2/token", data=form, verify=self.ca, timeout=60)
        answer.raise_for_status()
        return str(answer.json()["access_token"])

    def _ours(self, method: str, path: str, body: Any = None) -> None:
        import requests

        answer = requests.request(method, self.url + path, json=body, verify=self.ca, timeout=60)
        if not answer.ok:
            raise ValueError(f"{method} {path}: {answer.status_code} {answer.text}")


@pytest.fixture(scope="session")
def image_builder_endpoint(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ImageBuilder]:
    """The endpoint that all tests of a session share; `image_builder` is what tests use."""
    from orchestrator.service.host.environment import variables

    place, real = pytestconfig.getini("aib_serve"), pytestconfig.getini("aib_real")
    if place not in ("child", "thread"):
        raise pytest.UsageError(f"aib_serve = {place}: child or thread")
    home = tmp_path_factory.mktemp("aib")
    with (_child if place == "child" else _thread)(home, real=real) as endpoint:
        yield ImageBuilder(endpoint.url, endpoint.subscription, endpoint.ca, variables(endpoint))


@pytest.fixture
def image_builder(image_builder_endpoint: ImageBuilder, monkeypatch: pytest.MonkeyPatch) -> ImageBuilder:
    """An empty ARM endpoint; clients that look at the environment find it for the time of the test."""
    image_builder_endpoint.reset()
    for name in [name for name in os.environ if name.startswith(_CLOUD)]:
        monkeypatch.delenv(name)
    for name, value in image_builder_endpoint.environment.items():
        monkeypatch.setenv(name, value)
    return image_builder_endpoint


@contextlib.contextmanager
def _thread(home: Path, *, real: bool) -> Iterator[Endpoint]:
    from orchestrator.service.host.listen import Listen
    from orchestrator.service.host.server import serving
    from orchestrator.service.host.start import Wanted, prepared
    from orchestrator.service.settings import Settings

    wanted = Wanted(Settings(home, in_memory=True, scripted=not real), Listen(port=0))
    with prepared(wanted) as (served, endpoint), serving(served):
        yield endpoint


@contextlib.contextmanager
def _child(home: Path, *, real: bool) -> Iterator[Endpoint]:
    from orchestrator.service.host.endpoint import Endpoint

    argv = [sys.executable, "-c", _START, "serve", "--port", "0", "--in-memory", *([] if real else ["--scripted"])]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_CLOUD)}
    log = home / "serve.log"
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=errors, env={**kept, "AIB_HOME": str(home)}, start_new_session=True
        ) as child,
    ):
        try:
            assert child.stdout is not None
            if not child.stdout.readline():
                pytest.fail(f"aib serve did not start: {log.read_text()}", pytrace=False)
            yield Endpoint(**json.loads((home / "serve" / "endpoint.json").read_text()))
        finally:
            child.terminate()
