"""What checkpoints are for: a shell at any step, the step that broke it, and builds on every save."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from pathlib import Path

import pytest

from tests.vm.conftest import TemplateWriter
from tests.vm.support import AIB, CACHED, TINY_URN, Home, qemus_of, shell, wait_for

pytestmark = pytest.mark.vm


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, tiny_image: Path) -> Home:
    home = Home(tmp_path_factory.mktemp("lab"))
    home.ok("image", "import", tiny_image, "--urn", TINY_URN, "--os", "linux")
    return home


@pytest.fixture
def failed(lab: Home, write_template: TemplateWriter) -> Home:
    """A home whose newest run failed in its last step."""
    steps = [shell(f"echo {n} | sudo tee /etc/step-{n}", name=f"step {n}") for n in (1, 2, 3)]
    template = write_template("broken", *steps, shell("test ! -e /etc/step-2", name="the check"))
    assert lab.aib("build", template, CACHED).returncode == 1
    return lab


def test_a_shell_before_the_step_that_failed_and_the_step_that_broke_it(failed: Home) -> None:
    done = failed.aib("shell", "latest", "--at", "the check", "--before", "--", "ls /etc; echo gone >&2; exit 7")
    assert done.returncode == 7
    assert {"step-1", "step-2", "step-3"} <= set(done.stdout.split())
    assert "gone" in done.stderr
    after = failed.aib("shell", "latest", "--at", "1", "--after", "--", "ls", "/etc")
    assert "step-1" in after.stdout.split()
    assert "step-2" not in after.stdout.split()

    failed.ok("shell", "latest", "--at", "2", "--", "sudo touch /etc/left-behind")
    assert "left-behind" not in failed.ok("shell", "latest", "--at", "2", "--", "ls /etc")

    missing = failed.aib("shell", "latest", "--at", "the check", "--after", "--", "true")
    assert (missing.returncode, "no checkpoint" in missing.stderr) == (4, True)
    wrong = failed.aib("shell", "latest", "--at", "the chekc", "--", "true")
    assert (wrong.returncode, "4 the check" in wrong.stderr) == (64, True)

    found = json.loads(failed.ok("bisect", "latest", "--check", "test ! -e /etc/step-2", "--json"))
    assert (found["step"], found["name"]) == (2, "step 2")
    assert found["exitCodes"]["1"] == 0
    always = failed.aib("bisect", "latest", "--check", "true")
    assert (always.returncode, "succeeds at the end as well" in always.stderr) == (4, True)
    assert qemus_of(failed.path) == []
    assert list((failed.path / "sessions").iterdir()) == []


def test_what_a_step_changed_is_told(failed: Home) -> None:
    found = json.loads(failed.ok("diff", "latest", "2", "--format", "json"))
    assert [(each["path"], each["kind"], each["diff"]) for each in found["files"]] == [
        ("/etc/step-2", "added", ["@@ -0,0 +1 @@", "+2"])
    ]
    text = failed.ok("diff", "latest", "3", "--source")
    assert [line.strip() for line in text.splitlines() if "/etc/step" in line] == [
        "+ /etc/step-1", "+ /etc/step-2", "+ /etc/step-3"
    ]  # fmt: skip
    missing = failed.aib("diff", "latest", "the check")
    assert (missing.returncode, "no checkpoint" in missing.stderr) == (4, True)
    assert list((failed.path / "sessions").iterdir()) == []


def test_a_terminal_is_the_users_ssh(failed: Home) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [str(AIB), "shell", "latest", "--at", "3"],
        stdin=theirs, stdout=theirs, stderr=theirs, env=failed.environment, start_new_session=True,
    ) as session:  # fmt: skip
        os.close(theirs)
        os.write(ours, b"cat /etc/step-2; echo the-user-is-$(id -un); exit 5\n")
        said = b""
        while True:
            try:
                said += os.read(ours, 4096)
            except OSError:  # the other side is closed: it has ended
                break
    os.close(ours)
    assert session.returncode == 5
    assert b"the-user-is-packer" in said


def test_a_failure_asks_what_to_do(lab: Home, write_template: TemplateWriter, tmp_path: Path) -> None:
    script = tmp_path / "mended.sh"
    script.write_text("#!/bin/sh\nsudo touch /etc/half-done\nexit 9\n")
    ill = {"type": "Shell", "name": "ill", "scriptUri": script.name}
    look = shell("cd /etc; ls -d half-*", name="look")
    template = write_template("asked", shell("true", name="well"), ill, look)
    ours, theirs = pty.openpty()
    said = b""

    def until(text: bytes) -> None:
        nonlocal said
        while text not in said:
            said += os.read(ours, 4096)
        said = said.partition(text)[2]

    with subprocess.Popen(
        [str(AIB), "build", str(template), "--on-error", "ask"],
        stdin=theirs, stdout=theirs, stderr=theirs, env=lab.environment, start_new_session=True,
    ) as build:  # fmt: skip
        os.close(theirs)
        until(b"b, a, c, r or q")
        os.write(ours, b"a\n")
        until(b"Going on from the checkpoint")
        os.write(ours, b"ls /etc/half-done && echo left-by-$((1))-failure; exit\n")
        until(b"left-by-1-failure")
        until(b"b, a, c, r or q")
        os.write(ours, b"b\n")
        until(b"Going on from the checkpoint")
        os.write(ours, b"ls /etc/half-done || echo not-$((1))-there; exit\n")
        until(b"not-1-there")
        until(b"b, a, c, r or q")
        script.write_text("#!/bin/sh\nsudo touch /etc/half-mended\nexit 8\n")
        os.write(ours, b"r\n")
        until(b"b, a, c, r or q")
        os.write(ours, b"c\n")
        until(b"Going on from the checkpoint")
        until(b"asked succeeded")
    os.close(ours)
    assert build.returncode == 0
    assert [step["result"] for step in lab.record()["steps"]] == ["cached", "failed", "succeeded", "succeeded"]
    looked = (lab.runs()[-1] / "steps" / "02.out").read_text()
    assert looked == "half-mended\n", "what followed ran on what the failure left"
    # The failure was excused once: the next build runs into it again, whatever was kept.
    assert lab.aib("build", template, CACHED).returncode == 1
    nobody = lab.aib("build", template, CACHED, "--on-error", "ask")
    assert (nobody.returncode, "needs a terminal" in nobody.stderr) == (64, True)


def test_every_save_goes_on_from_the_first_change(lab: Home, write_template: TemplateWriter, tmp_path: Path) -> None:
    script = tmp_path / "last.sh"
    script.write_text("#!/bin/sh\nfalse\n")
    first = shell("echo 1 | sudo tee -a /etc/counter", name="first")
    template = write_template("watched", first, {"type": "Shell", "name": "last", "scriptUri": "last.sh"})
    before = len(lab.runs())
    watch = lab.start("watch", template)
    try:

        def states() -> list[str]:
            runs = lab.runs()[before:]
            return [lab.record(run)["lastRunStatus"]["runState"] for run in runs if (run / "record.json").exists()]

        wait_for(lambda: states() == ["Failed"], 120, "the first build")
        script.write_text("#!/bin/sh\ncat /etc/counter\n")
        wait_for(lambda: states() == ["Failed", "Succeeded"], 120, "the build of the mended script")
        template.write_text(template.read_text().replace('"Shell"', '"Shel"'))
        wait_for(lambda: "Shel" in template.read_text(), 1, "the broken template")
    finally:
        watch.send_signal(signal.SIGINT)
        said = watch.communicate(timeout=60)[0]
    assert watch.returncode == 130
    steps = lab.record()["steps"]
    assert [step["result"] for step in steps] == ["cached", "succeeded", "not run"]
    assert (lab.runs()[-1] / "steps" / "01.out").read_text() == "1\n"
    assert "Watching" in said
