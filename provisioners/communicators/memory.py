"""An in-memory guest, as strict as a real one: what it was not told, it does not know, and it says so loudly.

The tests of provisioners use it, and a dry run may. It has a small file system with owners and modes, and a table of
commands; one contract suite runs over it and over the SSH communicator.
"""

from __future__ import annotations

import posixpath
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from hypervisor.deadline import Deadline
from provisioners.communicators.base import CommandResult, CommunicatorError, ConnectionLost, OutputCallback, Stream

POLL_SECONDS = 0.01


class UnknownCommandError(AssertionError):
    """A command that nobody taught this guest: the test, or the provisioner, is wrong."""


@dataclass(slots=True)
class MemoryFile:
    """Content, permission bits and owner of a file."""

    content: bytes
    mode: int = 0o644
    owner: str = "packer"


@dataclass(slots=True)
class MemoryMachine:
    """The guest behind any number of connections: it keeps its files while connections come and go."""

    user: str = "packer"
    files: dict[str, MemoryFile] = field(default_factory=dict)
    folders: dict[str, str] = field(default_factory=lambda: {"/": "root", "/tmp": "", "/home/packer": "packer"})
    """Path to owner; "" is writable by everybody."""
    capacity: int = 1 << 30
    """Bytes that fit on its disk."""
    commands: list[tuple[re.Pattern[str], Command]] = field(default_factory=list)
    ran: list[str] = field(default_factory=list)
    up: bool = True

    def on(self, pattern: str, command: Command) -> None:
        """Teach a command: `pattern` must match the whole line; what was taught last wins."""
        self.commands.insert(0, (re.compile(pattern, re.DOTALL), command))

    def answers(self, pattern: str, stdout: bytes = b"", *, exit_code: int = 0, stderr: bytes = b"") -> None:
        """Teach a command that prints and exits."""

        def command(call: Call) -> CommandResult:
            call.write("stdout", stdout)
            call.write("stderr", stderr)
            return CommandResult(exit_code)

        self.on(pattern, command)

    def connect(self) -> MemoryCommunicator:
        """A new connection; `ConnectionLost` while the machine is down."""
        if not self.up:
            raise ConnectionLost("the in-memory guest is down")
        return MemoryCommunicator(self)

    def write(self, path: str, content: bytes, mode: int | None) -> None:
        """Write as the login user; raises `CommunicatorError` as SFTP does."""
        if not path.startswith("/"):
            raise UnknownCommandError(f"upload to {path!r}, which is not a full path")
        folder = posixpath.dirname(path)
        known = self.files.get(path)
        if folder not in self.folders:
            raise CommunicatorError(f"cannot write {path} in the guest: the folder {folder} does not exist")
        if path in self.folders:
            raise CommunicatorError(f"cannot write {path} in the guest: it is a folder")
        owner = known.owner if known is not None else self.folders[folder]
        if owner not in {"", self.user} and not (known is not None and known.mode & 0o002):
            raise CommunicatorError(f"cannot write {path} in the guest: permission denied for the login user")
        used = sum(len(file.content) for name, file in self.files.items() if name != path)
        if used + len(content) > self.capacity:
            raise CommunicatorError(f"cannot write {path} in the guest: no space left on the guest's disk")
        kept = known.mode if known is not None else 0o644
        self.files[path] = MemoryFile(content, kept if mode is None else mode, self.user)


@dataclass(slots=True)
class Call:
    """One running command, as its implementation in the table sees it."""

    machine: MemoryMachine
    command: str
    stdin: bytes
    deadline: Deadline
    interrupted: Callable[[], bool]
    output: OutputCallback | None
    match: re.Match[str]

    def write(self, stream: Stream, data: bytes) -> None:
        """Print."""
        if data and self.output is not None:
            self.output(stream, data)

    def wait(self, seconds: float) -> CommandResult | None:
        """Take time; the result of a lost connection when the guest goes away meanwhile, else None."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.interrupted() or not self.machine.up:
                return CommandResult(None, connection_lost=True)
            self.deadline.pause(POLL_SECONDS, "waiting for a command in the guest")
        return None


Command = Callable[[Call], CommandResult]


class MemoryCommunicator:
    """A connection to a `MemoryMachine`."""

    def __init__(self, machine: MemoryMachine) -> None:
        self.machine = machine
        self._open = True

    def run(
        self,
        command: str,
        *,
        deadline: Deadline,
        output: OutputCallback | None = None,
        stdin: bytes = b"",
        interrupted: Callable[[], bool] | None = None,
    ) -> CommandResult:
        """See `Communicator.run`; a command that is not in the table raises `UnknownCommandError`."""
        deadline.check("starting a command in the guest")
        self._require()
        self.machine.ran.append(command)
        for pattern, action in self.machine.commands:
            if match := pattern.fullmatch(command):
                call = Call(self.machine, command, stdin, deadline, interrupted or (lambda: False), output, match)
                result = action(call)
                self._open = self._open and not result.connection_lost
                return result
        raise UnknownCommandError(f"the in-memory guest does not know: {command}")

    def upload(self, source: Path | bytes, destination: str, *, mode: int | None = None, deadline: Deadline) -> None:
        """See `Communicator.upload`."""
        deadline.check(f"sending {destination}")
        self._require()
        self.machine.write(destination, source if isinstance(source, bytes) else source.read_bytes(), mode)

    def download(self, source: str, destination: Path, *, deadline: Deadline) -> None:
        """See `Communicator.download`."""
        deadline.check(f"fetching {source}")
        self._require()
        if source not in self.machine.files:
            raise CommunicatorError(f"{source} does not exist in the guest")
        destination.write_bytes(self.machine.files[source].content)

    def alive(self) -> bool:
        """Whether the connection still stands."""
        return self._open and self.machine.up

    def close(self) -> None:
        """Close the connection; safe to call twice."""
        self._open = False

    def _require(self) -> None:
        if not self.alive():
            self._open = False
            raise ConnectionLost("the connection to the in-memory guest is gone")
