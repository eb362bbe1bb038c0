"""WindowsRestart and WindowsUpdate: when a restart is over, what a round means, and what never ends."""

from __future__ import annotations

import json

import pytest

from provisioners import windows_restart, windows_update
from provisioners.base import StepError
from provisioners.communicators.base import CommandResult, GuestGone
from provisioners.windows_restart import DEFAULT_COMMAND, WindowsRestart
from provisioners.windows_update import WindowsUpdate
from tests.unit.provisioners.windows_fake import FakeWindows, Running

RESTART = r'shutdown /r /f /t 0 /c "packer restart"'


@pytest.fixture
def windows(monkeypatch) -> FakeWindows:
    monkeypatch.setattr(windows_restart, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(windows_restart, "CHECK_SECONDS", 0.01)
    monkeypatch.setattr(windows_restart, "NO_REBOOT_SECONDS", 0.1)
    monkeypatch.setattr(windows_update, "PAUSE_SECONDS", 0.01)
    guest = FakeWindows()
    guest.on(RESTART, restarts)
    guest.answers("shutdown /a", 1116)
    return guest


def restarts(running: Running) -> CommandResult:
    running.guest.reboot_now()
    return CommandResult(0)


@pytest.mark.parametrize("code", [0, 1115, 1190])
def test_a_restart_is_over_when_another_boot_answers(windows, told, code):
    windows.on(RESTART, lambda running: restarts(running) and CommandResult(code))
    outcome = WindowsRestart().apply(windows, told.context())
    assert (outcome.rebooted, outcome.exit_code) == (True, code)
    assert windows.ran == [DEFAULT_COMMAND]
    assert told.said[-1] == "Machine successfully restarted, moving on"
    assert told.deviations == []


def test_another_exit_code_fails_at_once(windows, told):
    windows.answers(RESTART, 5)
    with pytest.raises(StepError, match="Restart script exited with non-zero exit status: 5") as caught:
        WindowsRestart().apply(windows, told.context())
    assert caught.value.guest_exit_code == 5


def test_a_restart_that_cuts_its_own_command_is_a_restart(windows, told):
    windows.on(RESTART, lambda running: running.guest.reboot_now())
    assert WindowsRestart().apply(windows, told.context()).rebooted


def test_a_failing_check_does_not_fail_the_build(windows, told):
    windows.answers("write-host 'x'", 9009, "not a command\r\n")
    assert WindowsRestart(check_command="write-host 'x'").apply(windows, told.context()).rebooted
    assert told.stdout == b"not a command\r\n"
    assert any("restartCheckCommand ended with exit code 9009" in line for line in told.said)


def test_a_check_that_is_cut_off_runs_again(windows, told):
    results = [CommandResult(None, connection_lost=True), CommandResult(0)]
    windows.on("check", lambda _: results.pop(0))
    WindowsRestart(check_command="check").apply(windows, told.context())
    assert results == []


def test_no_restart_passes_with_a_warning(windows, told):
    windows.answers("echo hi", text="hi\r\n")
    outcome = WindowsRestart("echo hi").apply(windows, told.context())
    assert (outcome.rebooted, told.deviations) == (False, ["no-reboot"])


def test_no_restart_is_an_error_where_one_is_required(windows, told):
    windows.answers("echo hi")
    with pytest.raises(StepError, match="did not restart"):
        WindowsRestart("echo hi", require_reboot=True).apply(windows, told.context())


def test_a_slow_shutdown_is_no_missing_restart(windows, told):
    windows.answers(RESTART, 0)
    asked = []

    def going_down(running):
        asked.append(1)
        if len(asked) == 2:
            running.guest.reboot_now()
        return CommandResult(1115)

    windows.on("shutdown /a", going_down)
    assert WindowsRestart().apply(windows, told.context()).rebooted
    assert told.deviations == []


def test_a_guest_that_never_comes_back(windows, told):
    def run(running):
        running.guest.comes_back = False
        return restarts(running)

    windows.on(RESTART, run)
    with pytest.raises(StepError, match=r"^Timeout waiting for machine to restart\. \(0\.3 s; the hypervisor saw it"):
        WindowsRestart(timeout=0.3).apply(windows, told.context())


def test_a_guest_that_powers_off(windows, told):
    def off():
        raise GuestGone("the build VM has powered off")

    windows.on(RESTART, restarts)
    windows.before_reconnect = off
    with pytest.raises(StepError, match="powered off instead of restarting"):
        WindowsRestart().apply(windows, told.context())


def rounds(windows: FakeWindows, *scripted: tuple[int, dict | None]) -> list[dict]:
    """Each task run takes the next of `scripted`: (exit code, what the round line says); the last repeats."""
    settings = []
    left = list(scripted)

    def run(running: Running) -> CommandResult:
        [path] = [path for path in windows.files if path.endswith(".json")]
        settings.append(json.loads(windows.files[path]))
        code, facts = left.pop(0) if len(left) > 1 else left[0]
        if facts is not None:
            running.say(f"aib-round: {json.dumps(facts)}\r\n")
        if code >= 0:
            running.say(f"Exiting with code {code}\r\n")
        return CommandResult(abs(code))

    windows.on_task = run
    return settings


def test_updates_in_rounds_until_none_is_left(windows, told):
    settings = rounds(windows, (101, {"installed": 2, "failed": []}), (101, {"installed": 1, "failed": []}), (0, None))
    step = WindowsUpdate("IsInstalled=0", ("exclude:$_.Title -like '*Preview*'", "include:$true"), 20)
    assert step.apply(windows, told.context()).rebooted
    assert len(settings) == 3
    assert windows.boot == 3
    assert settings[0]["searchCriteria"] == "IsInstalled=0"
    assert settings[0]["filters"] == ["exclude:$_.Title -like '*Preview*'", "include:$true"]
    assert settings[0]["updateLimit"] == 20
    assert windows.tasks[0]["user"] == "SYSTEM"
    assert windows.leftovers() == []


def test_defaults_are_the_services(windows, told):
    settings = rounds(windows, (0, None))
    assert not WindowsUpdate("", ()).apply(windows, told.context()).rebooted
    assert settings[0]["searchCriteria"] == "BrowseOnly=0 and IsInstalled=0"
    assert settings[0]["filters"] == ["include:$true"]


def test_the_hresult_of_101_is_101(windows, told):
    windows.on_task = None
    left = [0x80070065, 0]

    def run(running):
        running.say("Exiting with code 101\r\n" if len(left) == 2 else "Exiting with code 0\r\n")
        return CommandResult(left.pop(0))

    windows.on_task = run
    assert WindowsUpdate().apply(windows, told.context()).rebooted


def test_updates_that_fail_for_ever_end(windows, told):
    settings = rounds(windows, (101, {"installed": 0, "failed": ["KB5000001"]}))
    with pytest.raises(StepError, match="made no progress in 4 rounds: failed: KB5000001"):
        WindowsUpdate().apply(windows, told.context())
    assert len(settings) == 4


def test_a_restart_that_stays_pending_ends(windows, told):
    rounds(windows, (101, {"pending": True}))
    with pytest.raises(StepError, match="a restart is pending after every restart"):
        WindowsUpdate().apply(windows, told.context())


def test_a_failing_script_says_why_in_the_services_words(windows, told):
    rounds(windows, (1, {"error": "The search failed with 0x8024402C: no server"}))
    with pytest.raises(StepError, match=r"Windows update script exited with non-zero exit status: 1: .*0x8024402C"):
        WindowsUpdate().apply(windows, told.context())


def test_a_script_without_its_last_line_is_tried_again(windows, told):
    settings = rounds(windows, (-5, None), (0, None))
    WindowsUpdate().apply(windows, told.context())
    assert len(settings) == 2
    settings = rounds(windows, (-5, None))
    with pytest.raises(StepError, match="did not come to its end in 5 tries: it ended early with 5"):
        WindowsUpdate().apply(windows, told.context())
    assert len(settings) == 5


def test_a_connection_lost_under_a_round_is_tried_again(windows, told):
    left = [windows.reboot_now, lambda: CommandResult(0)]

    def run(running):
        act = left.pop(0)
        if not left:
            running.say("Exiting with code 0\r\n")
        return act()

    windows.on_task = run
    WindowsUpdate().apply(windows, told.context())
    assert left == []
