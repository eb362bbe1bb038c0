"""WindowsUpdate on the guest of our own: our script's rounds against an update server with scripted updates."""

from __future__ import annotations

import json

import pytest

from provisioners import windows_guest, windows_restart, windows_update
from provisioners.base import StepError
from provisioners.communicators import winrm_connect
from provisioners.windows_update import WindowsUpdate
from tests.contract.windows_bed import Told, bed


@pytest.fixture
def guest(tmp_path, monkeypatch):
    monkeypatch.setattr(winrm_connect, "PAUSE_SECONDS", 0.1)
    monkeypatch.setattr(windows_guest, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(windows_restart, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(windows_update, "PAUSE_SECONDS", 0.01)
    with bed(tmp_path / "guest") as made:
        made.windows.haste = 50.0
        yield made


@pytest.fixture
def told():
    return Told()


def runs(guest) -> int:
    """How often the script ran."""
    return sum("windows-update" in script.path for script in guest.windows.scripts)


def test_updates_in_rounds_until_none_is_left(guest, told):
    offer = guest.windows.updates.offer
    for number in (1, 2, 3):
        offer(f"2020-01 Cumulative Update (KB500000{number})")
    offer("2020-02 Preview (KB5000004)")
    offer("2020-03 Servicing (KB5000005)", needs=["2020-01 Cumulative Update (KB5000003)"], reboot=False)
    offer("Already there (KB5000006)", installed=True)
    step = WindowsUpdate("IsInstalled=0", ("exclude:$_.Title -like '*Preview*'", "include:$true"), 2)
    assert step.apply(guest, told.context(60)).rebooted
    assert guest.windows.updates.installed() == [
        "2020-01 Cumulative Update (KB5000001)", "2020-01 Cumulative Update (KB5000002)",
        "2020-01 Cumulative Update (KB5000003)", "2020-03 Servicing (KB5000005)", "Already there (KB5000006)",
    ]  # fmt: skip
    assert runs(guest) == 4  # two, one, the servicing one, none
    assert guest.windows.boots == 4
    text = told.stdout.decode()
    assert "Searching for Windows updates (IsInstalled=0)..." in text
    assert "Skipped (filter): 2020-02 Preview (KB5000004)" in text
    assert "Found: 2020-01 Cumulative Update (KB5000001) (50 MB)" in text
    assert text.count("Taking 2 of them, the limit of one round") == 1
    assert text.rstrip().endswith("Exiting with code 0")
    assert {script.user for script in guest.windows.scripts if "windows-update" in script.path} == {"SYSTEM"}
    assert guest.leftovers() == []


def test_the_first_filter_that_matches_decides(guest, told):
    offer = guest.windows.updates.offer
    offer("Defender (KB1)", reboot=False, severity="Critical")
    offer("Driver (KB2)", reboot=False, kind="Driver")
    offer("Big (KB3)", reboot=False, size=900 << 20)
    filters = ("exclude:$_.MaxDownloadSize -gt 100MB", "include:$_.MsrcSeverity -eq 'Critical'", "exclude:$true")
    WindowsUpdate("IsInstalled=0", filters).apply(guest, told.context(60))
    assert guest.windows.updates.installed() == ["Defender (KB1)"]


def test_defaults_are_the_services(guest, told):
    guest.windows.updates.offer("Optional (KB1)", browse_only=True)
    assert not WindowsUpdate("", ()).apply(guest, told.context()).rebooted
    assert guest.windows.updates.installed() == []
    assert b"Searching for Windows updates (BrowseOnly=0 and IsInstalled=0)..." in told.stdout
    assert b"No Windows updates found" in told.stdout


def test_the_hresult_of_101_is_101(guest, told):
    guest.windows.faults.task_hresults = True
    guest.windows.updates.offer("One (KB1)")
    assert WindowsUpdate().apply(guest, told.context(60)).rebooted
    assert guest.windows.updates.installed() == ["One (KB1)"]


def test_a_pending_restart_comes_before_the_search(guest, told):
    guest.windows.updates.require_restart()
    assert WindowsUpdate().apply(guest, told.context(60)).rebooted
    assert told.stdout.index(b"A restart is pending") < told.stdout.index(b"Searching")
    assert guest.windows.boots == 2


def test_an_update_that_fails_once_is_tried_again(guest, told):
    guest.windows.updates.offer("Flaky (KB1)", fails=1)
    WindowsUpdate().apply(guest, told.context(60))
    assert guest.windows.updates.installed() == ["Flaky (KB1)"]
    assert b"Failed: Flaky (KB1) (result 4, 0x80240022)" in told.stdout


def test_updates_that_fail_for_ever_end(guest, told):
    guest.windows.updates.offer("Broken (KB5000001)", fails=-1)
    with pytest.raises(StepError, match=r"made no progress in 4 rounds: failed: Broken \(KB5000001\)"):
        WindowsUpdate().apply(guest, told.context(90))
    assert runs(guest) == 4


def test_a_download_with_errors_restarts_and_is_tried_again(guest, told):
    guest.windows.updates.offer("Half (KB1)", download=3)
    WindowsUpdate().apply(guest, told.context(60))
    assert b"The download succeeded with errors" in told.stdout
    assert guest.windows.updates.installed() == ["Half (KB1)"]


def test_a_download_that_fails_says_so(guest, told):
    guest.windows.updates.offer("Gone (KB1)", download=4)
    with pytest.raises(StepError, match=r"non-zero exit status: 1: The download of Gone \(KB1\) failed with 0x"):
        WindowsUpdate().apply(guest, told.context(60))
    assert told.stdout.count(b"result code 4") == 6  # five attempts, and the last word


def test_a_restart_that_stays_pending_ends(guest, told):
    guest.windows.faults.pending_for_ever = True
    with pytest.raises(StepError, match="a restart is pending after every restart"):
        WindowsUpdate().apply(guest, told.context(90))


def test_a_failing_search_says_why_in_the_services_words(guest, told):
    guest.windows.faults.search_fails = -1
    with pytest.raises(StepError, match=r"Windows update script exited with non-zero exit status: 1: .*0x8024402C"):
        WindowsUpdate().apply(guest, told.context(60))
    assert told.stdout.count(b"(attempt ") == 5


def test_a_search_that_fails_once_is_tried_again(guest, told):
    guest.windows.faults.search_fails = 1
    WindowsUpdate().apply(guest, told.context(60))
    assert b"(attempt 1 of 5)" in told.stdout


@pytest.mark.parametrize(
    ("criteria", "filters", "words"),
    [
        ("Nonsense=1", ("include:$true",), "The search failed with 0x80240032"),
        ("IsInstalled=0", ("only:$true",), "must begin with include: or exclude:"),
        ("IsInstalled=0", ("include:$_.Title -like (",), "The update script failed with 0x"),
    ],
)
def test_bad_settings_are_said(guest, told, criteria, filters, words):
    guest.windows.updates.offer("One (KB1)")
    with pytest.raises(StepError, match="non-zero exit status: 1") as caught:
        WindowsUpdate(criteria, filters).apply(guest, told.context(60))
    assert words in caught.value.message


def test_a_script_without_its_last_line_is_tried_again(guest, told):
    guest.windows.faults.tasks_ended = 1
    WindowsUpdate().apply(guest, told.context(60))
    assert runs(guest) == 1
    guest.windows.faults.tasks_ended = 5
    with pytest.raises(StepError, match="did not come to its end in 5 tries: it ended early with 267014"):
        WindowsUpdate().apply(guest, told.context(60))


def test_a_connection_lost_under_a_round_is_tried_again(guest, told):
    guest.windows.updates.offer("One (KB1)", reboot=False)
    context = told.context(60)
    again = []

    def take(stream, data):
        told.take(stream, data)
        if b"Installing" in data and not again:
            again.append(guest.windows.power.shutdown("restart", 0))

    object.__setattr__(context, "output", take)
    guest.windows.haste = 2.0
    WindowsUpdate().apply(guest, context)
    assert again == [0]
    assert guest.windows.boots >= 2
    assert guest.windows.updates.installed() == ["One (KB1)"]


def test_servicing_is_waited_for_before_a_restart(guest, told):
    guest.windows.updates.offer("One (KB1)")
    guest.windows.faults.servicing = True
    context = told.context(60)

    def take(stream, data):
        told.take(stream, data)
        if b"aib-round" in data:
            guest.windows.faults.servicing = False

    object.__setattr__(context, "output", take)
    WindowsUpdate().apply(guest, context)
    rounds = [json.loads(line[11:]) for line in told.stdout.decode().splitlines() if line.startswith("aib-round: ")]
    assert rounds == [{"installed": 1, "failed": []}]
