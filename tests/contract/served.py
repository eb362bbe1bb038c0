"""`aib serve` as a child process, as users start it."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

AIB = Path(sys.executable).with_name("aib")
STARTS_WITHIN = 60
CLOUD = ("AZURE_", "ARM_", "IDENTITY_", "MSI_", "REQUESTS_CA", "SSL_CERT")


def clean_environment(home: Path) -> dict[str, str]:
    """Ours without anything of a cloud, for the given AIB_HOME."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(CLOUD)}
    return {**kept, "AIB_HOME": str(home), "NO_COLOR": "1"}


@dataclass(frozen=True)
class Served:
    """A running server."""

    home: Path
    url: str
    process: subprocess.Popen[str]
    environment: Mapping[str, str]
    """What `aib env` says, beside the tests' own."""

    @property
    def ca(self) -> str:
        return str(self.home / "serve/ca.pem")

    def get(self, path: str, **headers: str) -> requests.Response:
        return requests.get(self.url + path, headers=headers, verify=self.ca, timeout=20)

    def aib(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        return aib(self.home, *words)


def aib(home: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run an `aib` command to its end."""
    environment = clean_environment(home)
    return subprocess.run([AIB, *words], env=environment, capture_output=True, text=True, check=False, timeout=120)


@contextmanager
def served(home: Path, *options: str | Path, http: bool = False) -> Iterator[Served]:
    """A server of `home` on a free port; ended with SIGTERM, which it must obey."""
    log = home.parent / f"{home.name}-serve.log"
    more = ("--http",) if http else ()
    with log.open("a") as errors:
        process = subprocess.Popen(
            [AIB, "serve", "--port", "0", *more, *options],
            stdout=subprocess.PIPE, stderr=errors, text=True, env=clean_environment(home), start_new_session=True,
        )  # fmt: skip
    try:
        assert process.stdout
        ready, _, _ = select.select([process.stdout], [], [], STARTS_WITHIN)
        url = process.stdout.readline().strip() if ready else ""
        assert url, log.read_text()
        said = aib(home, "env", "--format", "json")
        assert said.returncode == 0, said.stderr
        yield Served(home, url, process, {**clean_environment(home), **json.loads(said.stdout)})
    finally:
        end(process)


def end(process: subprocess.Popen[str]) -> None:
    """SIGTERM; what does not obey within 20 s fails the test."""
    process.send_signal(signal.SIGTERM)
    if process.stdout:
        process.stdout.close()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
