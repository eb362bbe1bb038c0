"""`customization.log` and `validation.log` in the service's shape, folded from a run's events (facts: 2.6, TRBL, PKR).

The same fold writes the files while the run is under way and makes them again from events and step files at any time
later. What the service's Packer logs about Azure resources has no counterpart here and is not made up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Literal, NamedTuple, Self

from orchestrator.record import events as e
from orchestrator.record.appender import Appender
from orchestrator.record.messages import TIMED_OUT, TIMED_OUT_LOG_LINES, operation_id
from orchestrator.record.reader import read_events, read_output
from orchestrator.views.text import LineSplitter, Piece, clean_line

Log = Literal["customization", "validation"]
_PROVISIONERS = {
    "Shell": "shell",
    "File": "file",
    "PowerShell": "powershell",
    "WindowsRestart": "windows-restart",
    "WindowsUpdate": "windows-update",
}
_AFTER_THE_STEPS = {"PoweringOff", "Inspecting", "Exporting", "Distributing", "CleaningUp"}
_BUILT = {"Exporting", "Distributing"}
_EXIT_TIMED_OUT = 124


class LogText(NamedTuple):
    """Whole lines for one of the two logs."""

    log: Log
    text: bytes


class ServiceLog:
    """The fold. `read` gives the bytes that an `Output` event points at."""

    def __init__(self, read: Callable[[e.Output], bytes], run_id: str = "") -> None:
        self._read = read
        self._operation = operation_id(run_id)
        self._log: Log = "customization"
        self._winrm = False
        self._finalized = False
        self._validated = False
        self._built = False
        self._steps: dict[int, tuple[Log, e.StepStarted]] = {}
        self._lines: dict[tuple[int, str], LineSplitter] = {}

    def lines(self, stamped: e.Stamped) -> Iterator[LogText]:
        """What this event adds to the logs."""
        when = _packer_time(stamped.time)
        match stamped.event:
            case e.RunStarted() as event:
                self._operation = operation_id(event.run_id)
                self._winrm = event.os == "windows"
                yield self._say("Running builder ...")
            case e.Phase(name):
                yield from self._phase(name, when)
            case e.Connected(communicator="winrm"):
                self._winrm = True
                yield self._message("WinRM connected.")
            case e.Connected():
                yield self._say("Connected to SSH!")
            case e.StepStarted() as event:
                self._steps[event.index] = (self._log, event)
                yield self._debug(when, f"(telemetry) Starting provisioner {self._provisioner(event)}")
                yield self._say(self._announcement(event))
            case e.Output() as event:
                yield from self._output(event)
            case e.StepFinished() as event:
                yield from self._step_finished(event, when)
            case e.Rebooted(_, seconds):
                yield self._say(f"The machine rebooted and answered again after {seconds:.0f} s")
            case e.Said(text):
                for line in text.splitlines():
                    yield self._say(line)
            case e.Deviation(code, message):
                yield self._debug(when, f"deviation {code}: {message}", level="WARN")
            case e.RunFinished() as event:
                yield from self._run_finished(event, when)

    def finish(self, step: int | None = None) -> Iterator[LogText]:
        """What came without a line end and was never ended (the worker died, or the guest is still printing)."""
        for index, stream in [key for key in self._lines if step in (None, key[0])]:
            yield from self._printed(index, stream, self._lines.pop((index, stream)).finish())

    def _phase(self, name: str, when: str) -> Iterator[LogText]:
        self._log = "validation" if name == "Validating" else "customization"
        self._validated = self._validated or name == "Validating"
        self._built = self._built or name in _BUILT
        if name == "Booting":
            yield self._say("Deploying deployment template ...")
        elif name == "Connecting":
            service, patience = ("WinRM", "10m0s") if self._winrm else ("SSH", "20m0s")
            yield self._say(f"Waiting for {service} to become available...")
            yield self._debug(when, f"Waiting for {service}, up to timeout: {patience}")
        elif name in _AFTER_THE_STEPS:
            yield from self._finalize(when)

    def _finalize(self, when: str) -> Iterator[LogText]:
        if not self._finalized:
            self._finalized = True
            yield self._debug(when, "(telemetry) Finalizing.")

    def _provisioner(self, step: e.StepStarted) -> str:
        if step.kind == "Generalize":
            return "powershell" if self._winrm else "shell"
        return _PROVISIONERS.get(step.kind, step.kind.lower())

    def _announcement(self, step: e.StepStarted) -> str:
        """The line with which Packer's provisioner begins; it names our step where Packer names its temporary file."""
        match self._provisioner(step):
            case "file":
                return f"Uploading {step.command or step.name}"
            case "windows-restart":
                return "Restarting Machine"
            case "windows-update":
                return "Running Windows update..."
            case name:
                return f"Provisioning with {name} script: {step.name}"

    def _output(self, event: e.Output) -> Iterator[LogText]:
        splitter = self._lines.setdefault((event.index, event.stream), LineSplitter())
        yield from self._printed(event.index, event.stream, splitter.feed(self._read(event)))

    def _printed(self, index: int, stream: str, pieces: Iterator[Piece]) -> Iterator[LogText]:
        """Guest output, many lines at once: there may be 200 MB of it."""
        prefix = self._prefix("OUT", "    azure-arm: " if stream == "stdout" else "==> azure-arm: ")
        text = b"".join(prefix + clean_line(piece.data) + b"\n" for piece in pieces)
        if text:
            yield LogText(self._log_of(index), text)

    def _step_finished(self, event: e.StepFinished, when: str) -> Iterator[LogText]:
        yield from self.finish(event.index)
        if event.index not in self._steps:
            return
        _, step = self._steps[event.index]
        if event.exit_code is not None:
            command = event.command or step.command or step.name
            yield self._debug(when, f"command '{_one_line(command)}' exited with code: {event.exit_code}")
        yield self._debug(when, f"(telemetry) ending {self._provisioner(step)}")
        if event.result == "failed":
            for line in event.message.splitlines():
                yield self._say(line)

    def _run_finished(self, event: e.RunFinished, when: str) -> Iterator[LogText]:
        timed_out = event.exit_code == _EXIT_TIMED_OUT or event.message == TIMED_OUT
        if not timed_out:
            yield from self._finalize(when)
        built = event.state == "Succeeded" or self._built
        yield self._raw("OUT", f"Build 'azure-arm' {'finished' if built else 'errored'}.")
        yield self._raw("OUT", "==> Builds finished but no artifacts were created.")
        last = list(TIMED_OUT_LOG_LINES) if timed_out else [f"[ERROR] {line}" for line in event.message.splitlines()]
        text = "".join(f"{line}\n" for line in last).encode("utf-8", "backslashreplace")
        if text:
            yield LogText("customization", text)
            if self._validated:
                yield LogText("validation", text)

    def _log_of(self, index: int) -> Log:
        return self._steps[index][0] if index in self._steps else self._log

    def _prefix(self, channel: str, what: str) -> bytes:
        return f"[{self._operation}] PACKER {channel} {what}".encode()

    def _raw(self, channel: str, text: str) -> LogText:
        return LogText(self._log, self._prefix(channel, "") + text.encode("utf-8", "backslashreplace") + b"\n")

    def _say(self, text: str) -> LogText:
        return self._raw("OUT", f"==> azure-arm: {text}")

    def _message(self, text: str) -> LogText:
        return self._raw("OUT", f"    azure-arm: {text}")

    def _debug(self, when: str, text: str, level: str = "INFO") -> LogText:
        return self._raw("ERR", f"{when} packer: {when} [{level}] {_one_line(text)}")


class CustomizationLog:
    """A subscriber that writes both logs of the run in `folder`; what its events already say is written first.

    Raises `HostError` when a log cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[Log, Appender] = {}
        self._service_log = ServiceLog(lambda output: read_output(folder, output))
        for log in ("customization", "validation"):
            (folder / f"{log}.log").unlink(missing_ok=True)
        for stamped in read_events(folder / "events.jsonl"):
            self(stamped)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __call__(self, stamped: e.Stamped) -> None:
        """Write what the event adds."""
        self._write(self._service_log.lines(stamped))

    def _write(self, texts: Iterator[LogText]) -> None:
        for log, text in texts:
            if log not in self._files:
                self._files[log] = Appender(self._folder / f"{log}.log")
            self._files[log].append(text)

    def close(self) -> None:
        """Write what is left over and let go of the files; safe to call twice."""
        self._write(self._service_log.finish())
        for file in self._files.values():
            file.close()
        self._files.clear()


def rewrite_logs(folder: Path) -> None:
    """Make both logs anew from the events and step files of a run that has ended."""
    with CustomizationLog(folder):
        pass


def _packer_time(time: str) -> str:
    try:
        return datetime.fromisoformat(time).strftime("%Y/%m/%d %H:%M:%S")
    except ValueError:
        return time


def _one_line(text: str) -> str:
    return " ".join(text.split("\n"))
