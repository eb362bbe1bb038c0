"""What tests need that install aib with pip as users do: the packages it depends on, downloaded once."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = ("orchestrator", "provisioners", "hypervisor", "pyproject.toml", "README.md", "LICENSE")


def pip_environment(cache: Path) -> dict[str, str]:
    """The environment in which pip finds all it needs in `cache`, filled when it is empty; nothing of git's in it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    wheels = cache / "wheels" / hashlib.sha256(repr(needed).encode()).hexdigest()[:16]
    if not wheels.is_dir():
        fresh = wheels.with_name(f"{wheels.name}.{os.getpid()}")
        argv = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary", ":all:", "--dest", str(fresh)]
        constraints = ["--constraint", str(ROOT / ".ci/constraints.txt")]
        subprocess.run([*argv, *constraints, *needed], check=True, capture_output=True)
        try:
            fresh.rename(wheels)
        except OSError:
            if not wheels.is_dir():
                raise
            shutil.rmtree(fresh)  # another process was sooner
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "PIP_"))}
    return {
        **kept,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(wheels),
        "PIP_NO_COMPILE": "1",
        "PIP_CONFIG_FILE": os.devnull,
    }


def copy_sources(folder: Path, *more: str) -> Path:
    """What a release of aib consists of, from this working tree, in a new folder; `more` names further files."""
    folder.mkdir()
    for name in (*SOURCES, *more):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder
