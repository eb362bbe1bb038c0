"""WindowsRestart on the guest of our own: when a restart is over, what passes without one, and what never ends."""

from __future__ import annotations

import pytest

from provisioners import windows_guest, windows_restart
from provisioners.base import StepError
from provisioners.communicators import winrm_connect
from provisioners.windows_powershell import WindowsPowerShell
from provisioners.windows_restart import DEFAULT_COMMAND, WindowsRestart
from tests.contract.windows_bed import Told, bed


@pytest.fixture
def guest(request, tmp_path, monkeypatch):
    """With a hypervisor that counts reboots, or without (`both`): then the guest's own boot tells."""
    monkeypatch.setattr(winrm_connect, "PAUSE_SECONDS", 0.1)
    monkeypatch.setattr(windows_guest, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(windows_restart, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(windows_restart, "CHECK_SECONDS", 0.1)
    with bed(tmp_path / "guest", hypervisor=getattr(request, "param", True)) as made:
        yield made


@pytest.fixture
def impatient(monkeypatch):
    """For guests that do not restart soon. Elsewhere it stays a minute, as a restart may begin late on a slow host."""
    monkeypatch.setattr(windows_restart, "NO_REBOOT_SECONDS", 1.0)


both = pytest.mark.parametrize("guest", [True, False], ids=["hypervisor", "alone"], indirect=True)


@pytest.fixture
def told():
    return Told()


def lines(guest) -> list[str]:
    """What ran, without our questions."""
    return [
        line for _, line in guest.windows.executed if "EncodedCommand" not in line and "WinRM connected." not in line
    ]


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (DEFAULT_COMMAND, 0),
        ("shutdown /r /f /t 0 & shutdown /r /f /t 0", 1115),
        ("shutdown /r /t 1 & shutdown /r /t 1", 1190),
        ("powershell -Command Restart-Computer -Force", 0),
    ],
)
def test_a_restart_is_over_when_another_boot_answers(guest, told, command, code):
    outcome = WindowsRestart(command).apply(guest, told.context())
    assert (outcome.rebooted, outcome.exit_code) == (True, code)
    assert lines(guest) == [command]
    assert guest.windows.boots == 2
    assert told.said[-1] == "Machine successfully restarted, moving on"
    assert told.deviations == []


def test_another_exit_code_fails_at_once(guest, told):
    guest.windows.faults.shutdown_refused = 5
    with pytest.raises(StepError, match="Restart script exited with non-zero exit status: 5") as caught:
        WindowsRestart().apply(guest, told.context())
    assert caught.value.guest_exit_code == 5
    assert guest.windows.boots == 1


def test_a_restart_that_cuts_its_own_command_is_a_restart(guest, told):
    assert WindowsRestart("shutdown /r /t 0 & ping -n 60 127.0.0.1").apply(guest, told.context()).rebooted


def test_a_check_that_succeeds_is_shown(guest, told):
    WindowsRestart(check_command="echo back on %COMPUTERNAME%").apply(guest, told.context())
    assert told.stdout == b"back on WIN-STANDIN\r\n"


def test_a_failing_check_does_not_fail_the_build(guest, told):
    assert WindowsRestart(check_command="write-host 'x'").apply(guest, told.context()).rebooted
    assert b"'write-host' is not recognized" in told.stderr
    assert any("restartCheckCommand ended with exit code 1 " in line for line in told.said)


@both
def test_a_check_that_is_cut_off_runs_again(guest, told):
    check = "if exist c:\\once (echo again) else (echo x>c:\\once & shutdown /r /t 0 & ping -n 60 127.0.0.1)"
    WindowsRestart(check_command=check).apply(guest, told.context())
    assert told.stdout.endswith(b"again\r\n")
    assert guest.windows.boots == 3


@both
@pytest.mark.usefixtures("impatient")
def test_no_restart_passes_with_a_warning(guest, told):
    outcome = WindowsRestart("echo hi").apply(guest, told.context())
    assert (outcome.rebooted, told.deviations) == (False, ["no-reboot"])
    assert guest.windows.boots == 1


@pytest.mark.usefixtures("impatient")
def test_no_restart_is_an_error_where_one_is_required(guest, told):
    with pytest.raises(StepError, match="did not restart"):
        WindowsRestart("echo hi", require_reboot=True).apply(guest, told.context())


@both
@pytest.mark.usefixtures("impatient")
def test_a_slow_shutdown_is_no_missing_restart(guest, told):
    guest.windows.faults.shutdown_seconds = 3.0
    assert WindowsRestart().apply(guest, told.context()).rebooted
    assert "shutdown /a" in lines(guest)
    assert told.deviations == []


@both
def test_a_guest_that_never_comes_back(guest, told):
    guest.served.trouble.comes_back = False
    seen = "saw it" if guest.hypervisor else "saw no"
    with pytest.raises(StepError, match=rf"^Timeout waiting for machine to restart\. \(3 s; the hypervisor {seen}"):
        WindowsRestart(timeout=3).apply(guest, told.context())


def test_a_guest_that_comes_back_late(guest, told):
    guest.served.trouble.down_seconds = 2.0
    assert WindowsRestart(timeout=20).apply(guest, told.context()).rebooted


def test_a_guest_that_powers_off(guest, told):
    with pytest.raises(StepError, match="powered off instead of restarting"):
        WindowsRestart("shutdown /s /t 0").apply(guest, told.context())


@both
def test_a_restart_loop_ends_in_time(guest, told):
    loop = guest.windows.tasks.register(
        "loop", user="SYSTEM", command="shutdown", arguments="/r /t 0", triggers=["boot"]
    )
    with pytest.raises(StepError, match=r"^Timeout waiting for machine to restart\."):
        WindowsRestart(check_command="ping -n 60 127.0.0.1", timeout=5).apply(guest, told.context())
    assert guest.windows.boots > 2
    guest.served.cut()  # first: a boot looks for its tasks
    guest.windows.tasks.delete(loop)


def test_a_script_in_a_restart_loop_is_cut_off(guest, told):
    loop = guest.windows.tasks.register(
        "loop", user="SYSTEM", command="shutdown", arguments="/r /t 1", triggers=["boot"]
    )
    WindowsRestart().apply(guest, told.context())
    with pytest.raises(StepError, match=r"16001|could not be started"):
        WindowsPowerShell.inline(["Start-Sleep 60"]).apply(guest, told.context())
    guest.served.cut()
    guest.windows.tasks.delete(loop)
