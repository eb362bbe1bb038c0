"""A Windows guest (`fixtures/guests/windows`) in this process, reached by the real WinRM communicator: what
provisioners see of a build VM."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fixtures.guests.windows.machine import ACCOUNT, Windows
from fixtures.guests.windows.server import Served, running
from hypervisor.deadline import Deadline
from provisioners.base import Context
from provisioners.communicators.base import GuestGone
from provisioners.communicators.winrm import WinRMCommunicator
from provisioners.communicators.winrm_connect import connect
from provisioners.communicators.winrm_transfers import UploadWay

USER, PASSWORD = ACCOUNT
TEMP = "C:\\Windows\\Temp"


def login(port: int, deadline: Deadline, upload: UploadWay = "stdin") -> WinRMCommunicator:
    """A connection as the build account."""
    return connect(
        "127.0.0.1", port, user=USER, password=PASSWORD, tls=None, auth="basic", deadline=deadline, patience=0,
        upload=upload,
    )  # fmt: skip


@dataclass
class Bed:
    """`provisioners.base.Guest`. With `hypervisor` it counts reboots; without, provisioners have to see them."""

    windows: Windows
    served: Served
    current: WinRMCommunicator
    hypervisor: bool = True

    @property
    def communicator(self) -> WinRMCommunicator:
        return self.current

    def reconnect(self, deadline: Deadline) -> None:
        if "shutdown" in self.served.power:
            raise GuestGone("the build VM has powered off")
        self.current.close()
        self.current = login(self.served.port, deadline)

    def reboots(self) -> int:
        if not self.hypervisor:
            return 0
        still_up = self.served.up.is_set() and self.windows.down
        return self.served.power.count("restart") - still_up

    def leftovers(self) -> list[str]:
        """What is left in the guest's Temp folder."""
        return self.windows.files.names(TEMP)

    def script(self) -> str:
        """The text of the last user script."""
        return [each.text for each in self.windows.scripts if "\\script-" in each.path][-1]


@contextmanager
def bed(folder: Path, *, hypervisor: bool = True) -> Iterator[Bed]:
    """A guest with a connection. Afterwards nothing may be left that it did not know, no shell, no task."""
    windows = Windows(folder)
    with running(windows) as served:
        made = Bed(windows, served, login(served.port, Deadline.after(20, "the test")), hypervisor)
        try:
            yield made
        finally:
            made.current.close()
        if not windows.down:
            assert served.shells == {}, "a shell was left open"
    windows.settle()
    assert windows.unknown == []
    assert list(windows.tasks.table) == []


@dataclass
class Told:
    """What came through a context's callbacks."""

    stdout: bytes = b""
    stderr: bytes = b""
    said: list[str] = field(default_factory=list)
    deviations: list[str] = field(default_factory=list)

    def context(self, seconds: float = 30, deadline: Deadline | None = None) -> Context:
        return Context(
            deadline=deadline or Deadline.after(seconds, "the budget"),
            output=self.take,
            say=self.said.append,
            deviation=lambda code, _: self.deviations.append(code),
            user=USER,
            password=PASSWORD,
        )

    def take(self, stream: str, data: bytes) -> None:
        setattr(self, stream, getattr(self, stream) + data)
