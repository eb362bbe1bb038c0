"""A guest whose WinRM service answers badly, late or not at all: a clear end inside its time, nothing run twice, and no
shell left in the guest."""

from __future__ import annotations

import dataclasses
import threading
import time

import pytest

from fixtures.guests.windows.wsman import OPEN, Settings
from hypervisor.deadline import CancelToken, Deadline
from hypervisor.errors import Cancelled, DeadlineExceeded
from provisioners.communicators import winrm
from provisioners.communicators.base import AuthenticationRefused, CommunicatorError, ConnectionLost
from provisioners.communicators.winrm_tls import PinnedCertificate
from tests.contract.test_winrm_communicator import certificate, timedelta
from tests.contract.winrm_bed import Impatient, WinRMBed, pem_files, wait

LARGE = bytes(range(256)) * 4096


@pytest.fixture
def deadline():
    return Deadline.after(30, "the test")


@pytest.fixture(params=["basic", "ntlm"])
def bed(request, tmp_path):
    bed = WinRMBed(tmp_path, auth=request.param)
    yield bed
    bed.cut()


@pytest.fixture
def started(bed):
    """The command lines that the guest started."""
    lines = []
    start = bed.machine.start

    def run(line, *given):
        lines.append(line)
        return start(line, *given)

    bed.machine.start = run
    return lines


def break_off(bed, way: str, kind: str) -> None:
    """The next answer of this kind does not arrive whole; those after it do."""
    getattr(bed.server.trouble, way)[kind] = 1


@pytest.mark.parametrize("way", ["drop", "reset", "short"])
@pytest.mark.parametrize("kind", ["Command", "Send", "Receive"])
def test_an_answer_that_breaks_off_ends_the_command_and_nothing_runs_twice(bed, started, deadline, way, kind):
    guest = bed.connect()
    before = len(started)
    break_off(bed, way, kind)
    result = guest.run("cat; sleep 60", stdin=b"x", deadline=deadline)
    assert (result.exit_code, result.connection_lost) == (None, True)
    guest.close()
    assert bed.server.shells == {}
    wait(lambda: len(started) > before)  # a command whose start was not answered may only just be starting
    assert started[before:] == ["cat; sleep 60"]
    again = bed.connect()
    assert again.run("true", deadline=deadline).exit_code == 0
    again.close()


@pytest.mark.parametrize("way", ["drop", "reset"])
def test_a_goodbye_that_is_not_answered_changes_nothing(bed, deadline, way):
    guest = bed.connect()
    for kind in ("Signal", "Delete"):
        break_off(bed, way, kind)
    assert guest.run("exit 3", deadline=deadline).exit_code == 3
    guest.close()
    assert bed.server.shells == {}


def test_half_a_message_is_an_error_that_says_so(bed, deadline):
    guest = bed.connect()
    bed.server.trouble.half = {"Receive"}
    with pytest.raises(CommunicatorError, match="makes no sense while waiting for a command"):
        guest.run("echo x; sleep 60", deadline=deadline)
    assert bed.server.shells == {}


def test_a_transfer_that_breaks_off_leaves_no_file(bed, deadline, tmp_path):
    bed.write(f"{bed.folder}/there", LARGE)
    guest = bed.connect()
    break_off(bed, "short", "Receive")
    with pytest.raises(ConnectionLost, match="the connection to the guest was lost while fetching"):
        guest.download(f"{bed.folder}/there", tmp_path / "here", deadline=deadline)
    guest.close()
    guest = bed.connect()
    break_off(bed, "drop", "Send")
    with pytest.raises(ConnectionLost, match="the connection to the guest was lost while sending"):
        guest.upload(LARGE, f"{bed.folder}/sent", deadline=deadline)
    guest.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["there"]
    assert bed.server.shells == {}


def test_late_answers_are_waited_for(bed, deadline):
    guest = bed.connect()
    bed.server.trouble.slow = dict.fromkeys(("Create", "Command", "Send", "Receive"), 0.3)
    guest.release()
    assert guest.run("exit 4", stdin=b"x", deadline=deadline).exit_code == 4
    guest.close()
    assert bed.server.shells == {}


def test_the_real_quota_of_commands_is_got_around(bed, deadline, monkeypatch):
    monkeypatch.setattr(winrm, "POLL_SECONDS", 0.01)
    guest = bed.connect()
    bed.server.settings = dataclasses.replace(bed.server.settings, max_operations_per_user=4)
    for number in range(11):
        assert guest.run(f"exit {number}", deadline=deadline).exit_code == number
        assert len(bed.server.shells) == 1
    guest.close()
    assert bed.server.shells == {}
    assert bed.server.requests.count("Create") >= 3


def test_the_real_quota_of_shells_is_waited_for(bed, deadline, monkeypatch):
    monkeypatch.setattr(winrm, "POLL_SECONDS", 0.05)
    bed.server.settings = dataclasses.replace(bed.server.settings, max_shells_per_user=1)
    other = bed.connect()
    other.run("true", deadline=deadline)
    with pytest.raises(
        DeadlineExceeded, match=r"the budget is used up.*: .*refused: .*concurrent shells for this user"
    ):
        bed.connect(deadline=Impatient.after(20, "the budget"))
    threading.Timer(0.3, other.close).start()
    bed.connect().close()
    assert bed.server.shells == {}


@pytest.mark.parametrize("tls", [False, True])
def test_a_listener_that_accepts_and_says_nothing(tmp_path, tls):
    pem = certificate(timedelta(days=-1), timedelta(days=1))
    bed = WinRMBed(tmp_path, tls=pem_files(tmp_path, *pem) if tls else None)
    bed.server.trouble.mute = True
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded, match=r"the budget is used up while waiting for .*says nothing"):
        bed.connect(tls=PinnedCertificate(pem[0].decode()) if tls else None, deadline=Deadline.after(0.5, "the budget"))
    assert time.monotonic() - began < 30  # not the time of a login
    bed.cut()


def test_logins_that_the_listener_does_not_take(tmp_path):
    bed = WinRMBed(tmp_path, auth="basic", settings=Settings())
    with pytest.raises(AuthenticationRefused, match="refused the user packer or its password") as refused:
        bed.connect()
    assert "a listener that does not allow basic logins" in refused.value.hint
    bed.server.settings = Settings(basic=True)  # but not in the clear
    with pytest.raises(DeadlineExceeded, match="answered HTTP 500 and no WS-Management message"):
        bed.connect(deadline=Impatient.after(20, "the budget"))
    bed.server.settings = dataclasses.replace(OPEN, allow_remote_shells=False)
    with pytest.raises(DeadlineExceeded, match="not accept any remote shell requests"):
        bed.connect(deadline=Impatient.after(20, "the budget"))
    assert bed.server.shells == {}
    bed.cut()


def test_the_expired_certificate_of_a_listener_is_told_at_once(tmp_path):
    pem = certificate(timedelta(days=-9), timedelta(days=-1))
    bed = WinRMBed(tmp_path, tls=pem_files(tmp_path, *pem))
    with pytest.raises(CommunicatorError, match="the certificate of the guest's WinRM listener expired on"):
        bed.connect(tls=PinnedCertificate(pem[0].decode()))
    assert (bed.server.requests, bed.server.shells) == ([], {})
    bed.cut()


def test_a_cancelled_command_is_ended_over_any_login(bed, started):
    guest = bed.connect()
    token = CancelToken()
    with pytest.raises(Cancelled):
        guest.run("echo x; sleep 60", deadline=Deadline.after(60, "x", token), output=lambda *_: token.cancel())
    assert bed.server.signals[-2:] == ["ctrl_c", "terminate"]
    assert bed.server.shells == {}


def test_a_command_whose_output_never_comes_ends_with_its_deadline(bed):
    guest = bed.connect()
    bed.server.trouble.silent = {"Receive"}
    before = len(bed.server.requests)

    class Spent(Deadline):
        """Used up as soon as the guest is asked for output."""

        def remaining(self) -> float:
            return 0.0 if "Receive" in bed.server.requests[before:] else super().remaining()

    began = time.monotonic()
    with pytest.raises(DeadlineExceeded, match="the budget is used up while waiting for a command in the guest"):
        guest.run("sleep 60", deadline=Spent.after(30, "the budget"))
    assert time.monotonic() - began < 30  # not that of the command
    assert bed.server.shells == {}


def test_a_shell_that_was_idle_for_too_long_is_made_anew(bed, deadline):
    bed.server.settings = dataclasses.replace(bed.server.settings, idle_timeout_ms=60_000)
    guest = bed.connect()
    [shell] = bed.server.shells.values()
    assert shell.idle_seconds == 60
    start = bed.machine.start

    def run(*given):
        bed.machine.start = start
        wait(lambda: shell.busy)  # until then it may be idle for as long as this machine is slow
        shell.idle_seconds = 0.3
        return start(*given)

    bed.machine.start = run
    assert guest.run("sleep 0.6; exit 5", deadline=deadline).exit_code == 5
    wait(lambda: bed.server.shells == {})
    assert guest.run("exit 6", deadline=deadline).exit_code == 6
    guest.close()
    assert bed.server.shells == {}
