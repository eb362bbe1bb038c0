"""The cases that are timed, with what each of them is to reach.

A case gives one value a round; where there is a rival, both run in the same round, in turns who is first, and the
value is the ratio of the two. `series` keeps every single measurement for the record.
"""

from __future__ import annotations

import itertools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lab import AIB, LONGEST, SMALL, STEPS, Lab

from hypervisor.deadline import Deadline
from hypervisor.vhd import write_fixed_vhd

STEP_COUNT = 20
"""Steps whose overhead is measured, over all rounds together."""
SCRATCH_STEPS = [[f"echo {step} | sudo tee /opt/step-{step}"] for step in range(4)]

Unit = Literal["", "s", "MB"]


@dataclass
class Series:
    """Every measurement by name, in the order in which they were made."""

    values: dict[str, list[float]] = field(default_factory=dict)

    def note(self, name: str, value: float) -> float:
        """Keep and return it."""
        self.values.setdefault(name, []).append(round(value, 3))
        return value


Measure = Callable[[Lab, int, Series], Iterator[dict[str, float]]]
"""Gives, for each round, the values of the goals that the case is about, by their keys."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What a value is to stay below. `unit` "": a ratio."""

    key: str
    title: str
    limit: float
    unit: Unit = ""


@dataclass(frozen=True, slots=True)
class Case:
    """Something that is measured together."""

    name: str
    goals: tuple[Goal, ...]
    measure: Measure
    guest: bool = True
    """Whether virtual machines run in it: then caches are warmed by a build first."""


def in_turns(rounds: int, one: Callable[[], float], other: Callable[[], float]) -> Iterator[tuple[float, float]]:
    """Both, `rounds` times; every second time the other one first."""
    for number in range(rounds):
        if number % 2 == 0:
            first = one()
            yield first, other()
        else:
            second = other()
            yield one(), second


def cold(lab: Lab, rounds: int, series: Series) -> Iterator[dict[str, float]]:
    """The whole template, source to qcow2. aib's proof, which Packer has no counterpart for, counts in its time."""
    template = lab.template("cold", STEPS)

    def aib() -> float:
        seconds = series.note("aib cold build (s)", lab.aib("build", template, "--no-cache"))
        series.note("aib cold boot to first command (s)", lab.record()["bootSeconds"])
        for phase in lab.record()["phases"]:
            series.note(f"aib cold build, {phase['name']} (s)", phase["seconds"])
        return seconds

    def packer() -> float:
        return series.note("Packer cold build (s)", lab.packer(template).seconds)

    for ours, theirs in in_turns(rounds, aib, packer):
        yield {"cold": ours / theirs}


def steps(lab: Lab, rounds: int, series: Series) -> Iterator[dict[str, float]]:
    """Steps that do nothing, from one's start to the next one's; the first still share the guest with its boot."""
    each = max(4, -(-STEP_COUNT // rounds))
    template = lab.template("steps", [["true"]] * (each + 3))

    def aib() -> float:
        lab.aib("build", template, "--no-cache", "--until", str(each + 4))
        taken = [after - start for start, after in itertools.pairwise(lab.step_starts()[3 : 4 + each])]
        return statistics.median([series.note("aib shell step that does nothing (s)", one) for one in taken])

    def packer() -> float:
        begun = [at for at, line in lab.packer(template).said if "Provisioning with shell script" in line]
        taken = [after - start for start, after in itertools.pairwise(begun[2 : 3 + each])]
        return statistics.median([series.note("Packer shell step that does nothing (s)", one) for one in taken])

    for ours, theirs in in_turns(rounds, aib, packer):
        yield {"step": ours / theirs}


def warm(lab: Lab, rounds: int, series: Series) -> Iterator[dict[str, float]]:
    """Six steps built once a round; then checkpoint 0, the last step edited, and the same to exported artifacts."""
    for number in range(rounds):
        lab.cold_start()

        def edited(words: str, number: int = number) -> Path:
            return lab.template("six", [*SCRATCH_STEPS, [f"sleep 1; echo {words}-{number}"]])

        lab.aib("build", edited("first"), "--until", "6")
        boot = series.note("cold boot to first command, with checkpoints (s)", lab.record()["bootSeconds"])
        lab.aib("build", edited("first"), "--from", "1", "--until", "1")
        warm_boot = series.note("checkpoint 0 to first command (s)", lab.record()["bootSeconds"])
        assert lab.events("StepFinished")[0]["result"] == "succeeded"
        seconds = lab.aib("build", edited("again"), "--until", "6")
        record = lab.record()
        assert [step["result"] for step in record["steps"]][:6] == ["cached"] * 5 + ["succeeded"]
        step = record["steps"][5]["seconds"]
        beyond = series.note("edited last step, beyond the step (s)", seconds - step)
        whole_seconds = lab.aib("build", edited("whole"))
        record = lab.record()
        assert [step["result"] for step in record["steps"]] == ["cached"] * 5 + ["succeeded"] * 2
        ran = sum(step["seconds"] for step in record["steps"][5:])
        export = lab.phase_seconds("Exporting")
        for phase in record["phases"]:
            series.note(f"edited, to artifacts, {phase['name']} (s)", phase["seconds"])
        whole = series.note(
            "edited, to artifacts, beyond step, generalize and export (s)", whole_seconds - ran - export
        )
        yield {"resume": warm_boot / boot, "edit": beyond, "artifacts": whole}


def pause(lab: Lab, rounds: int, series: Series) -> Iterator[dict[str, float]]:
    """How long a guest of 1 GiB stands still while its checkpoint is taken."""
    template = lab.template("pause", SCRATCH_STEPS, SMALL)
    for _ in range(rounds):
        lab.cold_start()
        lab.aib("build", template, "--until", "5")
        taken = [series.note("pause of a checkpoint (s)", each["seconds"]) for each in lab.events("CheckpointTaken")]
        yield {"pause": statistics.median(taken)}


def large_file(lab: Lab, rounds: int, series: Series) -> Iterator[dict[str, float]]:
    """128 MiB that do not compress."""
    template = lab.template("large", [["true"], ["true"]])

    def aib() -> float:
        lab.aib("build", template, "--no-cache", "--until", "3")
        return series.note("aib file of 128 MiB (s)", lab.record()["steps"][1]["seconds"])

    def packer() -> float:
        said = lab.packer(template).said
        # The deprovision script is uploaded before it.
        sent = next(index for index, (_, line) in enumerate(said) if "Uploading" in line and "payload" in line)
        after = next(at for at, line in said[sent + 1 :] if "Provisioning with shell script" in line)
        return series.note("Packer file of 128 MiB (s)", after - said[sent][0])

    lab.payload(128 << 20)
    try:
        for ours, theirs in in_turns(rounds, aib, packer):
            yield {"file": ours / theirs}
    finally:
        lab.payload(1 << 20)


def output(lab: Lab, rounds: int, series: Series) -> Iterator[dict[str, float]]:
    """The largest that supervisor and worker together became while a step printed 200 MB."""
    loud = ["head -c 200000000 /dev/zero | tr '\\0' 'x' | fold -w 99"]
    template = lab.template("loud", [["true"], loud])
    for _ in range(rounds):
        words = [str(AIB), "build", str(template), "--from", "3", "--until", "3"]
        most = 0
        with subprocess.Popen(words, env=lab.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
            while run.poll() is None:
                most = max(most, sum(peak_memory(pid) for pid in (run.pid, *workers_under(run.pid))))
                time.sleep(0.2)
        if run.returncode != 0:
            sys.exit(f"the build that prints much ended with {run.returncode}")
        assert (lab.run_folder() / "steps" / "02.out").stat().st_size > 200_000_000
        yield {"memory": series.note("peak memory of supervisor and worker (MB)", most / 1e6)}


def fixed_vhd(lab: Lab, rounds: int, series: Series) -> Iterator[dict[str, float]]:
    """A fixed VHD from a disk with 1.3 GB allocated, beside cp: what a build does, without the start of its process."""
    raw, vhd, copy = (lab.work / name for name in ("disk.raw", "disk.vhd", "copy.raw"))
    with raw.open("wb") as file:
        for number in range(1300):
            file.seek(number * 3 << 20)
            file.write(os.urandom(1 << 20))
        file.truncate(4 << 30)
    os.sync()

    def aib() -> float:
        vhd.unlink(missing_ok=True)
        os.sync()  # what the other one left to be written would be counted here
        started = time.monotonic()
        write_fixed_vhd(raw, "raw", vhd, Deadline.after(LONGEST))
        return series.note("fixed VHD of 1.3 GB allocated (s)", time.monotonic() - started)

    def cp() -> float:
        copy.unlink(missing_ok=True)
        os.sync()
        return series.note("cp --sparse=always of the same (s)", lab.timed(["cp", "--sparse=always", raw, copy]))

    try:
        for ours, theirs in in_turns(rounds, aib, cp):
            yield {"vhd": ours / theirs}
    finally:
        for path in (raw, vhd, copy):
            path.unlink(missing_ok=True)


def four(lab: Lab, rounds: int, series: Series) -> Iterator[dict[str, float]]:
    """Four whole builds on machines of one vCPU: two at once, and one after another."""
    templates = [lab.template(f"four-{number}", STEPS, SMALL) for number in range(4)]

    def build(jobs: str, name: str) -> float:
        return series.note(name, lab.aib("build", *templates, "--no-cache", "--jobs", jobs))

    def two() -> float:
        return build("2", "four builds, at most two at once (s)")

    def one() -> float:
        return build("1", "four builds, one after another (s)")

    for together, apart in in_turns(rounds, two, one):
        yield {"four": together / apart}


def peak_memory(pid: int) -> int:
    """Bytes that the process held at most; 0 when it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0)


def workers_under(pid: int) -> list[int]:
    """The worker among the children of a supervisor; QEMU's processes are not ours."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [int(child) for child in children if "worker" in Path(f"/proc/{child}/cmdline").read_text()]
    except OSError:
        return []


CASES = (
    Case("cold", (Goal("cold", "whole cold build, three shell steps and a file, to Packer's", 0.75),), cold),
    Case("step", (Goal("step", "overhead of a shell step, to Packer's", 0.2),), steps),
    Case(
        "warm",
        (
            Goal("resume", "checkpoint 0 to first command in the guest, to the cold boot", 0.06),
            Goal("edit", "last of six steps edited, to the end of customizing: beyond the step", 3.0, "s"),
            Goal("artifacts", "the same to exported artifacts: beyond step, generalize and export", 3.0, "s"),
        ),
        warm,
    ),
    Case(
        "vhd", (Goal("vhd", "fixed VHD from 1.3 GB allocated, to `cp --sparse=always`", 1.5),), fixed_vhd, guest=False
    ),
    Case("pause", (Goal("pause", "pause of a checkpoint, 1 GiB guest", 1.0, "s"),), pause),
    Case("file", (Goal("file", "128 MiB file into the guest, to Packer's file provisioner", 0.25),), large_file),
    Case("memory", (Goal("memory", "peak memory of the orchestrator, 200 MB of output", 150.0, "MB"),), output),
    Case("four", (Goal("four", "four builds, at most two VMs at once, to one after another", 0.8),), four),
)
