"""Large files go by a plugged-in disk, and by the connection whenever that does not come off."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hypervisor.deadline import Deadline
from hypervisor.errors import HostError
from provisioners import by_disk
from provisioners.communicators.base import CommandResult, ConnectionLost
from provisioners.file import File
from tests.unit.provisioners.conftest import FakeGuest

CONTENT = b"payload" * 1_000_000  # one whole block and a rest


class LendingGuest(FakeGuest):
    """A guest that copies what is lent to it, or ends the copying with another exit code."""

    lent: list[tuple[Path, str]]
    plugged: int = 0
    code: int = 0
    refuses: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.lent = []
        self.machine.on(r"disk=\n(?P<rest>(?:.|\n)*)", self._copy)

    @contextmanager
    def lend(self, file: Path, serial: str, deadline: Deadline) -> Iterator[None]:
        deadline.check()
        if self.refuses:
            raise HostError("no free port")
        self.lent.append((file, serial))
        self.plugged += 1
        try:
            yield
        finally:
            self.plugged -= 1

    def _copy(self, call) -> CommandResult:
        file, serial = self.lent[-1]
        assert self.plugged == 1
        assert f"= {serial} ]" in call.command
        if self.code == 0:
            blocks, rest, target = re.search(
                r"count=(\d+) iflag=fullblock,direct(?:.|\n)*count=(\d+) iflag=count_bytes.*>(\S+) \|\|",
                call.command,
            ).groups()
            self.machine.write(target, file.read_bytes()[: int(blocks) * 4 * 1024 * 1024 + int(rest)], None)
        return CommandResult(self.code)


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setattr(by_disk, "WORTH_IT", len(CONTENT))
    path = tmp_path / "app.bin"
    path.write_bytes(CONTENT)
    return path


def arrived(guest: FakeGuest) -> bytes:
    return guest.machine.files["/tmp/app.bin"].content


def test_a_large_file_goes_by_a_disk(told, source, monkeypatch):
    guest = LendingGuest()
    monkeypatch.setattr(guest.current, "upload", lambda *_, **__: pytest.fail("sent over the connection"))
    File(source, "/tmp/app.bin").apply(guest, told.context())
    assert (arrived(guest), guest.plugged) == (CONTENT, 0)
    assert [file for file, _ in guest.lent] == [source]
    assert told.deviations == ["file-by-disk"]


def test_a_small_file_does_not(told, source, monkeypatch):
    monkeypatch.setattr(by_disk, "WORTH_IT", len(CONTENT) + 1)
    guest = LendingGuest()
    File(source, "/tmp/app.bin").apply(guest, told.context())
    assert (arrived(guest), guest.lent) == (CONTENT, [])


@pytest.mark.parametrize("code", [44, 45, 1])
def test_what_the_guest_cannot_copy_is_sent_over_the_connection(told, source, code):
    guest = LendingGuest()
    guest.code = code
    File(source, "/tmp/app.bin").apply(guest, told.context())
    assert (arrived(guest), guest.plugged) == (CONTENT, 0)


def test_a_machine_that_takes_no_disk_gets_it_over_the_connection(told, source):
    guest = LendingGuest()
    guest.refuses = True
    File(source, "/tmp/app.bin").apply(guest, told.context())
    assert arrived(guest) == CONTENT


def test_a_guest_that_goes_away_meanwhile_gets_it_after_its_reboot(told, source):
    guest = LendingGuest()
    copy = guest._copy
    calls = []

    def lost_once(call):
        calls.append(call)
        if len(calls) == 1:
            raise ConnectionLost("it rebooted")
        return copy(call)

    guest.machine.on(r"disk=\n(?P<rest>(?:.|\n)*)", lost_once)
    File(source, "/tmp/app.bin").apply(guest, told.context())
    assert (len(calls), arrived(guest), guest.plugged) == (2, CONTENT, 0)
