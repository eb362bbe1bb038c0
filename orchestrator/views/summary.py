"""The last words about a run: time per step and phase, what was made, and what to look at next."""

from __future__ import annotations

from pathlib import Path

from orchestrator.record.record import RunRecord
from orchestrator.views.text import duration, safe, size, table


def summary(record: RunRecord, folder: Path) -> list[str]:
    """The lines of the summary."""
    lines: list[str] = []
    lines += _steps(record)
    lines += _phases(record)
    lines += _results(record)
    lines += _remarks(record)
    lines += _next(record, folder)
    return lines


def headline(record: RunRecord) -> str:
    """How the run ended, in one line."""
    name = safe(record.started.template_name) if record.started else "the run"
    finished = record.finished
    if finished is None:
        return f"{name} is running ({record.sub_state})"
    took = duration(finished.seconds)
    verdict = {
        "Succeeded": f"{name} succeeded in {took}",
        "PartiallySucceeded": f"{name} succeeded in part after {took}: not every distribution did",
        "Canceled": f"{name} was canceled after {took}",
    }
    return verdict.get(finished.state, f"{name} failed after {took}")


def _steps(record: RunRecord) -> list[str]:
    if not record.steps:
        return []
    rows = []
    for _, step in sorted(record.steps.items()):
        time = duration(step.seconds) if step.result not in ("not run", "skipped", "cached") else ""
        result = f"{step.result}, rebooted" if step.rebooted else step.result
        rows.append((str(step.index + 1), safe(step.name), step.kind, step.phase, result, time))
    return ["", *table(("", "STEP", "TYPE", "PHASE", "RESULT", "TIME"), rows)]


def _phases(record: RunRecord) -> list[str]:
    phases = [f"{phase.name} {duration(phase.seconds)}" for phase in record.phases]
    return ["", "Time: " + ", ".join(phases)] if phases else []


def _results(record: RunRecord) -> list[str]:
    lines: list[str] = []
    if record.artifacts:
        lines.append("")
        for a in record.artifacts:
            room = f"{size(a.virtual_size)}, {size(a.allocated)} on disk"
            lines.append(f"Artifact: {safe(a.path)} ({a.format}, {room}, sha256 {a.sha256[:16]})")
    for output in record.run_outputs.values():
        what = safe(output.artifact_id or output.artifact_uri)
        if output.state != "Succeeded" and output.message:
            what = f"{what}: {safe(output.message)}" if what else safe(output.message)
        lines.append(f"runOutput {safe(output.name)} ({output.kind}): {output.state}  {what}".rstrip())
    return lines


def _remarks(record: RunRecord) -> list[str]:
    lines = []
    if record.proof:
        found = f": {'; '.join(map(safe, record.proof.findings))}" if record.proof.findings else ""
        lines.append(f"Generalize proof: {record.proof.verdict}{found}")
    if record.deviations:
        count = len(record.deviations)
        lines.append(f"{count} deviation{'s' if count > 1 else ''} from the service")
    if record.warnings:
        count = len(record.warnings)
        lines.append(f"{count} warning{'s' if count > 1 else ''}")
    return ["", *lines] if lines else []


def _next(record: RunRecord, folder: Path) -> list[str]:
    run = folder.name
    lines = ["", "Next:"]
    if record.run_outputs and record.started:
        lines.append(f"  aib outputs {safe(record.started.template_name)}")
    lines += [f"  aib show {run}", f"  aib logs {run}", f"Run folder: {folder}"]
    return lines
