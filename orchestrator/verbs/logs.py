"""What a run printed: in the service's shape, as raw bytes of its steps, or as events; live or afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from pathlib import Path

from hypervisor.errors import UsageError
from orchestrator.record import events as e
from orchestrator.record.reader import read_events, read_output
from orchestrator.record.record import StepRecord, load
from orchestrator.record.runs import RunFolder
from orchestrator.views.customization_log import ServiceLog


def find_step(folder: Path, wanted: str) -> StepRecord:
    """The step with this number (from 1, as shown) or name. Raises `UsageError` with the steps there are."""
    steps = [step for _, step in sorted(load(folder).steps.items())]
    for step in steps:
        if wanted == step.name or wanted == str(step.index + 1):
            return step
    names = [step.name for step in steps]
    near = get_close_matches(wanted, names, n=1)
    known = ", ".join(f"{step.index + 1} {step.name}" for step in steps) or "none yet"
    hint = f"did you mean {near[0]}?" if near else f"its steps: {known}"
    raise UsageError(f"run {folder.name} has no step {wanted}", hint=hint)


def service_log(folder: RunFolder, *, follow: bool = False, step: int | None = None) -> Iterator[bytes]:
    """Whole lines in the service's shape, of the customization and the validation log as they came.

    `step` (index from 0) leaves out what does not belong to that step. With `follow` it ends with the run.
    """
    fold = ServiceLog(lambda output: read_output(folder.path, output), folder.id)
    for stamped in _events(folder, follow):
        belongs = step is None or getattr(stamped.event, "index", None) == step
        for line in fold.lines(stamped):
            if belongs:
                yield line.text
    yield from (line.text for line in fold.finish(step))


def raw_output(folder: RunFolder, *, follow: bool = False, step: int | None = None) -> Iterator[bytes]:
    """Exactly the bytes that the guest printed, of one step (index from 0) or of all in order."""
    for stamped in _events(folder, follow):
        if isinstance(stamped.event, e.Output) and step in (None, stamped.event.index):
            yield read_output(folder.path, stamped.event)


def event_lines(folder: RunFolder, *, follow: bool = False, step: int | None = None) -> Iterator[bytes]:
    """The events as JSON lines."""
    for stamped in _events(folder, follow):
        if step is None or getattr(stamped.event, "index", None) == step:
            yield json.dumps(stamped.to_json(), ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def _events(folder: RunFolder, follow: bool) -> Iterator[e.Stamped]:
    return read_events(folder.events, follow=follow, stop=_ended(folder))


def _ended(folder: RunFolder) -> Callable[[], bool]:
    return lambda: not folder.alive()
