"""Files for a Windows guest, and Sysprep, on the guest of our own: the default text, its override, agents that are
missing, and failing fast."""

from __future__ import annotations

import pytest

from provisioners import file, windows_generalize, windows_guest, windows_payloads
from provisioners.base import StepError
from provisioners.communicators import winrm_connect
from provisioners.generalize import NOTE
from provisioners.windows_file import WindowsFile
from provisioners.windows_generalize import (
    AGENTS,
    GENERALIZED,
    SYSPREP,
    UNDEPLOYABLE,
    WindowsGeneralize,
    default_windows_script,
    place_windows_script,
)
from provisioners.windows_powershell import WindowsPowerShell
from tests.contract.windows_bed import Told, bed, login

PATH = "C:\\DeprovisioningScript.ps1"
DEFAULT = default_windows_script("2022-02-14")


@pytest.fixture
def guest(tmp_path, monkeypatch):
    monkeypatch.setattr(winrm_connect, "PAUSE_SECONDS", 0.1)
    monkeypatch.setattr(windows_guest, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(windows_generalize, "POLL_SECONDS", 0.1)
    with bed(tmp_path / "guest") as made:
        made.windows.haste = 50.0
        made.windows.files.write(PATH, DEFAULT.encode())
        yield made


@pytest.fixture
def told():
    return Told()


def install_agents(guest, *names: str) -> None:
    for name in names or AGENTS:
        guest.windows.services.add(name)


@pytest.mark.parametrize("version", ["2019-05-01-preview", "2020-02-14", "2024-02-01"])
def test_the_default_script_is_placed_printed_and_run(guest, told, version):
    text = default_windows_script(version)
    guest.windows.files.remove(PATH)
    install_agents(guest)
    place_windows_script(guest, text, "c:\\DeprovisioningScript.ps1", told.context())
    outcome = WindowsGeneralize(text).apply(guest, told.context())
    assert outcome.notes[0] == NOTE["default"]
    printed = told.stdout.decode()
    assert printed.startswith(text)
    assert SYSPREP in printed
    assert ">>> Sysprepping VM ..." in printed[len(text) :]
    assert UNDEPLOYABLE in printed[len(text) :].splitlines()
    assert guest.windows.sysprep.image_state == GENERALIZED
    assert told.deviations == []


def test_leftover_answer_files_are_removed_before_sysprep(guest, told):
    install_agents(guest)
    places = ["C:\\Windows\\System32\\Sysprep\\unattend.xml", "C:\\Windows\\Panther\\unattend.xml"]
    for place in places:
        guest.windows.files.write(place, b"<unattend/>")
    WindowsGeneralize(DEFAULT).apply(guest, told.context())
    assert not any(guest.windows.files.exists(place) for place in places)
    assert told.stdout.count(b">>> Removing ") == 2 + DEFAULT.count(">>> Removing ")


def test_a_script_of_the_users_own(guest, told):
    guest.windows.files.write(PATH, b"Write-Output mine")
    assert WindowsGeneralize(DEFAULT).apply(guest, told.context()).notes[0] == NOTE["replaced"]
    assert told.stdout == b"Write-Output mine\nmine\r\n"


def test_a_template_that_replaces_the_sysprep_command(guest, told):
    install_agents(guest)
    change = (
        "((Get-Content -path C:\\DeprovisioningScript.ps1 -Raw) -replace "
        "'Sysprep.exe /oobe /generalize /quiet /quit','Sysprep.exe /oobe /generalize /quit /mode:vm' ) | "
        "Set-Content -Path C:\\DeprovisioningScript.ps1"
    )
    WindowsPowerShell.inline([change]).apply(guest, told.context())
    assert WindowsGeneralize(DEFAULT).apply(guest, told.context()).notes[0] == NOTE["replaced"]
    assert b"Sysprep.exe /oobe /generalize /quit /mode:vm" in told.stdout
    assert guest.windows.sysprep.image_state == GENERALIZED


def test_a_missing_script_is_the_services_warning(guest, told):
    guest.windows.files.remove(PATH)
    assert WindowsGeneralize(DEFAULT).apply(guest, told.context()).notes[0] == NOTE["missing"]
    assert b"[c:\\DeprovisioningScript.ps1] could not be found" in told.stdout


def test_agents_that_are_not_installed_are_answered_for(guest, told):
    install_agents(guest, "WindowsAzureTelemetryService")
    WindowsGeneralize(DEFAULT).apply(guest, told.context())
    assert "$aibAbsentServices = @('RdAgent', 'WindowsAzureGuestAgent')" in guest.script()
    assert told.deviations == ["azure-agent-absent"] * 2
    assert guest.windows.sysprep.image_state == GENERALIZED


def test_an_agent_that_is_there_is_really_waited_for(guest, told):
    install_agents(guest)
    guest.windows.services.change("RdAgent", status="StartPending")
    context = told.context()

    def take(stream, data):
        told.take(stream, data)
        if b"(RdAgent) to start" in data and b"while" not in data:
            guest.windows.services.change("RdAgent", status="Running")

    object.__setattr__(context, "output", take)
    WindowsGeneralize(DEFAULT).apply(guest, context)
    assert guest.windows.services.status("RdAgent") == "Running"
    assert guest.windows.sysprep.image_state == GENERALIZED


def test_an_undeployable_image_fails_fast(guest, told):
    guest.windows.faults.sysprep_fails = True
    with pytest.raises(StepError, match="image state stays IMAGE_STATE_UNDEPLOYABLE"):
        WindowsGeneralize(DEFAULT).apply(guest, told.context())
    assert guest.served.shells == {}


def test_an_undeployable_state_while_sysprep_works_is_not_the_end(guest, told):
    guest.windows.faults.sysprep_seconds = 60.0
    context = told.context(90)
    line, question = UNDEPLOYABLE.encode() + b"\r\n", windows_payloads.command("image-state.ps1")
    asked = []

    def take(stream, data):
        told.take(stream, data)
        if said := told.stdout.count(line):
            asked.append([each for _, each in guest.windows.executed].count(question))
            if min(said, asked[-1] - asked[0]) > windows_generalize.PATIENCE:
                guest.windows.faults.sysprep_over.set()

    object.__setattr__(context, "output", take)
    WindowsGeneralize(DEFAULT).apply(guest, context)
    assert guest.windows.faults.sysprep_over.is_set()
    assert told.stdout.count(line) > windows_generalize.PATIENCE
    assert guest.windows.sysprep.image_state == GENERALIZED


def test_an_image_that_was_not_generalized_is_said(guest, told):
    guest.windows.files.write(PATH, b"Write-Output nothing")
    WindowsGeneralize(DEFAULT).apply(guest, told.context())
    assert told.deviations == ["azure-agent-absent"] * 3 + ["not-generalized"]


@pytest.mark.parametrize(
    ("script", "message"),
    [("exit 3", r"failed: exit code 3"), ("Restart-Computer; Start-Sleep 1000", "cut off: it rebooted")],
)
def test_a_script_that_fails(guest, told, script, message):
    guest.windows.files.write(PATH, script.encode())
    with pytest.raises(StepError, match=message):
        WindowsGeneralize(DEFAULT).apply(guest, told.context())


def test_what_must_be_undone_runs_before_the_script(guest, told):
    install_agents(guest)
    WindowsGeneralize(DEFAULT, prelude="Write-Output undoing").apply(guest, told.context())
    assert guest.script().startswith("Write-Output undoing\n")
    said = told.stdout.decode().splitlines()
    assert said.index("undoing") < said.index(">>> Sysprepping VM ...")


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "app.bin"
    path.write_bytes(b"\0binary\r\n")
    return path


def test_a_file_arrives_at_any_existing_folder(guest, told, source):
    for destination in ("c:\\app.bin", "C:/Windows/Temp/app.bin", "C:\\Program Files\\ä ö.bin"):
        WindowsFile(source, destination).apply(guest, told.context())
    for name in ("C:\\app.bin", "C:\\WINDOWS\\temp\\APP.bin", "c:\\program files\\ä ö.bin"):
        assert guest.windows.files.read(name) == b"\0binary\r\n"
    assert told.deviations == []


@pytest.mark.parametrize("destination", ["c:\\", "c:\\folder\\", "app.bin", "\\app.bin", "/tmp/app.bin", "c:app.bin"])
def test_a_destination_must_be_a_full_path(guest, told, source, destination):
    with pytest.raises(StepError, match="not a full path"):
        WindowsFile(source, destination).apply(guest, told.context())


def test_a_missing_folder_fails_and_says_how_to_make_it(guest, told, source):
    with pytest.raises(StepError, match="does not exist") as caught:
        WindowsFile(source, "c:\\no\\such\\app.bin").apply(guest, told.context())
    assert "earlier PowerShell step" in caught.value.hint
    assert not guest.windows.files.exists("c:\\no")


def test_a_folder_in_the_way_and_a_full_disk(guest, told, source):
    with pytest.raises(StepError, match="is a folder"):
        WindowsFile(source, "c:\\windows").apply(guest, told.context())
    guest.windows.files.write("C:\\old.bin", b"old")
    guest.windows.faults.disk_full(3)
    with pytest.raises(StepError, match="no space"):
        WindowsFile(source, "c:\\old.bin").apply(guest, told.context())
    assert guest.windows.files.read("C:\\old.bin") == b"old"
    assert "old.bin.aib-part" not in guest.windows.files.names("C:\\")


@pytest.mark.parametrize("size", [0, 1, 100_000])
def test_packers_way_of_sending_a_file(guest, told, tmp_path, size):
    source = tmp_path / "app.bin"
    source.write_bytes(bytes(range(256)) * (size // 256) + b"x" * (size % 256))
    guest.current.close()
    guest.current = login(guest.served.port, told.context().deadline, upload="packer")
    WindowsFile(source, "c:\\app.bin").apply(guest, told.context())
    assert guest.windows.files.read("C:\\app.bin") == source.read_bytes()
    assert guest.windows.files.names("C:\\Users\\packer\\AppData\\Local\\Temp") == []
    echoed = [line for _, line in guest.windows.executed if line.startswith("echo ") and ">>" in line]
    assert len(echoed) >= size // 6000


def test_a_large_file_is_said(guest, told, source, monkeypatch):
    monkeypatch.setattr(file, "DOCUMENTED_LIMIT", 9)
    WindowsFile(source, "c:\\app.bin").apply(guest, told.context())
    assert told.deviations == ["file-size"]


def test_a_file_waits_for_a_guest_that_restarts(guest, told, source):
    guest.windows.power.shutdown("restart", 0)
    while not guest.served.down.is_set() and guest.windows.boots == 1:  # it is down for a moment only
        guest.windows.settle()
    WindowsFile(source, "c:\\app.bin").apply(guest, told.context())
    assert guest.windows.files.exists("C:\\app.bin")
    assert guest.windows.boots == 2
