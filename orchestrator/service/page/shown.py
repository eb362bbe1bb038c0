"""What the page shows of runs: plain values, read from the run folders each time (nothing is kept between requests)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orchestrator.record.runs import RunFolder
from orchestrator.record.store import Store
from orchestrator.verbs.runs import RunSummary, list_runs, record_of, summarize
from orchestrator.views.failure import last_lines
from orchestrator.views.text import duration, safe, size

MOST_RUNS = 200
CONSOLE_LINES = 24
FILES = ("customization.log", "validation.log", "console.log", "plan.json", "template.json", "record.json")
"""Files of a run folder that may be downloaded, beside its artifacts. Keys and work files are none of them."""


@dataclass(frozen=True, slots=True)
class StepShown:
    """One line of the list of steps; `last` is what a failed step printed at its end."""

    number: int
    name: str
    kind: str
    result: str
    time: str
    message: str = ""
    hint: str = ""
    last: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FileShown:
    """A file to download. `path` is relative to the run folder."""

    path: str
    size: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class RunShown:
    """One run."""

    summary: RunSummary
    time: str
    source: str
    machine: str
    message: str
    hint: str
    steps: tuple[StepShown, ...]
    outputs: tuple[Mapping[str, Any], ...]
    files: tuple[FileShown, ...]
    remarks: tuple[str, ...]
    console: tuple[str, ...]

    @property
    def running(self) -> bool:
        """Whether it goes on."""
        return self.summary.alive and self.summary.exit_code is None


def newest_runs(store: Store) -> tuple[list[tuple[RunSummary, str]], int]:
    """The newest runs with their times in words, and how many there are in all."""
    runs = list_runs(store)
    return [(run, duration(_seconds(run))) for run in runs[:MOST_RUNS]], len(runs)


def _seconds(run: RunSummary) -> float:
    """How long a run took; of one that goes on, until now (its record tells of its last event)."""
    if not run.alive or run.exit_code is not None:
        return run.seconds
    try:
        begun = datetime.fromisoformat(run.started)
    except ValueError:
        return run.seconds
    return max(run.seconds, (datetime.now(UTC) - begun).total_seconds())


def run_shown(folder: RunFolder) -> RunShown:
    """What is known of one run now."""
    record = record_of(folder)
    status = record.get("lastRunStatus") or {}
    machine = record.get("machine") or {}
    given = machine.get("given") or {}
    source = record.get("source") or {}
    return RunShown(
        summary=(summary := summarize(folder)),
        time=duration(_seconds(summary)),
        source=_source(str(source.get("requested", "")), str(source.get("version", ""))),
        machine=f"{machine['vmSize']} ({given.get('vcpus')} vCPU, {given.get('memoryMiB')} MiB)" if machine else "",
        message=str(status.get("message") or ""),
        hint=str(record.get("hint") or ""),
        steps=tuple(_step(step, folder.path) for step in record.get("steps") or ()),
        outputs=tuple(record.get("runOutputs") or ()),
        files=tuple(_files(folder.path, record)),
        remarks=tuple(_remarks(record)),
        console=tuple(last_lines(folder.console_log, CONSOLE_LINES)),
    )


def _source(requested: str, version: str) -> str:
    """The image as it was asked for, and its version where that was not said."""
    return requested if not version or requested.endswith(version) else f"{requested} {version}"


def _step(step: Mapping[str, Any], folder: Path) -> StepShown:
    failed = step["result"] == "failed"
    return StepShown(
        number=step["index"] + 1,
        name=safe(step["name"]),
        kind=step["kind"],
        result=f"{step['result']}, rebooted" if step.get("rebooted") else step["result"],
        time=duration(step["seconds"]) if step["seconds"] else "",
        message=step.get("message") or "",
        hint=step.get("hint") or "",
        last=tuple(last_lines(folder / step["output"])) if failed and step.get("output") else (),
    )


def _files(folder: Path, record: Mapping[str, Any]) -> list[FileShown]:
    found = []
    for artifact in record.get("artifacts") or ():
        path = Path(artifact["path"])
        if path.is_file() and path.parent == folder / "artifacts":
            note = f"{artifact['format']}, sha256 {artifact['sha256']}"
            found.append(FileShown(f"artifacts/{path.name}", size(path.stat().st_size), note))
    for name in FILES:
        if (path := folder / name).is_file():
            found.append(FileShown(name, size(path.stat().st_size)))
    return found


def _remarks(record: Mapping[str, Any]) -> list[str]:
    proof = record.get("generalizeProof")
    remarks = [f"generalize proof: {proof['verdict']}", *map(safe, proof["findings"])] if proof else []
    remarks += [f"differs from the service ({each['code']}): {each['message']}" for each in record["deviations"]]
    return remarks + [f"warning: {safe(text)}" for text in record["warnings"]]


def downloadable(folder: RunFolder, path: str) -> Path | None:
    """The file of that relative path when `run_shown` lists it; None for everything else."""
    listed = {file.path for file in _files(folder.path, record_of(folder))}
    return folder.path / path if path in listed else None
