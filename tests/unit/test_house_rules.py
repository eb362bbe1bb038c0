"""The rules of this code base that a machine can check are tests like any other."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
PACKAGES = ("orchestrator", "provisioners", "hypervisor")
LONGEST_FILE = 400


def _sources(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def _run(*argv: str) -> None:
    done = subprocess.run([str(BIN / argv[0]), *argv[1:]], check=False, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff_finds_nothing() -> None:
    _run("ruff", "check", "--no-cache", ".")


def test_the_formatting_is_ruffs() -> None:
    _run("ruff", "format", "--check", ".")


def test_types_are_strict() -> None:
    _run("mypy")


def test_imports_run_one_way() -> None:
    _run("lint-imports")


def test_no_file_is_long() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in _sources(*PACKAGES, "tests", "fixtures")
        if (lines := len(path.read_text().splitlines())) > LONGEST_FILE
    }
    assert not long


def test_image_hosts_are_named_in_the_catalogue_only() -> None:
    # A URL with a public host name in the code would be an address that the user's catalogue can't overrule.
    url = re.compile(r"https?://(?!127\.0\.0\.1|localhost|\{|storage\.azure\.com|aka\.ms|\[|schemas?\.|json\.|www\.w3)")
    allowed = {"orchestrator/plan/catalogue.toml"}
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for folder in PACKAGES
        for path in sorted((ROOT / folder).rglob("*.*"))
        if path.suffix in {".py", ".toml"} and str(path.relative_to(ROOT)) not in allowed
        for line in path.read_text().splitlines()
        if url.search(line) and re.search(r"cloud-images|cloud\.debian|\.qcow2|/images/cloud", line)
    ]
    assert not found


@pytest.mark.parametrize("heavy", ["libvirt", "paramiko", "winrm", "requests", "rich", "cryptography"])
def test_the_checker_imports_nothing_heavy(heavy: str) -> None:
    code = (
        "import sys\n"
        "from orchestrator.cli.main import aib\n"
        "aib.main(['validate', '--help'], standalone_mode=False)\n"
        f"sys.exit({heavy!r} in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
