"""The record of a run: what is left to say about it, folded from its events. `record.json` is `RunRecord.to_json`.

`lastRunStatus` uses the service's own words; every other name is ours, in the same spelling.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.record import events as e
from orchestrator.record.files import publish_json
from orchestrator.record.journal import Journal, Subscriber
from orchestrator.record.reader import output_name, read_events

RECORD = "record.json"
EVENTS = "events.jsonl"
MOST_WARNINGS = 1000

NOT_RUN = "not run"
RUNNING = "running"


@dataclass(slots=True)
class StepRecord:
    """One step as it went. `result`: not run, running, succeeded, failed, cached or skipped."""

    index: int
    name: str
    kind: str = ""
    phase: str = ""
    result: str = NOT_RUN
    started: str = ""
    begun: float = 0.0
    seconds: float = 0.0
    exit_code: int | None = None
    rebooted: bool = False
    output: str = ""
    command: str = ""
    digest: str = ""
    message: str = ""
    hint: str = ""
    line: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The step as `record.json` holds it."""
        return {
            "index": self.index,
            "name": self.name,
            "kind": self.kind,
            "phase": self.phase,
            "result": self.result,
            "startTime": self.started,
            "seconds": round(self.seconds, 3),
            "exitCode": self.exit_code,
            "rebooted": self.rebooted,
            "output": self.output,
            "command": self.command,
            "digest": self.digest,
            "message": self.message,
            "hint": self.hint,
            "line": self.line,
        }


@dataclass(slots=True)
class PhaseRecord:
    """One phase of the run, in order; `seconds` grows until the next one begins."""

    name: str
    sub_state: str
    begun: float
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """The phase as `record.json` holds it."""
        return {"name": self.name, "runSubState": self.sub_state, "seconds": round(self.seconds, 3)}


@dataclass(slots=True)
class RunRecord:
    """What is known of a run after the events so far. `apply` is the fold."""

    started: e.RunStarted | None = None
    start_time: str = ""
    end_time: str = ""
    elapsed: float = 0.0
    sub_state: str = "Queued"
    connected: e.Connected | None = None
    finished: e.RunFinished | None = None
    phases: list[PhaseRecord] = field(default_factory=list)
    steps: dict[int, StepRecord] = field(default_factory=dict)
    artifacts: list[e.ArtifactWritten] = field(default_factory=list)
    run_outputs: dict[str, e.RunOutputReady] = field(default_factory=dict)
    deviations: dict[tuple[str, str], None] = field(default_factory=dict)
    warnings: dict[str, None] = field(default_factory=dict)
    proof: e.GeneralizeProof | None = None

    @property
    def state(self) -> str:
        """The service's runState."""
        return self.finished.state if self.finished else "Running"

    def apply(self, stamped: e.Stamped) -> None:
        """Take one more event into account."""
        self.start_time = self.start_time or stamped.time
        self.elapsed = stamped.elapsed
        if self.phases:
            self.phases[-1].seconds = stamped.elapsed - self.phases[-1].begun
        match stamped.event:
            case e.RunStarted() as event:
                self.started = event
                self.steps = {index: StepRecord(index, name) for index, name in enumerate(event.steps)} | self.steps
            case e.Phase(name, sub_state):
                self.phases.append(PhaseRecord(name, sub_state, stamped.elapsed))
                self.sub_state = sub_state
            case e.StepStarted() as event:
                self._step_started(event, stamped)
            case e.StepFinished() as event:
                self._step_finished(event)
            case e.Connected() as event:
                self.connected = self.connected or event
            case e.Deviation(code, message):
                self.deviations[(code, message)] = None
            case e.Said(text, _, "warning") if len(self.warnings) < MOST_WARNINGS:
                self.warnings[text] = None
            case e.GeneralizeProof() as event:
                self.proof = event
            case e.ArtifactWritten() as event:
                self.artifacts.append(event)
            case e.RunOutputReady() as event:
                self.run_outputs[event.name] = event
            case e.RunFinished() as event:
                self.finished, self.end_time = event, stamped.time
                self.sub_state = event.sub_state or self.sub_state

    def _step_started(self, event: e.StepStarted, stamped: e.Stamped) -> None:
        self.steps[event.index] = StepRecord(
            event.index,
            event.name,
            event.kind,
            event.phase,
            RUNNING,
            stamped.time,
            stamped.elapsed,
            output=event.output or output_name(event.index),
            command=event.command,
            digest=event.digest,
        )

    def _step_finished(self, event: e.StepFinished) -> None:
        step = self.steps.setdefault(event.index, StepRecord(event.index, event.name))
        step.result, step.seconds, step.exit_code = event.result, event.seconds, event.exit_code
        step.rebooted, step.message, step.hint = event.rebooted, event.message, event.hint
        step.command, step.line = event.command or step.command, event.line

    def last_run_status(self) -> dict[str, Any]:
        """The service's `lastRunStatus`."""
        return {
            "startTime": self.start_time,
            "endTime": self.end_time or None,
            "runState": self.state,
            "runSubState": self.sub_state,
            "message": self.finished.message if self.finished else "",
        }

    def to_json(self) -> dict[str, Any]:
        """What `record.json` holds."""
        s = self.started
        proof = self.proof
        return {
            "runId": s.run_id if s else "",
            "template": {
                "id": s.template_id if s else "",
                "name": s.template_name if s else "",
                "apiVersion": s.api_version if s else "",
                "location": s.location if s else "",
            },
            "source": {
                "requested": s.source if s else "",
                "version": s.source_version if s else "",
                "sha256": s.source_sha256 if s else "",
            },
            "machine": _machine(s) if s else {},
            "budgetSeconds": s.budget if s else None,
            "lastRunStatus": self.last_run_status(),
            "seconds": round(self.finished.seconds if self.finished else self.elapsed, 3),
            "bootSeconds": round(self.connected.seconds, 3) if self.connected else None,
            "phases": [phase.to_json() for phase in self.phases],
            "steps": [step.to_json() for _, step in sorted(self.steps.items())],
            "artifacts": [_artifact(artifact) for artifact in self.artifacts],
            "runOutputs": [_run_output(output) for output in self.run_outputs.values()],
            "deviations": [{"code": code, "message": message} for code, message in self.deviations],
            "warnings": list(self.warnings),
            "generalizeProof": (
                {"verdict": proof.verdict, "findings": list(proof.findings), "report": proof.report} if proof else None
            ),
            "exitCode": self.finished.exit_code if self.finished else None,
            "hint": self.finished.hint if self.finished else "",
        }


def _machine(started: e.RunStarted) -> dict[str, Any]:
    return {
        "vmSize": started.vm_size,
        "asked": {
            "vcpus": started.asked_vcpus or started.vcpus,
            "memoryMiB": started.asked_memory_mib or started.memory_mib,
        },
        "given": {"vcpus": started.vcpus, "memoryMiB": started.memory_mib},
    }


def _artifact(event: e.ArtifactWritten) -> dict[str, Any]:
    return {
        "path": event.path,
        "format": event.format,
        "virtualSize": event.virtual_size,
        "size": event.size,
        "allocated": event.allocated,
        "sha256": event.sha256,
    }


def _run_output(event: e.RunOutputReady) -> dict[str, Any]:
    return {
        "name": event.name,
        "type": event.kind,
        "provisioningState": event.state,
        "artifactId": event.artifact_id,
        "artifactUri": event.artifact_uri,
        "message": event.message,
        "tags": event.tags,
    }


def fold(events: Iterable[e.Stamped]) -> RunRecord:
    """The record of a run after `events`."""
    record = RunRecord()
    for stamped in events:
        record.apply(stamped)
    return record


def load(folder: Path) -> RunRecord:
    """The record of the run in `folder`, folded anew from what its events say."""
    return fold(read_events(folder / EVENTS))


def write_record(folder: Path, record: RunRecord) -> None:
    """Replace `record.json`; readers see the old or the new one, never a part. Raises `HostError`."""
    publish_json(folder / RECORD, record.to_json())


class RecordWriter:
    """A subscriber that keeps `record.json` up to date, at every event but output and talk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.record = load(folder)

    def __call__(self, stamped: e.Stamped) -> None:
        """Take the event; write the record when it says more than before."""
        self.record.apply(stamped)
        if not isinstance(stamped.event, e.Output | e.Said | e.Unknown):
            write_record(self.folder, self.record)


def finish_abandoned(
    folder: Path,
    reason: str,
    *,
    state: str = "Failed",
    exit_code: int = 1,
    hint: str = "",
    show: Subscriber | None = None,
) -> e.RunFinished:
    """Give a run whose worker died its last event and record, and return that event; a finished run is left as it is.

    `reason` says how the worker died; `show` gets the events that are added. Only for whoever knows that no worker is
    alive (its lock is free).
    """
    record = load(folder)
    if record.finished is not None:
        write_record(folder, record)
        return record.finished
    last = record.elapsed
    with Journal(folder) as journal:
        journal.subscribe(record.apply)
        if show is not None:
            journal.subscribe(show)
        for step in [step for step in record.steps.values() if step.result == RUNNING]:
            seconds = last - step.begun
            journal.emit(e.StepFinished(step.index, step.name, "failed", seconds, None, message=reason))
        finished = e.RunFinished(state, record.sub_state, reason, exit_code, last, hint)
        journal.emit(finished)
    write_record(folder, record)
    return finished
