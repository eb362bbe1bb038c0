"""A Windows guest in memory: it knows our payloads by name, scripts by their text, and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from provisioners import windows_payloads
from provisioners.communicators.base import CommandResult, CommunicatorError, ConnectionLost

Run = Callable[["Running"], CommandResult]
PAYLOADS = {windows_payloads.command(name): name for name in ("boot-id.ps1", "image-state.ps1", "absent-services.ps1")}


@dataclass
class Running:
    """One command, as its behaviour sees it; `settings` is the line of JSON on its standard input."""

    guest: FakeWindows
    command: str
    stdin: bytes
    deadline: Any
    output: Any
    interrupted: Any

    @property
    def settings(self) -> dict[str, Any]:
        return json.loads(self.stdin)

    def say(self, text: str, stream: str = "stdout") -> None:
        if self.output is not None and text:
            self.output(stream, text.encode())

    def wait(self) -> CommandResult:
        while not (self.interrupted and self.interrupted()) and self.guest.up:
            self.deadline.pause(0.01, "waiting for a command in the guest")
        return CommandResult(None, connection_lost=True)


@dataclass
class FakeWindows:
    """`provisioners.base.Guest`, its machine and its communicator in one."""

    boot: int = 1
    counted_reboots: int = 0
    up: bool = True
    files: dict[str, bytes] = field(default_factory=dict)
    folders: set[str] = field(default_factory=lambda: {"c:", "c:/windows/temp"})
    commands: list[tuple[re.Pattern[str], Run]] = field(default_factory=list)
    ran: list[str] = field(default_factory=list)
    tasks: list[dict[str, Any]] = field(default_factory=list)
    image_state: str = "IMAGE_STATE_COMPLETE"
    sysprep: bool = False
    absent: tuple[str, ...] = ()
    on_task: Run = lambda running: CommandResult(0)
    open: bool = True
    released: int = 0
    comes_back: bool = True
    before_reconnect: Callable[[], None] = lambda: None

    def on(self, pattern: str, run: Run) -> None:
        """Teach a command line; what was taught last wins."""
        self.commands.insert(0, (re.compile(pattern, re.DOTALL), run))

    def answers(self, pattern: str, code: int = 0, text: str = "") -> None:
        def run(running: Running) -> CommandResult:
            running.say(text)
            return CommandResult(code)

        self.on(pattern, run)

    def reboot_now(self, *, seen: bool = True) -> CommandResult:
        self.boot += 1
        self.counted_reboots += seen
        self.open = False
        return CommandResult(None, connection_lost=True)

    # The guest
    @property
    def communicator(self) -> FakeWindows:
        return self

    def reconnect(self, deadline) -> None:
        self.before_reconnect()
        while not (self.up and self.comes_back):
            deadline.pause(0.01, "waiting for the guest's WinRM service")
        self.open = True

    def reboots(self) -> int:
        return self.counted_reboots

    # The communicator
    def alive(self) -> bool:
        return self.open and self.up

    def close(self) -> None:
        self.open = False

    def release(self) -> None:
        self.released += 1

    def sibling(self) -> FakeWindows:
        return Sibling(self)

    def run(self, command, *, deadline, output=None, stdin=b"", interrupted=None) -> CommandResult:
        if not self.alive():
            raise ConnectionLost("the connection to the guest is gone")
        running = Running(self, command, stdin, deadline, output, interrupted)
        if name := PAYLOADS.get(command):
            return self._payload(name, running)
        self.ran.append(command)
        for pattern, run in self.commands:
            if pattern.fullmatch(command):
                return run(running)
        if command.startswith("del /f /q "):
            for path in re.findall(r'"([^"]+)"', command):
                self.files.pop(self.key(path), None)
            return CommandResult(0)
        if "packer-elevated-shell-" in command:
            assert self.key(command.rsplit(" ", 1)[1]) in self.files
            self.tasks.append(running.settings)
            return self.on_task(running)
        raise AssertionError(f"the fake guest does not know: {command}")

    def _payload(self, name: str, running: Running) -> CommandResult:
        match name:
            case "boot-id.ps1":
                running.say(f"boot-{self.boot}\r\n")
            case "image-state.ps1":
                running.say(json.dumps({"state": self.image_state, "sysprep": self.sysprep}) + "\r\n")
            case "absent-services.ps1":
                names = running.settings["names"]
                running.say("".join(f"{each}\r\n" for each in names if each in self.absent))
        return CommandResult(0)

    def upload(self, source, destination, *, mode=None, deadline) -> None:
        if not self.alive():
            raise ConnectionLost("the connection to the guest is gone")
        key = self.key(destination)
        if key.rpartition("/")[0] not in self.folders:
            raise CommunicatorError(f"cannot write {destination} in the guest: the folder x does not exist")
        self.files[key] = source if isinstance(source, bytes) else Path(source).read_bytes()

    def download(self, source, destination, *, deadline) -> None:
        if self.key(source) not in self.files:
            raise CommunicatorError(f"{source} does not exist in the guest")
        destination.write_bytes(self.files[self.key(source)])

    @staticmethod
    def key(path: str) -> str:
        return path.replace("\\", "/").lower()

    def leftovers(self) -> list[str]:
        """What is left in the guest's Temp folder."""
        return sorted(path for path in self.files if path.startswith("c:/windows/temp/"))


class Sibling:
    """A second connection."""

    def __init__(self, guest: FakeWindows) -> None:
        self.guest = guest

    def run(self, command, **given) -> CommandResult:
        return self.guest.run(command, **given)

    def release(self) -> None: ...

    def sibling(self) -> Sibling:
        return self

    def close(self) -> None: ...
