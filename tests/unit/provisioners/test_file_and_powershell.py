"""The File customizer's rules, and PowerShell on Linux."""

from __future__ import annotations

import pytest

from provisioners import file
from provisioners.base import StepError
from provisioners.communicators.base import CommandResult
from provisioners.file import File
from provisioners.powershell import LinuxPowerShell


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "app.bin"
    path.write_bytes(b"\0binary\r\n")
    return path


def test_a_file_arrives_byte_for_byte_and_replaces(guest, told, source):
    for _ in range(2):
        File(source, "/tmp/app.bin").apply(guest, told.context())
    assert guest.machine.files["/tmp/app.bin"].content == b"\0binary\r\n"
    assert told.deviations == []


@pytest.mark.parametrize(
    ("destination", "reason"),
    [
        ("/tmp/", "not a full path"),
        ("relative.bin", "not a full path"),
        ("/tmp", "it is a folder"),
        ("/tmp/missing/app.bin", "the folder /tmp/missing does not exist"),
        ("/etc/app.bin", "permission denied"),
    ],
)
def test_where_a_file_cannot_go(guest, told, source, destination, reason):
    guest.machine.folders["/etc"] = "root"
    with pytest.raises(StepError, match=reason):
        File(source, destination).apply(guest, told.context())


def test_a_large_file_is_copied_and_the_documented_limit_said(guest, told, source, monkeypatch):
    monkeypatch.setattr(file, "DOCUMENTED_LIMIT", 9)
    File(source, "/tmp/app.bin").apply(guest, told.context())
    assert told.deviations == ["file-size"]
    assert "/tmp/app.bin" in guest.machine.files


def test_an_upload_after_a_background_reboot_takes_a_new_connection(guest, told, source):
    guest.reboot_now()
    File(source, "/tmp/app.bin").apply(guest, told.context())
    assert guest.reconnects == 1


def test_powershell_needs_pwsh(guest, told):
    guest.machine.answers("command -v pwsh", exit_code=127)
    with pytest.raises(StepError, match="no PowerShell"):
        LinuxPowerShell.inline(["Write-Output 1"]).apply(guest, told.context())
    assert guest.ran_scripts == []


def test_powershell_runs_with_the_images_pwsh_and_its_exit_codes(guest, told):
    guest.machine.answers("command -v pwsh", b"/usr/bin/pwsh\n")
    script = LinuxPowerShell.inline(["exit 3"], valid_exit_codes=[0, 3])
    guest.scripts[script.content] = lambda _: CommandResult(3)
    assert script.apply(guest, told.context()).exit_code == 3
    [(command, content)] = guest.ran_scripts
    assert content == b"exit 3\n"
    assert command.startswith("PACKER_BUILDER_TYPE='azure-arm' PACKER_BUILD_NAME='azure-arm'  pwsh -NoProfile ")
    strict = LinuxPowerShell.inline(["exit 3"])
    with pytest.raises(StepError, match=r"Allowed exit codes are: \[0\]"):
        strict.apply(guest, told.context())


def test_elevated_powershell_goes_through_sudo(guest, told):
    guest.machine.answers("command -v pwsh", b"/usr/bin/pwsh\n")
    LinuxPowerShell.inline(["whoami"], run_elevated=True).apply(guest, told.context())
    assert guest.ran_scripts[0][0].startswith("sudo -n env PACKER_BUILDER_TYPE=")
