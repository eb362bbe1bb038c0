"""Builds that go on from checkpoints: the same result in a fraction of the time, and never a wrong one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from orchestrator.record.store import Store
from tests.vm.conftest import TemplateWriter
from tests.vm.support import CACHED, TINY_URN, Home, qemus_of, shell

pytestmark = pytest.mark.vm
FIRST = shell("echo 1 | sudo tee -a /etc/counter; cat /proc/sys/kernel/random/boot_id > /tmp/boot", name="first")


@pytest.fixture
def lab(tmp_path: Path, tiny_image: Path) -> Home:
    """A home of its own: what is cached there, this test put there."""
    home = Home(tmp_path / "home")
    home.ok("image", "import", tiny_image, "--urn", TINY_URN, "--os", "linux")
    return home


def results(home: Home) -> list[str]:
    return [step["result"] for step in home.record()["steps"]]


def phases(home: Home) -> list[str]:
    return [phase["name"] for phase in home.record()["phases"]]


def printed(home: Home, index: int) -> str:
    return (home.runs()[-1] / "steps" / f"{index:02d}.out").read_text()


def write_two(write: TemplateWriter, last: str, **more: Any) -> Path:
    return write("cached", FIRST, shell(last, name="last"), **more)


def test_an_edited_last_step_is_all_that_runs_again(lab: Home, write_template: TemplateWriter) -> None:
    template = write_two(write_template, "cat /etc/counter /proc/uptime; sleep 300 </dev/null >/dev/null 2>&1 &")
    lab.ok("build", template, CACHED)
    assert results(lab) == ["succeeded"] * 3
    assert len(Store(lab.path).checkpoints.all()) == 3

    look = "cat /etc/counter; cmp /tmp/boot /proc/sys/kernel/random/boot_id && echo the same boot; date +%s"
    write_two(write_template, look)
    lab.ok("build", template, CACHED)
    assert results(lab) == ["cached", "succeeded", "succeeded"]
    assert "Booting" not in phases(lab)
    counter, same, now = printed(lab, 1).splitlines()
    assert (counter, same) == ("1", "the same boot")
    assert abs(int(now) - (lab.runs()[-1] / "steps" / "01.out").stat().st_mtime) < 60  # the clock was set

    lab.ok("build", template, CACHED)
    assert results(lab) == ["cached", "cached", "succeeded"]
    assert lab.record()["lastRunStatus"]["runState"] == "Succeeded"
    assert lab.record()["generalizeProof"]["verdict"] != "failed"
    lab.ok("build", template, CACHED, "--from", "first")
    assert results(lab) == ["succeeded"] * 3
    assert "Resuming" in phases(lab)  # checkpoint 0: the booted source image
    lab.ok("build", template, CACHED, "--max-age", "0")
    assert results(lab) == ["succeeded"] * 3
    assert "Booting" in phases(lab)
    before = len(Store(lab.path).checkpoints.all())
    lab.ok("build", template, "--no-cache")
    assert results(lab) == ["succeeded"] * 3
    assert len(Store(lab.path).checkpoints.all()) == before


def test_until_stops_after_the_step_and_distributes_nothing(lab: Home, write_template: TemplateWriter) -> None:
    template = write_two(write_template, "echo last")
    lab.ok("build", template, CACHED, "--until", "1")
    assert results(lab) == ["succeeded", "not run", "not run"]
    assert (lab.record()["artifacts"], lab.record()["runOutputs"]) == ([], [])
    assert lab.record()["lastRunStatus"]["message"] == "stopped after first, as asked"
    lab.ok("build", template, CACHED, "--until", "first")
    assert results(lab) == ["cached", "not run", "not run"]
    wrong = lab.aib("build", template, CACHED, "--until", "frist")
    assert (wrong.returncode, "1 first, 2 last" in wrong.stderr) == (64, True)


def test_a_failed_step_leaves_the_checkpoint_before_it(lab: Home, write_template: TemplateWriter) -> None:
    template = write_two(write_template, "false")
    assert lab.aib("build", template, CACHED).returncode == 1
    write_two(write_template, "cat /etc/counter")
    lab.ok("build", template, CACHED)
    assert results(lab) == ["cached", "succeeded", "succeeded"]
    assert printed(lab, 1) == "1\n"


def test_what_is_damaged_is_told_and_never_used(lab: Home, write_template: TemplateWriter) -> None:
    template = write_two(write_template, "cat /etc/counter")
    lab.ok("build", template, CACHED)
    last = Store(lab.path).checkpoints.all()[-1]
    memory = last.folder / "memory"
    memory.chmod(0o600)
    with memory.open("r+b") as file:  # one byte in the middle of the guest's memory
        file.seek(memory.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))
    done = lab.aib("build", template, CACHED)
    assert done.returncode == 0
    assert f"{memory} is not what was written" in done.stderr
    assert results(lab) == ["cached", "succeeded", "succeeded"]
    assert not last.folder.exists()

    # A disk that was cut takes all that rests on it with it; what it rests on itself stays.
    booted, first, _ = Store(lab.path).checkpoints.all()
    first.disk.chmod(0o600)
    os.truncate(first.disk, first.disk.stat().st_size // 2)
    done = lab.aib("build", template, CACHED)
    assert (done.returncode, results(lab)) == (0, ["succeeded"] * 3)
    assert f"{first.disk} is not what was written" in done.stderr
    assert "Resuming" in phases(lab)
    assert (booted.folder.exists(), first.folder.exists()) == (True, False)

    for one in Store(lab.path).checkpoints.all():
        (one.folder / "manifest.json").write_text("{half")
    lab.ok("build", template, CACHED)
    assert results(lab) == ["succeeded"] * 3
    assert "Resuming" not in phases(lab)


def test_a_checkpoint_from_elsewhere_is_not_used(lab: Home, write_template: TemplateWriter) -> None:
    """Without the keys of its lineage nobody can log in to it; without its source image it is nothing."""
    template = write_two(write_template, "cat /etc/counter")
    lab.ok("build", template, CACHED, "--until", "last")
    (lab.path / "lineages").rename(lab.path / "elsewhere")
    done = lab.aib("build", template, CACHED, "--until", "last")
    assert done.returncode == 0, done.stderr
    assert "cannot be used" in done.stderr
    assert results(lab) == ["succeeded", "succeeded", "not run"]

    for layer in (lab.path / "layers").iterdir():
        layer.unlink()
    gone = lab.aib("shell", "latest", "--at", "first", "--after", "--", "true")
    assert (gone.returncode, "import, pull or build it again" in gone.stderr) == (4, True)
    missing = lab.aib("build", template, CACHED)
    assert missing.returncode == 4, missing.stderr
    assert qemus_of(lab.path) == []


def test_a_checkpoint_of_another_machine_is_booted_from_its_disk(lab: Home, write_template: TemplateWriter) -> None:
    template = write_two(write_template, "cat /etc/counter")
    lab.ok("build", template, CACHED)
    for one in Store(lab.path).checkpoints.all():
        manifest = json.loads((one.folder / "manifest.json").read_text())
        manifest["fingerprint"] = "another QEMU"
        (one.folder / "manifest.json").write_text(json.dumps(manifest))
    write_two(write_template, "cat /etc/counter; echo edited")
    done = lab.aib("build", template, CACHED)
    assert done.returncode == 0, done.stderr
    assert "disk-only" in done.stderr
    assert results(lab) == ["cached", "succeeded", "succeeded"]
    assert "Booting" in phases(lab)
    assert printed(lab, 1) == "1\nedited\n"


def test_two_builds_go_on_from_one_checkpoint_at_once(lab: Home, write_template: TemplateWriter) -> None:
    lab.ok("build", write_two(write_template, "cat /etc/counter"), CACHED)
    templates = []
    for number in (1, 2):
        name = f"both-{number}"
        first = shell(
            "echo 1 | sudo tee -a /etc/counter; cat /proc/sys/kernel/random/boot_id > /tmp/boot", name="first"
        )
        templates.append(write_template(name, first, shell(f"sleep 3; echo {number} >> /tmp/boot; wc -l < /tmp/boot")))
    builds = [lab.start("build", template, CACHED) for template in templates]
    for build in builds:
        said = build.communicate(timeout=300)[0]
        assert build.returncode == 0, said
    for run in lab.runs()[-2:]:
        assert [step["result"] for step in lab.record(run)["steps"]] == ["cached", "succeeded", "succeeded"]
        assert (run / "steps" / "01.out").read_text() == "2\n"  # neither saw what the other wrote
