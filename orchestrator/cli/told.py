"""What `aib build` tells at the end of its builds, beside its exit code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Told:
    """`junit` is the file for a report, None for no report."""

    as_json: bool
    quiet: bool
    junit: Path | None


def report(builds: Sequence[tuple[str, Path]], told: Told) -> None:
    """Write the JUnit report of the builds (label, run folder), if one is wanted."""
    if told.junit is None:
        return
    from orchestrator.record import files
    from orchestrator.record.record import load
    from orchestrator.views.junit import junit

    files.publish(told.junit, junit([(label, load(folder), folder) for label, folder in builds]).encode())
