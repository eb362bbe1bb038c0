"""The runs of the store: which there are, how they stand, and which one a user means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from hypervisor.errors import HostError, UsageError
from orchestrator.record.files import read_json
from orchestrator.record.record import load
from orchestrator.record.runs import RunFolder
from orchestrator.record.store import Store

ABANDONED = "Abandoned"
"""Our word for a run that says Running and has no living process; the service has none for it."""
LATEST = ("latest", "last")


@dataclass(frozen=True, slots=True)
class RunSummary:
    """One line of `aib runs`. `state` is the service's runState, or Abandoned; times in seconds."""

    run_id: str
    template: str
    state: str
    sub_state: str
    started: str
    seconds: float
    alive: bool
    exit_code: int | None

    def to_json(self) -> dict[str, Any]:
        """The object that `aib runs --json` lists."""
        return {
            "runId": self.run_id,
            "template": self.template,
            "runState": self.state,
            "runSubState": self.sub_state,
            "startTime": self.started,
            "seconds": self.seconds,
            "alive": self.alive,
            "exitCode": self.exit_code,
        }


def list_runs(store: Store) -> list[RunSummary]:
    """Every run, the newest first."""
    return [summarize(folder) for folder in reversed(store.runs())]


def summarize(folder: RunFolder) -> RunSummary:
    """How one run stands. Alive is asked first: a run that ends in between has its last record by then."""
    alive = folder.alive()
    record = record_of(folder)
    status: Mapping[str, Any] = record.get("lastRunStatus") or {}
    template: Mapping[str, Any] = record.get("template") or {}
    state = str(status.get("runState", "Running"))
    return RunSummary(
        run_id=folder.id,
        template=str(template.get("name") or folder.template_name),
        state=ABANDONED if state == "Running" and not alive else state,
        sub_state=str(status.get("runSubState", "")),
        started=str(status.get("startTime") or folder.created),
        seconds=float(record.get("seconds") or 0.0),
        alive=alive,
        exit_code=record.get("exitCode"),
    )


def record_of(folder: RunFolder) -> dict[str, Any]:
    """The run's record: the file when it is good, else folded anew from the events."""
    try:
        record = read_json(folder.record)
    except HostError:  # damaged: the events know it all
        record = None
    return record if record is not None else load(folder.path).to_json()


def find_run(store: Store, name: str) -> RunFolder:
    """The run that `name` means: an id, an unambiguous beginning of one, `latest`, or a template (its newest run).

    Raises `UsageError` with near names when there is none, and with the candidates when there are several.
    """
    folders = store.runs()
    if name in LATEST and folders:
        return folders[-1]
    exact = [f for f in folders if f.id == name] or [f for f in folders if name and f.id.startswith(name)]
    if len(exact) == 1:
        return exact[0]
    if exact:
        raise UsageError(f"{name} could be {', '.join(f.id for f in exact)}", hint="give more of the id")
    of_template = [f for f in folders if f.template_name.lower() == name.lower()]
    if of_template:
        return of_template[-1]
    raise UsageError(f"there is no run {name}", hint=_near(name, folders))


def _near(name: str, folders: Sequence[RunFolder]) -> str:
    if not folders:
        return "there are no runs yet; `aib build TEMPLATE` makes one"
    known = dict.fromkeys([*(f.id for f in reversed(folders)), *(f.template_name for f in folders if f.template_name)])
    near = get_close_matches(name, known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else "`aib runs` lists them; `latest` is the newest"
