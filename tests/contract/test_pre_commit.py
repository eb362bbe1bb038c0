"""The hook definition, run by pre-commit itself: it installs aib from a clone of this repository and checks commits."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.installing import ROOT, copy_sources, pip_environment

PRE_COMMIT = Path(sys.executable).with_name("pre-commit")

pytestmark = pytest.mark.install


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "init.defaultBranch=main")
    done = subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """This working tree as a repository that pre-commit can clone."""
    folder = copy_sources(tmp_path / "aib", ".pre-commit-hooks.yaml")
    git(folder, "init", "-q")
    git(folder, "add", "--all")
    git(folder, "commit", "-q", "-m", "Everything")
    return folder


@pytest.fixture
def project(tmp_path: Path, published: Path) -> Path:
    """A user's repository that uses the hook, with one good template, and JSON that is none of the hook's business."""
    folder = tmp_path / "project"
    folder.mkdir()
    git(folder, "init", "-q")
    hook = {"repo": str(published), "rev": git(published, "rev-parse", "HEAD"), "hooks": [{"id": "aib-validate"}]}
    (folder / ".pre-commit-config.yaml").write_text(json.dumps({"repos": [hook]}))  # JSON is YAML
    (folder / "package.json").write_text('{"name": "no template"}')
    (folder / "image-templates").mkdir()
    for name in ("hello.sh", "hello.toml"):
        (folder / "scripts").mkdir(exist_ok=True)
        shutil.copy(ROOT / "fixtures/scripts" / name, folder / "scripts")
    shutil.copy(ROOT / "fixtures/templates/hello-linux.json", folder / "image-templates/good.json")
    return folder


def test_pre_commit_runs_the_hook_over_the_templates_alone(project: Path, tmp_path: Path, build_cache: Path) -> None:
    environment = pip_environment(build_cache)
    environment |= {"PRE_COMMIT_HOME": str(tmp_path / "home"), "PRE_COMMIT_COLOR": "never"}

    def run() -> subprocess.CompletedProcess[str]:
        git(project, "add", "--all")
        argv = [PRE_COMMIT, "run", "--verbose"]
        return subprocess.run(argv, cwd=project, env=environment, capture_output=True, text=True, check=False)

    good = run()
    assert good.returncode == 0, good.stdout + good.stderr
    assert "1 file: 0 errors" in good.stdout, "package.json is left alone"

    (project / "image-templates/bad.json").write_text(
        '{"type": "Microsoft.VirtualMachineImages/imageTemplates", "properties": {"distribute": [],}}'
    )
    bad = run()
    assert bad.returncode == 1, bad.stdout + bad.stderr
    assert "exit code: 2" in bad.stdout
    assert "image-templates/bad.json:1:90: error[AIB001]" in bad.stdout
