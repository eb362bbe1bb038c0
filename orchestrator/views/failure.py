"""The block that explains a failed step: what ran, how it ended, its last words, what to try."""

from __future__ import annotations

import os
from pathlib import Path

from orchestrator.record.record import StepRecord
from orchestrator.views.exit_codes import described
from orchestrator.views.text import clean_line, duration, printable, safe

LAST_LINES = 20
_TAIL = 1 << 16


def last_lines(path: Path, count: int = LAST_LINES) -> list[str]:
    """The last lines of a step's output, safe to show; [] when it printed nothing."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - _TAIL))
            lines = file.read().rstrip(b"\n").split(b"\n")
    except FileNotFoundError:
        return []
    if end > _TAIL and len(lines) > 1:
        lines = lines[1:]  # the first one is cut
    return [printable(clean_line(line)) for line in lines[-count:]] if lines != [b""] else []


def explain(step: StepRecord, total: int, folder: Path, *, before: bool = False) -> list[str]:
    """The lines of the block. `before`: the state just before the step was kept."""
    where = f'Step {step.index + 1}/{total} "{safe(step.name)}" ({step.kind}, {step.phase.lower()})'
    lines = [f"{where} failed after {duration(step.seconds)}"]
    lines += [f"  {safe(line)}" for line in step.message.splitlines()]
    if step.command:
        at = f"  (line {step.line})" if step.line else ""
        lines.append(f"  command: {printable(step.command.encode())}{at}")
    elif step.line:
        lines.append(f"  at line {step.line} of the script")
    lines.append(f"  {described(step.exit_code)}")
    printed = last_lines(folder / step.output) if step.output else []
    if printed:
        lines.append(f"  the last {len(printed)} lines it printed:" if len(printed) > 1 else "  it printed:")
        lines += [f"    | {line}" for line in printed]
    else:
        lines.append("  it printed nothing")
    lines.append("  what to try:")
    lines += [f"    {line}" for line in advice(step, folder.name, before=before)]
    return lines


def advice(step: StepRecord, run_id: str, *, before: bool = False) -> list[str]:
    """What may help, the most specific first."""
    hints = [safe(line) for line in step.hint.splitlines()]
    hints.append(f"aib logs {run_id} --step {step.index + 1} --raw      everything the step printed")
    if before:
        hints.append(f"aib shell {run_id} --at {step.index + 1} --before      a login just before this step")
    if step.phase != "Generalizing":
        hints.append("aib build --on-error abort ...      keeps the build VM at the failure and says how to log in")
    return hints
