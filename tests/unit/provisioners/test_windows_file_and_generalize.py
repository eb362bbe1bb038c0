"""Files for a Windows guest, and Sysprep: the default text, its override, agents that are missing, and failing fast."""

from __future__ import annotations

import pytest

from provisioners import file, windows_generalize
from provisioners.base import StepError
from provisioners.communicators.base import CommandResult
from provisioners.generalize import NOTE
from provisioners.windows_file import WindowsFile
from provisioners.windows_generalize import (
    GENERALIZED,
    SYSPREP,
    UNDEPLOYABLE,
    WindowsGeneralize,
    default_windows_script,
    place_windows_script,
)
from tests.unit.provisioners.windows_fake import FakeWindows

PATH = "c:/deprovisioningscript.ps1"
WRAPPER = r"powershell -executionpolicy bypass -file c:/Windows/Temp/script-.*\.ps1"
DEFAULT = default_windows_script("2022-02-14")


@pytest.fixture
def windows(monkeypatch) -> FakeWindows:
    monkeypatch.setattr(windows_generalize, "POLL_SECONDS", 0.01)
    return FakeWindows(files={PATH: DEFAULT.encode()})


def generalizes(windows: FakeWindows) -> dict[str, str]:
    sent = {}

    def run(running):
        [path] = [path for path in windows.files if "/script-" in path]
        sent["text"] = windows.files[path].decode("utf-8-sig")
        windows.image_state = GENERALIZED
        return CommandResult(0)

    windows.on(WRAPPER, run)
    return sent


def test_the_default_text_holds_what_templates_replace():
    for version in ("2019-05-01-preview", "2020-02-14", "2024-02-01"):
        assert default_windows_script(version).count(SYSPREP) == 1
    assert "\\\\windows\\\\system32" in default_windows_script("2019-05-01-preview")
    assert "Panther\\unattend.xml" in default_windows_script("2020-02-14")


def test_the_script_is_placed_printed_and_run(windows, told):
    windows.files.clear()
    windows.folders.add("c:")
    place_windows_script(windows, DEFAULT, "c:\\DeprovisioningScript.ps1", told.context())
    sent = generalizes(windows)
    outcome = WindowsGeneralize(DEFAULT).apply(windows, told.context())
    assert outcome.notes[0] == NOTE["default"]
    assert SYSPREP.encode() in told.stdout
    assert "$aibAbsentServices = @()" in sent["text"]
    assert sent["text"].endswith("if (Test-Path 'c:\\DeprovisioningScript.ps1') { . 'c:\\DeprovisioningScript.ps1' }\n")
    assert told.deviations == []


def test_a_script_of_the_users_own(windows, told):
    windows.files[PATH] = b"Write-Output mine"
    generalizes(windows)
    assert WindowsGeneralize(DEFAULT).apply(windows, told.context()).notes[0] == NOTE["replaced"]
    assert told.stdout == b"Write-Output mine\n"


def test_a_missing_script_is_the_services_warning(windows, told):
    del windows.files[PATH]
    assert WindowsGeneralize(DEFAULT).apply(windows, told.context()).notes[0] == NOTE["missing"]
    assert b"[c:\\DeprovisioningScript.ps1] could not be found" in told.stdout


def test_agents_that_are_not_installed_are_answered_for(windows, told):
    windows.absent = ("RdAgent", "WindowsAzureGuestAgent")
    sent = generalizes(windows)
    WindowsGeneralize(DEFAULT).apply(windows, told.context())
    assert "$aibAbsentServices = @('RdAgent', 'WindowsAzureGuestAgent')" in sent["text"]
    assert told.deviations == ["azure-agent-absent"] * 2


def test_an_undeployable_image_fails_fast(windows, told):
    windows.image_state = UNDEPLOYABLE
    windows.on(WRAPPER, lambda running: running.wait())
    with pytest.raises(StepError, match="image state stays IMAGE_STATE_UNDEPLOYABLE"):
        WindowsGeneralize(DEFAULT).apply(windows, told.context())


def test_an_undeployable_state_while_sysprep_works_is_not_the_end(windows, told):
    windows.image_state, windows.sysprep = UNDEPLOYABLE, True
    looked = []

    def run(running):
        while len(looked) < 10:
            looked.append(running.interrupted())
            running.deadline.pause(0.011, "waiting")
        windows.image_state = GENERALIZED
        return CommandResult(0)

    windows.on(WRAPPER, run)
    WindowsGeneralize(DEFAULT).apply(windows, told.context())
    assert not any(looked)


def test_an_image_that_was_not_generalized_is_said(windows, told):
    windows.files[PATH] = b"Write-Output nothing"
    windows.answers(WRAPPER)
    WindowsGeneralize(DEFAULT).apply(windows, told.context())
    assert told.deviations == ["not-generalized"]


@pytest.mark.parametrize(
    ("end", "message"),
    [
        (lambda windows: CommandResult(3), r"failed: exit code 3"),
        (lambda windows: windows.reboot_now(), "cut off: it rebooted"),
    ],
)
def test_a_script_that_fails(windows, told, end, message):
    windows.on(WRAPPER, lambda _: end(windows))
    with pytest.raises(StepError, match=message):
        WindowsGeneralize(DEFAULT).apply(windows, told.context())


def test_what_must_be_undone_runs_before_the_script(windows, told):
    sent = generalizes(windows)
    WindowsGeneralize(DEFAULT, prelude="Remove-Something").apply(windows, told.context())
    assert sent["text"].startswith("Remove-Something\n")


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "app.bin"
    path.write_bytes(b"\0binary\r\n")
    return path


def test_a_file_arrives_at_any_existing_folder(windows, told, source):
    for destination in ("c:\\app.bin", "C:/Windows/Temp/app.bin"):
        WindowsFile(source, destination).apply(windows, told.context())
    assert windows.files["c:/app.bin"] == windows.files["c:/windows/temp/app.bin"] == b"\0binary\r\n"
    assert told.deviations == []


@pytest.mark.parametrize("destination", ["c:\\", "c:\\folder\\", "app.bin", "\\app.bin", "/tmp/app.bin", "c:app.bin"])
def test_a_destination_must_be_a_full_path(windows, told, source, destination):
    with pytest.raises(StepError, match="not a full path"):
        WindowsFile(source, destination).apply(windows, told.context())


def test_a_missing_folder_fails_and_says_how_to_make_it(windows, told, source):
    with pytest.raises(StepError, match="does not exist") as caught:
        WindowsFile(source, "c:\\no\\such\\app.bin").apply(windows, told.context())
    assert "earlier PowerShell step" in caught.value.hint


def test_a_large_file_is_said(windows, told, source, monkeypatch):
    monkeypatch.setattr(file, "DOCUMENTED_LIMIT", 9)
    WindowsFile(source, "c:\\app.bin").apply(windows, told.context())
    assert told.deviations == ["file-size"]


def test_a_file_waits_for_a_guest_that_restarts(windows, told, source):
    windows.open = False
    WindowsFile(source, "c:\\app.bin").apply(windows, told.context())
    assert "c:/app.bin" in windows.files
