"""What the README shows of the front door: its Python is run as it stands there (its az commands: make test-az)."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.installing import ROOT
from tests.contract.served import clean_environment, served
from tests.contract.test_sdks import python_with

README = (ROOT / "README.md").read_text()


def block(containing: str) -> str:
    """The one Python block of the README that contains these words."""
    [found] = [text for text in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if containing in text]
    return found


@pytest.mark.install
def test_the_sdk_snippet_prints_the_templates(build_cache: Path, tmp_path: Path) -> None:
    python = python_with("2.0.0", build_cache)
    with served(tmp_path / "home") as server:
        script = f'eval "$({Path(sys.executable).with_name("aib")} env)"; exec "$@"'
        argv = ["/bin/sh", "-c", script, "sh", python, "-c", block("ImageBuilderClient")]
        done = subprocess.run(
            argv, env=clean_environment(server.home), capture_output=True, text=True, check=False, timeout=120
        )
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_the_fixture_snippet_is_a_test(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(block("image_builder.script"))
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", tmp_path, tmp_path]
    done = subprocess.run(argv, env=clean_environment(tmp_path / "home"), capture_output=True, text=True, check=False)
    assert "1 passed" in done.stdout, done.stdout
