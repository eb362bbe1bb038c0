"""The same build by an ordinary user, through a system daemon, and what the checker's light install can do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.vm.conftest import TemplateWriter
from tests.vm.support import TINY_URN, Home, shell

pytestmark = pytest.mark.vm

ROOT = Path(__file__).parents[2]
SYSTEM_PYTHON = "/usr/bin/python3"


def _install(folder: Path, what: str, python: str) -> Path:
    """A fresh environment with aib in it, as `pip install` makes it; its bin folder."""
    source = folder / "source"
    source.mkdir()
    for name in ("orchestrator", "provisioners", "hypervisor"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source / name)
    venv = folder / "venv"
    subprocess.run([python, "-m", "venv", str(venv)], check=True)
    pip = [str(venv / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
    constraints = ["--constraint", str(ROOT / ".ci" / "constraints.txt")]
    subprocess.run([*pip, *constraints, f"{source}{what}"], check=True, capture_output=True)
    return venv / "bin"


def test_the_light_install_checks_templates_and_refuses_to_build(
    tmp_path: Path, write_template: TemplateWriter
) -> None:
    binaries = _install(tmp_path, "", sys.executable)
    for heavy in ("libvirt", "paramiko", "winrm", "cryptography"):
        absent = subprocess.run([str(binaries / "python"), "-c", f"import {heavy}"], check=False, capture_output=True)
        assert absent.returncode != 0, f"the light install brought {heavy}"
    template = write_template("light", shell("true"))
    environment = {**os.environ, "AIB_HOME": str(tmp_path / "home"), "NO_COLOR": "1"}

    def aib(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        argv = [str(binaries / "aib"), *map(str, arguments)]
        return subprocess.run(argv, check=False, capture_output=True, text=True, env=environment)

    assert aib("validate", template).returncode == 0
    refused = aib("build", template)
    assert refused.returncode == 3
    assert "aib[build]" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.alone
@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else; the other tests run as this user")
def test_an_ordinary_user_builds_without_any_daemon(
    tmp_path_factory: pytest.TempPathFactory, tiny_image: Path, write_template: TemplateWriter
) -> None:
    # Outside pytest's own folders, which are closed to others.
    folder = Path("/var/tmp") / f"aib-test-user-{os.getpid()}"
    folder.mkdir(mode=0o755)
    try:
        binaries = _install(folder, "[build]", SYSTEM_PYTHON)
        home = folder / "home"
        home.mkdir()
        template = Path(shutil.copy(write_template("by-a-user", shell("id -un")), folder))
        image = Path(shutil.copy(tiny_image, folder / "tiny.qcow2"))
        for path in (home, template, image):
            os.chown(path, 65534, 65534)

        def aib(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
            as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]
            environment = {
                "PATH": os.environ["PATH"],
                "HOME": str(home),
                "AIB_HOME": str(home / "aib"),
                "NO_COLOR": "1",
            }
            argv = [*as_nobody, str(binaries / "aib"), *map(str, arguments)]
            return subprocess.run(argv, check=False, capture_output=True, text=True, env=environment, cwd="/")

        imported = aib("image", "import", image, "--urn", TINY_URN, "--os", "linux")
        assert imported.returncode == 0, imported.stderr
        done = aib("build", template)
        assert done.returncode == 0, done.stderr
        written = list((home / "aib" / "runs").glob("*/steps/00.out"))
        assert [path.read_text() for path in written] == ["packer\n"]
        assert {path.stat().st_uid for path in (home / "aib").rglob("*")} == {65534}
    finally:
        shutil.rmtree(folder)


@pytest.mark.alone
@pytest.mark.usefixtures("system_daemon")
def test_a_build_through_the_system_daemon(home: Home, write_template: TemplateWriter) -> None:
    done = home.aib("build", write_template("by-system", shell("id -un")), "--connect", "qemu:///system")
    assert done.returncode == 0, done.stderr
    assert (home.runs()[-1] / "steps" / "00.out").read_text() == "packer\n"
