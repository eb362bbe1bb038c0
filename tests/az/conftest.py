"""The Azure CLI from its PyPI package in an environment of its own, and a server that it is pointed to by `aib az`."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.contract.served import AIB, Served, clean_environment, served

VERSION = "2.91.0"


@dataclass
class Az:
    """`aib az`, and what was said in its session."""

    program: Path
    server: Served
    folder: Path
    session: list[str] = field(default_factory=list)

    def run(self, *words: str | Path, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """One command to its end."""
        environment = {**clean_environment(self.server.home), "AIB_AZ": str(self.program)}
        done = subprocess.run(
            [AIB, "az", *map(str, words)], env=environment, cwd=self.folder, capture_output=True, text=True,
            check=False, timeout=timeout,
        )  # fmt: skip
        self.session += [f"$ aib az {' '.join(map(str, words))}", (done.stdout + done.stderr).rstrip()]
        return done

    def __call__(self, *words: str | Path) -> Any:
        """What a command that must succeed printed as JSON (None: nothing)."""
        done = self.run(*words)
        assert done.returncode == 0, f"az {' '.join(map(str, words))}: {done.returncode}\n{done.stdout}{done.stderr}"
        return json.loads(done.stdout) if done.stdout.strip() else None

    def refused(self, *words: str | Path, code: int = 1) -> str:
        """What a command that must fail with this exit code said; never a traceback."""
        done = self.run(*words)
        assert done.returncode == code, f"az {' '.join(map(str, words))}: {done.returncode}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stderr

    def script(self, **wanted: Any) -> None:
        """How runs go from now on (a server of scripted runs)."""
        address = f"{self.server.url}/_aib/scripts/*"
        assert requests.put(address, json=wanted, verify=self.server.ca, timeout=30).status_code == 200


@pytest.fixture(scope="session")
def az_program(build_cache: Path) -> Path:
    """The installed az; installing takes a minute or two and 700 MB, once."""
    folder = build_cache / "az" / VERSION
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "installed").exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", folder / "venv"], check=True)
            argv = [folder / "venv/bin/pip", "install", "--quiet", "--disable-pip-version-check"]
            done = subprocess.run([*argv, f"azure-cli=={VERSION}"], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            (folder / "installed").touch()
    return folder / "venv/bin/az"


@pytest.fixture(scope="module")
def az(az_program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Az]:
    """az on a server of scripted runs."""
    folder = tmp_path_factory.mktemp("az")
    with served(folder / "home", "--in-memory", "--scripted") as server:
        yield Az(az_program, server, folder)
