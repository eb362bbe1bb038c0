"""Power loss: whatever dies at whatever moment, nothing half-written is ever gone on from."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from orchestrator.record.store import Store
from tests.vm.conftest import TemplateWriter
from tests.vm.support import CACHED, TINY_URN, Home, descendants, kill, qemus_of, shell, wait_for

pytestmark = pytest.mark.vm
MOMENTS = 10
LONGEST_SECONDS = 14.0
"""A whole build of this template takes about that long until it is powered off."""


def test_killed_at_any_moment_the_next_build_is_right(
    write_template: TemplateWriter, tmp_path: Path, tiny_image: Path
) -> None:
    home = Home(tmp_path / "home")
    home.ok("image", "import", tiny_image, "--urn", TINY_URN, "--os", "linux")
    steps = [shell(f"echo {n} | sudo tee -a /etc/counter; sync", name=f"step {n}") for n in range(4)]
    seed = random.SystemRandom().randrange(1 << 32)
    moments = random.Random(seed)
    for number in range(MOMENTS):
        template = write_template("killed", *steps, shell(f"cat /etc/counter # {number}", name="look"))
        build = home.start("build", template, CACHED)
        time.sleep(moments.uniform(0.5, LONGEST_SECONDS))
        kill(*reversed(descendants(build.pid)), build.pid)
        build.communicate()
        wait_for(lambda: not qemus_of(home.path), 20, "the end of QEMU")
        for one in Store(home.path).checkpoints.all():
            assert one.damage(one.files) == "", f"seed {seed}, moment {number}"
    # The last one killed may have come to the checkpoint of its last step: that prints nothing when it is cached.
    template = write_template("killed", *steps, shell("cat /etc/counter # at last", name="look"))
    home.ok("build", template, CACHED)
    printed = (home.runs()[-1] / "steps" / "04.out").read_text()
    assert printed == "0\n1\n2\n3\n", f"seed {seed}"
    assert Store(home.path).checkpoints.debris() == []
