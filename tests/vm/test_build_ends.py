"""Every way a build can be ended: what is left is a complete record and nothing else."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
from pathlib import Path

import pytest

from tests.vm.conftest import TemplateWriter
from tests.vm.support import Home, command_of, descendants, kill, qemus_of, shell, wait_for

pytestmark = pytest.mark.vm

SLEEP = "echo now sleeping; sleep 600"


def _started(home: Home, template: Path, *options: str) -> tuple[subprocess.Popen[str], Path]:
    """A build whose step is sleeping, and its run folder."""
    before = set(home.runs())
    process = home.start("build", template, *options)
    run = wait_for(lambda: set(home.runs()) - before, 30, "a run folder").pop()
    out = run / "steps" / "00.out"
    wait_for(lambda: out.exists() and b"now sleeping" in out.read_bytes(), 180, "the sleeping step")
    return process, run


def _family(process: subprocess.Popen[str]) -> list[int]:
    """The supervisor, its worker and whatever they started, but not QEMU."""
    family = [process.pid, *descendants(process.pid)]
    return [pid for pid in family if b"qemu" not in command_of(pid).split(b"\0")[0]]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels_within_ten_seconds(
    home: Home, write_template: TemplateWriter, number: signal.Signals
) -> None:
    process, run = _started(home, write_template("cancelled", shell(SLEEP)))
    os.kill(process.pid, number)
    output, _ = process.communicate(timeout=10)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    record = home.record(run)
    assert record["lastRunStatus"]["runState"] == "Canceled"
    assert record["steps"][0]["result"] == "failed"
    assert qemus_of(home.path) == []
    assert not list(run.glob("work/*"))


def test_cancel_from_another_terminal(home: Home, write_template: TemplateWriter) -> None:
    process, run = _started(home, write_template("cancelled-too", shell(SLEEP)))
    home.ok("cancel", run.name)
    process.communicate(timeout=10)
    assert process.returncode == 130
    assert home.record(run)["lastRunStatus"]["runState"] == "Canceled"
    again = home.aib("cancel", run.name)
    assert again.returncode == 4
    assert "ended" in again.stderr


def test_the_budget_ends_a_build_as_the_service_does(home: Home, write_template: TemplateWriter) -> None:
    done = home.aib("build", write_template("slow", shell(SLEEP), buildTimeoutInMinutes=1))
    assert done.returncode == 124
    run = home.runs()[-1]
    record = home.record(run)
    assert record["lastRunStatus"]["runState"] == "Failed"
    assert record["lastRunStatus"]["message"] == (
        "Failed while waiting for packerizer: Timeout waiting for microservice to complete: 'context deadline exceeded'"
    )
    assert (run / "customization.log").read_text().splitlines()[-2:] == [
        "[ERROR] Failed while waiting for packerizer: Timeout waiting for microservice to",
        "[ERROR] complete: 'context deadline exceeded'",
    ]
    assert record["runOutputs"] == []


@pytest.mark.parametrize("who", ["supervisor", "worker", "all"])
def test_a_killed_process_takes_the_vm_with_it(home: Home, write_template: TemplateWriter, who: str) -> None:
    process, run = _started(home, write_template(f"killed-{who}", shell(SLEEP)))
    family = _family(process)
    assert len(family) >= 3, "supervisor, worker and watchdog"
    kill(*{"supervisor": family[:1], "worker": family[1:2], "all": family}[who])
    wait_for(lambda: not qemus_of(home.path), 10, "the end of the VM")
    process.communicate(timeout=20)
    # Whoever was left, or the next call, writes the last word and removes the rest.
    wait_for(lambda: home.ok("show", run.name), 20, "a readable run")
    wait_for(lambda: home.record(run)["lastRunStatus"]["runState"] in {"Failed", "Canceled"}, 20, "a terminal record")
    home.ok("runs")
    assert not list(run.glob("work/*"))


def test_abort_keeps_the_vm_and_tells_how_to_get_in(home: Home, write_template: TemplateWriter) -> None:
    template = write_template(
        "kept", shell("echo evidence > /tmp/evidence; exit 7"), errorHandling={"onCustomizerError": "abort"}
    )
    process = home.start("build", template)
    assert process.stdout is not None
    lines: list[str] = []
    command = None
    for line in process.stdout:
        lines.append(line)
        if command := re.search(r"ssh -i .*$", line):
            break
    assert command, "".join(lines)
    argv = [*shlex.split(command.group()), "cat /tmp/evidence"]
    said = subprocess.run(argv, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
    assert said.stdout == "evidence\n", said.stderr
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=15)
    assert process.returncode == 1, rest
    run = home.runs()[-1]
    assert home.record(run)["steps"][0]["exitCode"] == 7
    assert not (run / "login_key").exists()


def test_two_builds_at_once_keep_out_of_each_others_way(home: Home, write_template: TemplateWriter) -> None:
    first = home.start("build", write_template("twin-a", shell("echo a | sudo tee /etc/twin")))
    second = home.start("build", write_template("twin-b", shell("echo b | sudo tee /etc/twin")))
    for process in (first, second):
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
