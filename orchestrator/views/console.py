"""The live view of a run: what is going on, what the guest prints, why it failed, what came out.

A subscriber: give it to a journal in this process, or feed it what `read_events` follows of another one's.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from orchestrator.record import events as e
from orchestrator.record.reader import output_name, read_output
from orchestrator.record.record import RunRecord, StepRecord
from orchestrator.views.failure import explain
from orchestrator.views.screen import Screen, Style, screen_for
from orchestrator.views.summary import headline, summary
from orchestrator.views.text import LONGEST_SHOWN, LineSplitter, Piece, clean_line, duration, printable, safe

MOST_LINES = 10_000
"""Lines of one step that are shown; a step that prints more goes on in its file alone."""

_WAITING = {
    "Preparing": "Preparing the source image and what the steps need",
    "Booting": "Starting the build VM",
    "Resuming": "Resuming from a checkpoint",
    "Connecting": "Waiting for the build VM to answer",
    "Customizing": "Customizing",
    "Validating": "Validating",
    "Generalizing": "Generalizing",
    "PoweringOff": "Waiting for the build VM to power off",
    "Inspecting": "Reading the power-off disk: is it generalized?",
    "Exporting": "Exporting the disk",
    "Distributing": "Distributing",
    "CleaningUp": "Cleaning up",
}
_RESULTS: dict[str, tuple[str, Style]] = {
    "succeeded": ("done", "good"),
    "cached": ("unchanged, taken from a checkpoint", "good"),
    "skipped": ("skipped", "warn"),
    "failed": ("FAILED", "bad"),
}


class ConsoleView:
    """Shows a run on a screen. `folder` is the run folder; a `quiet` one only tells why the run failed.

    A `brief` one leaves out the summary.
    """

    def __init__(self, screen: Screen, folder: Path, *, quiet: bool = False, brief: bool = False) -> None:
        self._screen = screen
        self._folder = folder
        self._quiet = quiet
        self._brief = brief
        self._record = RunRecord()
        self._total = 0
        self._now = 0.0
        self._phase = ""
        self._lines: dict[tuple[int, str], LineSplitter] = {}
        self._shown: dict[int, int] = {}
        self._kept: set[int] = set()  # steps after which there is a checkpoint

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the terminal clean; done by itself when the run finishes, safe to call twice."""
        self._screen.close()

    def __call__(self, stamped: e.Stamped) -> None:
        """Show one event."""
        self._record.apply(stamped)
        self._now = stamped.elapsed
        if isinstance(stamped.event, e.CheckpointTaken) or (
            isinstance(stamped.event, e.StepFinished) and stamped.event.result == "cached"
        ):
            self._kept.add(stamped.event.index)
        if self._quiet:
            self._failure_only(stamped.event)
            return
        match stamped.event:
            case e.RunStarted() as event:
                self._run_started(event)
            case e.Phase(name):
                self._phase = _WAITING.get(name, name)
                self._screen.waiting(self._phase, self._now)
            case e.Connected(seconds, address, user, communicator):
                how = {"ssh": "SSH", "winrm": "WinRM"}.get(communicator, communicator)
                self._tell(f"The build VM answers by {how} ({user}@{address}) after {duration(seconds)}", "good")
            case e.StepStarted() as event:
                self._total = max(self._total, event.total)
                label = self._label(event.index, event.name)
                self._tell(f"{label} ({event.kind})", "head")
                self._screen.waiting(label, self._now, told=True)
            case e.Output() as event:
                self._output(event)
            case e.StepFinished() as event:
                self._step_finished(event)
            case e.RunFinished() as event:
                self._run_finished(event)
            case _:
                self._news(stamped.event)

    def _news(self, event: e.Event) -> None:
        """The facts that are one line each."""
        match event:
            case e.Rebooted(_, seconds):
                self._tell(f"The build VM rebooted and answered again after {duration(seconds)}")
            case e.Said(text, _, level):
                for line in text.splitlines():
                    self._tell(f"warning: {safe(line)}" if level == "warning" else safe(line), _said_style(level))
            case e.Deviation(code, message):
                self._tell(f"differs from the service ({code}): {safe(message)}", "dim")
            case e.GeneralizeProof(verdict, findings):
                self._proof(verdict, findings)
            case e.ArtifactWritten(path, kind):
                self._tell(f"Wrote {safe(path)} ({kind})")
            case e.RunOutputReady(name, kind, state):
                self._tell(f"runOutput {safe(name)} ({kind}): {state}", "good" if state == "Succeeded" else "bad")

    def _tell(self, text: str, style: Style = "") -> None:
        self._screen.line(text, style, self._now)

    def _label(self, index: int, name: str) -> str:
        return f"Step {index + 1}/{max(self._total, index + 1)} {safe(name)}"

    def _run_started(self, event: e.RunStarted) -> None:
        self._total = len(event.steps)
        self._tell(f"Run {event.run_id} of {safe(event.template_name)}", "head")
        self._tell(f"Source image: {safe(event.source)}, version {event.source_version}")
        given = f"{event.vcpus} vCPU, {event.memory_mib} MiB"
        budget = duration(event.budget)
        self._tell(f"Build VM: {event.vm_size} ({given}); the build may take {budget}; steps: {self._total}")

    def _output(self, event: e.Output) -> None:
        shown = self._shown.get(event.index, 0)
        if shown > MOST_LINES:
            return  # not even read: there may be 200 MB of it
        splitter = self._lines.setdefault((event.index, event.stream), LineSplitter())
        self._print(event.index, event.stream, splitter.feed(read_output(self._folder, event)))

    def _print(self, index: int, stream: str, pieces: Iterator[Piece]) -> None:
        step = self._record.steps.get(index)
        prefix = f"  {safe(step.name) if step else index} | "
        for piece in pieces:
            if piece.rest:
                continue  # of an endless line the beginning is shown
            shown = self._shown[index] = self._shown.get(index, 0) + 1
            if shown == MOST_LINES + 1:
                self._screen.line(f"{prefix}... the rest is only in {output_name(index)} of the run folder", "dim")
            if shown > MOST_LINES:
                return
            text = printable(clean_line(piece.data))
            if piece.more:
                text = printable(piece.data[:LONGEST_SHOWN]) + "… (a line without an end)"
            self._screen.line(prefix + text, "dim" if stream == "stdout" else "")

    def _step_finished(self, event: e.StepFinished) -> None:
        for index, stream in [key for key in self._lines if key[0] == event.index]:
            self._print(index, stream, self._lines.pop((index, stream)).finish())
        word, style = _RESULTS.get(event.result, (event.result, ""))
        took = "" if event.result in ("skipped", "cached") else f" in {duration(event.seconds)}"
        self._tell(f"{self._label(event.index, event.name)}: {word}{took}", style)
        self._explain(event)
        self._screen.waiting(self._phase, self._now, told=True)

    def _explain(self, event: e.StepFinished) -> None:
        if event.result != "failed":
            return
        step = self._record.steps.get(event.index, StepRecord(event.index, event.name))
        before = event.index - 1 in self._kept
        for line in explain(step, max(self._total, event.index + 1), self._folder, before=before):
            self._screen.line(line)

    def _proof(self, verdict: str, findings: tuple[str, ...]) -> None:
        styles: dict[str, Style] = {"passed": "good", "failed": "bad"}
        self._tell(f"Generalize proof: {verdict}", styles.get(verdict, "warn"))
        for finding in findings:
            self._screen.line(f"  {safe(finding)}")

    def _run_finished(self, event: e.RunFinished) -> None:
        self._screen.waiting("", self._now)
        for line in [] if self._brief else [*summary(self._record, self._folder), ""]:
            self._screen.line(line)
        self._conclude(event)

    def _failure_only(self, event: e.Event) -> None:
        if isinstance(event, e.RunStarted):
            self._total = len(event.steps)
        elif isinstance(event, e.StepFinished):
            self._explain(event)
        elif isinstance(event, e.RunFinished) and event.exit_code != 0:
            self._conclude(event)

    def _conclude(self, event: e.RunFinished) -> None:
        self._screen.line(headline(self._record), "good" if event.exit_code == 0 else "bad")
        for line in (*event.message.splitlines(), *event.hint.splitlines()):
            self._screen.line(f"  {safe(line)}")
        self.close()


def _said_style(level: str) -> Style:
    return "warn" if level == "warning" else ""


def make_console(folder: Path, *, quiet: bool = False, stream: TextIO | None = None) -> ConsoleView:
    """The view of the run in `folder` on `stream` (stderr): live on a terminal, plain lines elsewhere.

    `quiet`: nothing until the run ends, and then only why it failed, if it did.
    """
    return ConsoleView(screen_for(stream or sys.stderr), folder, quiet=quiet)
