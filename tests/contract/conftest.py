"""The guests that the contract suite runs over: a real SSH server in this process, and the in-memory one."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from fixtures.guests.windows.server import Served
from provisioners.communicators.base import CommandResult, Communicator
from provisioners.communicators.memory import Call, MemoryFile, MemoryMachine
from provisioners.identity import BuildIdentity
from tests.contract.ssh_bed import SshBed, SshServer
from tests.contract.winrm_bed import WinRMBed
from tests.contract.wsman_client import Client
from tests.unit.conftest import web  # noqa: F401 -- a fixture is used by its name


class MemoryBed:
    """The suite's view of the in-memory guest: it is taught the suite's commands, to the letter."""

    kind = "memory"

    def __init__(self) -> None:
        self.machine = MemoryMachine()
        self.folder = "/tmp"
        teach(self.machine)

    def connect(self) -> Communicator:
        self.machine.up = True
        return self.machine.connect()

    def cut(self) -> None:
        self.machine.up = False

    def fill(self, left: int) -> None:
        self.machine.capacity = left

    def read(self, path: str) -> bytes:
        return self.machine.files[path].content

    def write(self, path: str, content: bytes) -> None:
        self.machine.files[path] = MemoryFile(content)

    def mode(self, path: str) -> int:
        return self.machine.files[path].mode

    def make_folder(self, path: str) -> None:
        self.machine.folders[path] = "packer"


COMMANDS = {
    "both streams": r"printf 'a\000\377b'; printf 'oops\n' >&2; printf c",
    "exit 7": "exit 7",
    "cat": "cat",
    "read": 'read answer; echo "read said $?"',
    "kill itself": "kill -9 $$",
    "sleep": "echo started; sleep 60",
    "2 MB": "head -c 2000000 /dev/zero | tr '\\0' x",
    "not there": "no-such-command-here",
}


def teach(machine: MemoryMachine) -> None:
    """What the suite's commands do, for the guest that has no shell."""

    def both(call: Call) -> CommandResult:
        call.write("stdout", b"a\0\xffb")
        call.write("stderr", b"oops\n")
        call.write("stdout", b"c")
        return CommandResult(0)

    def cat(call: Call) -> CommandResult:
        call.write("stdout", call.stdin)
        return CommandResult(0)

    def sleep(call: Call) -> CommandResult:
        call.write("stdout", b"started\n")
        return call.wait(60) or CommandResult(0)

    def big(call: Call) -> CommandResult:
        for _ in range(20):
            call.write("stdout", b"x" * 100_000)
        return CommandResult(0)

    actions: dict[str, Callable[[Call], CommandResult]] = {
        "both streams": both,
        "exit 7": lambda _: CommandResult(7),
        "cat": cat,
        "kill itself": lambda _: CommandResult(None, signal="KILL"),
        "sleep": sleep,
        "2 MB": big,
        "not there": lambda _: CommandResult(127),
    }
    for name, action in actions.items():
        machine.on(re.escape(COMMANDS[name]), action)
    machine.answers(re.escape(COMMANDS["read"]), b"read said 1\n")


@pytest.fixture(scope="session")
def identity() -> BuildIdentity:
    return BuildIdentity.create()


@pytest.fixture
def ssh_server(tmp_path: Path, identity: BuildIdentity) -> Iterator[SshServer]:
    server = SshServer(tmp_path, identity)
    yield server
    server.close()


@pytest.fixture(params=["ssh", "winrm", "memory"])
def bed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SshBed | WinRMBed | MemoryBed]:
    """A guest to connect to."""
    if request.param == "memory":
        yield MemoryBed()
    elif request.param == "winrm":
        guest = WinRMBed(tmp_path)
        yield guest
        guest.cut()
    else:
        yield SshBed(request.getfixturevalue("ssh_server"))


@pytest.fixture
def commands() -> dict[str, str]:
    """Command lines by what they are for."""
    return COMMANDS


@pytest.fixture
def ssh_bed(ssh_server: SshServer) -> SshBed:
    """The guest behind SSH alone, for what only a network has."""
    return SshBed(ssh_server)


@pytest.fixture
def wait_for() -> Callable[[Callable[[], bool]], None]:
    """Wait for something that another thread does."""

    def wait(ready: Callable[[], bool]) -> None:
        end = time.monotonic() + 20
        while not ready():
            assert time.monotonic() < end, "it did not happen within 20 s"
            time.sleep(0.01)

    return wait


def files_with(home: Path, text: bytes) -> list[Path]:
    """The files below `home` that hold `text`, while others go away: SQLite's, and those of a run."""
    found = []
    for folder, _, names in os.walk(home):
        for path in (Path(folder, name) for name in names):
            with suppress(FileNotFoundError):
                if path.is_file() and text in path.read_bytes():
                    found.append(path)
    return found


@pytest.fixture(scope="session")
def token_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp() / "entra.pem"  # one for all servers: to make one takes a while


@pytest.fixture
def client(served: Served) -> Client:
    """A client of the WS-Management server that the test's module serves."""
    return Client(served.port)


@pytest.fixture
def closed_clients() -> Iterator[None]:
    """Close every client that the test made."""
    yield
    while Client.made:
        Client.made.pop().close()
