"""Several builds on one screen: every line begins with the build that it is of; one table at the end."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from orchestrator.record.record import RunRecord
from orchestrator.views.console import ConsoleView
from orchestrator.views.screen import PlainScreen, Style
from orchestrator.views.text import clock, duration, safe, table


class LabelledScreen(PlainScreen):
    """Plain lines behind a label; the screens of one stream share a lock."""

    def __init__(self, stream: TextIO, label: str, lock: threading.Lock) -> None:
        super().__init__(stream)
        self._label = label
        self._lock = lock

    def line(self, text: str, style: Style = "", elapsed: float | None = None) -> None:
        """Write the line with the label before it."""
        told = f"[{clock(elapsed)}] {text}" if elapsed is not None else text
        with self._lock:
            super().line(f"{self._label} | {told}".rstrip())


def make_consoles(labels: Sequence[str], stream: TextIO) -> list[LabelledScreen]:
    """A screen for each build, labels padded to one width."""
    lock, width = threading.Lock(), max(map(len, labels), default=0)
    return [LabelledScreen(stream, safe(label).ljust(width), lock) for label in labels]


def console(screen: LabelledScreen, folder: Path, *, quiet: bool) -> ConsoleView:
    """The view of one of several runs: how each went in detail is not repeated at its end."""
    return ConsoleView(screen, folder, quiet=quiet, brief=True)


def overview(builds: Sequence[tuple[str, RunRecord | None, Path | None]]) -> list[str]:
    """One line for each build (label, record, folder); None: it never started."""
    rows = []
    for label, record, folder in builds:
        if record is None or folder is None:
            rows.append((safe(label), "not started", "", "", ""))
            continue
        cached = sum(step.result == "cached" for step in record.steps.values())
        steps = f"{len(record.steps)} ({cached} cached)" if cached else str(len(record.steps))
        failed = next((step.name for step in record.steps.values() if step.result == "failed"), "")
        state = f"{record.state}: {safe(failed)}" if failed and record.state != "Succeeded" else record.state
        rows.append((safe(label), state, duration(record.elapsed), steps, folder.name))
    return table(("BUILD", "RESULT", "TIME", "STEPS", "RUN"), rows)
