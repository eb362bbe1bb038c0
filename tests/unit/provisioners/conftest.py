"""A Linux guest in memory that knows the few commands which provisioners send, and a script's behaviour by its text."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from hypervisor.deadline import Deadline
from provisioners import reboot
from provisioners.base import Context
from provisioners.communicators.base import CommandResult, CommunicatorError
from provisioners.communicators.memory import Call, MemoryCommunicator, MemoryMachine

Behaviour = Callable[[Call], CommandResult]


@dataclass
class FakeGuest:
    """`provisioners.base.Guest` over a `MemoryMachine`; tests say what a script does and what state it is in."""

    machine: MemoryMachine = field(default_factory=MemoryMachine)
    boot: int = 1
    counted_reboots: int = 0
    state: str = "running"
    left_behind: str = "no"
    scripts: dict[bytes, Behaviour] = field(default_factory=dict)
    reconnects: int = 0
    unreachable: CommunicatorError | None = None
    ran_scripts: list[tuple[str, bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.current: MemoryCommunicator = self.machine.connect()
        machine = self.machine
        machine.on(r"cat /proc/sys/kernel/random/boot_id", self._boot_id)
        machine.on(r"(?P<first>:|rm -f (?P<path>\S+)); s=; if command -v systemctl .*", self._state)
        machine.on(r"if grep -qs '\[s\]cript_\d+\[\.\](?:sh|ps1)' /proc/.*", self._left_behind)
        machine.on(r"(?:chmod \+x (?P<path>\S+); )?(?P<run>.*/tmp/script_\d+\.\w+)", self._script)

    @property
    def communicator(self) -> MemoryCommunicator:
        return self.current

    def reconnect(self, deadline: Deadline) -> None:
        self.current.close()
        self.reconnects += 1
        if self.unreachable is not None:
            raise self.unreachable
        deadline.wait_until(lambda: self.machine.up, "waiting for the guest", 0.01)
        self.current = self.machine.connect()

    def reboots(self) -> int:
        return self.counted_reboots

    def reboot_now(self, *, seen: bool = True) -> CommandResult:
        """The machine starts anew; the connection is gone."""
        self.boot += 1
        self.counted_reboots += seen
        self.machine.files = {name: f for name, f in self.machine.files.items() if not name.startswith("/tmp/")}
        self.current.close()
        return CommandResult(None, connection_lost=True)

    def lose_connection(self) -> CommandResult:
        self.current.close()
        return CommandResult(None, connection_lost=True)

    def _boot_id(self, call: Call) -> CommandResult:
        call.write("stdout", b"boot-%d\n" % self.boot)
        return CommandResult(0)

    def _state(self, call: Call) -> CommandResult:
        if call.match["path"]:
            self.machine.files.pop(call.match["path"], None)
        call.write("stdout", self.state.encode() + b"\n")
        return CommandResult(0)

    def _left_behind(self, call: Call) -> CommandResult:
        call.write("stdout", self.left_behind.encode() + b"\n")
        return CommandResult(0)

    def _script(self, call: Call) -> CommandResult:
        found = re.search(r"/tmp/script_\d+\.\w+$", call.match["run"])
        assert found is not None
        script = self.machine.files[found[0]]
        assert script.mode == 0o755
        self.ran_scripts.append((call.command, script.content))
        return self.scripts.get(script.content, lambda _: CommandResult(0))(call)


@dataclass
class Told:
    """What came through a context's callbacks."""

    stdout: bytes = b""
    stderr: bytes = b""
    said: list[str] = field(default_factory=list)
    deviations: list[str] = field(default_factory=list)

    def context(self, seconds: float = 20) -> Context:
        return Context(
            deadline=Deadline.after(seconds, "the budget"),
            output=self.take,
            say=self.said.append,
            deviation=lambda code, _: self.deviations.append(code),
        )

    def take(self, stream, data):
        setattr(self, stream, getattr(self, stream) + data)


@pytest.fixture
def guest(monkeypatch: pytest.MonkeyPatch) -> FakeGuest:
    """A fake guest, with the waits of the reboot logic shortened."""
    monkeypatch.setattr(reboot, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(reboot, "SAME_BOOT_GRACE_SECONDS", 0.1)
    monkeypatch.setattr(reboot, "FOLLOW_UP_SECONDS", 0.1)
    return FakeGuest()


@pytest.fixture
def told() -> Told:
    return Told()
