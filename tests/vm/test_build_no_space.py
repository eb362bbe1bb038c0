"""A host that runs out of space while the build VM writes: QEMU pauses the VM, and nobody must wait for it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.record.store import Store
from tests.vm.conftest import TemplateWriter
from tests.vm.support import CACHED, TINY_URN, Home, qemus_of, shell

pytestmark = [
    pytest.mark.vm,
    pytest.mark.skipif(os.getuid() != 0, reason="a small file system is mounted, which only root can"),
]


@pytest.fixture
def small_home(tmp_path: Path, tiny_image: Path) -> Iterator[Home]:
    """A home with 250 MiB of space, the tiny guest imported."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=250m", "none", str(folder)], check=True)
    try:
        home = Home(folder / "home")
        home.ok("image", "import", tiny_image, "--urn", TINY_URN, "--os", "linux")
        yield home
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_host_ends_the_build_at_once(small_home: Home, write_template: TemplateWriter) -> None:
    template = write_template("too-large", shell("sudo dd if=/dev/zero of=/large bs=1M count=300; sync", name="write"))
    done = small_home.aib("build", template)
    assert done.returncode == 3, done.stderr
    assert "no space left" in done.stderr.lower()
    assert "aib gc" in done.stderr
    assert "Traceback" not in done.stderr
    assert qemus_of(small_home.path) == []
    run = small_home.runs()[-1]
    assert not list(run.glob("work/*")), "the space is given back"
    record = json.loads((run / "record.json").read_text())
    assert record["lastRunStatus"]["runState"] == "Failed"
    small_home.ok("show", run.name)


def test_no_room_for_checkpoints_costs_no_more_than_them(small_home: Home, write_template: TemplateWriter) -> None:
    template = write_template("little-room", shell("true", name="one"), shell("true", name="two"))
    done = small_home.aib("build", template, CACHED, "--until", "two")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("No checkpoints from here on: only") == 1
    assert Store(small_home.path).checkpoints.all() == []
