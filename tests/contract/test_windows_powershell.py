"""PowerShell on a Windows guest: what is sent, how it is run, and what its end means; on the guest of our own."""

from __future__ import annotations

import hashlib
import re
import threading

import pytest

from hypervisor.deadline import CancelToken, Deadline
from hypervisor.errors import Cancelled
from provisioners import windows_guest, windows_payloads
from provisioners.base import StepError
from provisioners.windows_powershell import WindowsPowerShell
from tests.contract.windows_bed import PASSWORD, Told, bed


@pytest.fixture
def guest(tmp_path, monkeypatch):
    monkeypatch.setattr(windows_guest, "POLL_SECONDS", 0.1)
    with bed(tmp_path / "guest") as made:
        yield made


@pytest.fixture
def told():
    return Told()


def lines(guest) -> list[str]:
    """Command lines that ran a user's script."""
    return [line for _, line in guest.windows.executed if "script-" in line and not line.startswith("del")]


def test_inline_lines_are_one_script_run_in_packers_words(guest, told):
    outcome = WindowsPowerShell.inline(["Write-Host 1", "cmd /c 'echo err>&2'", "exit 0"]).apply(guest, told.context())
    assert outcome.exit_code == 0
    [line] = lines(guest)
    name = re.search(r"script-([0-9a-f-]+)\.ps1", line)[1]
    assert line == (
        'powershell -executionpolicy bypass "& { if (Test-Path variable:global:ProgressPreference)'
        "{set-variable -name variable:global:ProgressPreference -value 'SilentlyContinue'};. "
        f"c:/Windows/Temp/packer-ps-env-vars-{name}.ps1; &'c:/Windows/Temp/script-{name}.ps1'; "
        'exit $LastExitCode }"'
    )
    variables, script = guest.windows.scripts
    assert script.text == "Write-Host 1\ncmd /c 'echo err>&2'\nexit 0\n"
    assert variables.text == '$env:PACKER_BUILDER_TYPE="azure-arm"; $env:PACKER_BUILD_NAME="azure-arm"; '
    assert script.variables == {"PACKER_BUILDER_TYPE": "azure-arm", "PACKER_BUILD_NAME": "azure-arm"}
    assert (told.stdout, told.stderr) == (b"1\r\n", b"err\r\n")
    assert guest.leftovers() == []
    assert guest.served.shells == {}


def test_the_newer_form_catches_what_terminates(guest, told):
    step = WindowsPowerShell.inline(["@'", "here", "'@", "throw 'x'"], form="try-catch")
    with pytest.raises(StepError, match="non-zero exit status: 1"):
        step.apply(guest, told.context())
    assert lines(guest)[0].startswith("powershell -executionpolicy bypass -file c:/Windows/Temp/script-")
    text = guest.script()
    assert "try {\n@'\nhere\n'@\nthrow 'x'\n} catch {" in text  # a here-string keeps its line starts
    assert text.index("packer-ps-env-vars-") < text.index("try {")
    assert text.endswith("if ($LASTEXITCODE) { exit $LASTEXITCODE }\nexit 0\n")
    assert told.stdout == b"here\r\n"
    assert told.stderr.startswith(b"x\r\n")


@pytest.mark.parametrize(
    ("line", "code"), [("cmd /c exit 5", 5), ("Write-Error 'only said'", 0), ("Get-Item c:\\none", 0)]
)
def test_the_newer_form_judges_by_what_terminates_and_the_last_program(guest, told, line, code):
    step = WindowsPowerShell.inline([line], form="try-catch", valid_exit_codes=[0, 5])
    assert step.apply(guest, told.context()).exit_code == code


SELF = b"Write-Output (Get-FileHash $PSCommandPath).Hash\r\n"


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + SELF + "Write-Host 'é ☃'\r\n".encode(),
        SELF.replace(b"\r\n", b"\n"),
        b"# " + b"x" * 2_000_000 + b"\r\n" + SELF,
        b"\xff\xfe" + (SELF.decode() + "Write-Host 'é ☃'\r\n").encode("utf-16-le"),
    ],
    ids=["mark-and-crlf", "lf", "2-megabytes", "utf-16"],
)
def test_a_script_by_uri_arrives_as_it_is(guest, told, content):
    WindowsPowerShell.script(content).apply(guest, told.context())
    digest = hashlib.sha256(content).hexdigest().upper()
    assert told.stdout.decode().splitlines() == [digest] + (["é ☃"] if content[0] > 0x7F else [])
    assert told.said == []


def test_characters_that_powershell_would_misread_are_said(guest, told):
    WindowsPowerShell.inline(["Write-Host 'é'"]).apply(guest, told.context())
    assert "ANSI" in told.said[0]
    assert told.stdout.decode() == "Ã©\r\n"  # and it does misread them


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("exit 3", 3, "3"),
        ("exit 3010", 3010, "a restart is required"),
        ("exit -1073741819", 0xC0000005, "0xC0000005"),
        ("cmd /c exit -1073741819", 0xC0000005, "0xC0000005"),
        ("throw 'x'", 1, "a terminating error"),
    ],
)
def test_a_code_that_is_not_valid_fails_with_the_services_words(guest, told, line, code, words):
    step = WindowsPowerShell.inline([line])
    with pytest.raises(StepError, match=rf"non-zero exit status: {code}\. Allowed exit codes are: \[0\].*{words}") as e:
        step.apply(guest, told.context())
    assert e.value.guest_exit_code == code
    assert guest.leftovers() == []


def test_valid_exit_codes_replace_the_default(guest, told):
    codes = [7, 4294967295]
    assert (
        WindowsPowerShell.inline(["exit -1"], valid_exit_codes=codes).apply(guest, told.context()).exit_code
        == 4294967295
    )
    with pytest.raises(StepError, match=r"non-zero exit status: 0\. Allowed exit codes are: \[7 4294967295\]"):
        WindowsPowerShell.inline(["exit 0"], valid_exit_codes=codes).apply(guest, told.context())


REBOOT = ["Write-Output before", "Restart-Computer -Force", "Start-Sleep 30"]


def test_a_lost_connection_is_16001(guest, told):
    with pytest.raises(StepError, match="non-zero exit status: 16001") as caught:
        WindowsPowerShell.inline(REBOOT).apply(guest, told.context())
    assert "WindowsRestart" in caught.value.hint
    assert told.stdout == b"before\r\n"


@pytest.mark.parametrize("elevated", [False, True])
def test_16001_may_be_valid_and_the_guest_is_waited_for(guest, told, elevated):
    step = WindowsPowerShell.inline(REBOOT, valid_exit_codes=[0, 16001], run_elevated=elevated)
    outcome = step.apply(guest, told.context())
    assert (outcome.exit_code, outcome.rebooted) == (16001, True)
    assert guest.windows.boots == 2
    assert guest.communicator.alive()
    assert guest.leftovers() == []
    assert list(guest.windows.tasks.table) == []


def test_the_start_is_tried_again_but_not_what_ran(guest, told):
    guest.current.close()
    WindowsPowerShell.inline(["Write-Output once"]).apply(guest, told.context())
    assert told.stdout == b"once\r\n"


def test_a_restart_that_an_earlier_step_left_behind_is_waited_for(guest, told):
    WindowsPowerShell.inline(["shutdown /r /t 0"]).apply(guest, told.context())
    while not guest.served.down.is_set() and guest.windows.boots == 1:  # it answers until it is down, for a moment
        threading.Event().wait(0.01)
    WindowsPowerShell.inline(["Write-Output after"]).apply(guest, told.context())
    assert told.stdout == b"after\r\n"
    assert guest.windows.boots == 2


@pytest.mark.parametrize(("system", "name"), [(False, b"win-standin\\packer"), (True, b"nt authority\\system")])
def test_elevated_runs_as_a_task_with_all_rights(guest, told, system, name):
    lines_ = ["whoami", "cmd /c 'echo err>&2'", "$PWD.Path"]
    WindowsPowerShell.inline(lines_, run_elevated=True, run_as_system=system).apply(guest, told.context())
    assert told.stdout == name + b"\r\nerr\r\nC:\\Windows\\system32\r\n"  # both streams are one
    assert not any(PASSWORD in line for _, line in guest.windows.executed)
    assert all(PASSWORD.encode() not in path.read_bytes() for path in guest.windows.files.root.rglob("*.ps1"))
    assert guest.leftovers() == []
    assert list(guest.windows.tasks.table) == []


def test_the_output_of_a_task_comes_while_it_runs(guest, told):
    seen = threading.Event()
    context = told.context()

    def take(stream, data):
        told.take(stream, data)
        guest.windows.files.write("C:\\seen", b"")
        seen.set()

    script = ["Write-Output first", "while (-not (Test-Path c:\\seen)) { Start-Sleep -Milliseconds 50 }", "'second'"]
    object.__setattr__(context, "output", take)
    WindowsPowerShell.inline(script, run_elevated=True).apply(guest, context)
    assert seen.is_set()
    assert told.stdout == b"first\r\nsecond\r\n"


def test_the_hresult_of_a_task_is_its_code(guest, told):
    guest.windows.faults.task_hresults = True
    step = WindowsPowerShell.inline(["exit 101"], run_elevated=True, valid_exit_codes=[101])
    assert step.apply(guest, told.context()).exit_code == 101


@pytest.mark.parametrize("code", [3, 1, 0xC0000005])
def test_the_code_of_a_task_is_its_scripts(guest, told, code):
    line = f"exit {code if code < 1 << 31 else code - (1 << 32)}"
    with pytest.raises(StepError) as caught:
        WindowsPowerShell.inline([line], run_elevated=True).apply(guest, told.context())
    assert caught.value.guest_exit_code == code


def test_a_task_that_cannot_be_made_is_told(guest, told):
    context = told.context()
    object.__setattr__(context, "password", "wrong")
    with pytest.raises(StepError, match=r"as a scheduled task: The user name or password is incorrect\."):
        WindowsPowerShell.inline(["x"], run_elevated=True, valid_exit_codes=[2587]).apply(guest, context)


def test_a_task_that_does_not_start_is_told(guest, told, monkeypatch):
    guest.windows.faults.task_never_starts = True
    original = windows_payloads.text
    monkeypatch.setattr(
        windows_payloads, "text", lambda name: original(name).replace("AddSeconds(60)", "AddSeconds(1)")
    )
    with pytest.raises(StepError, match=r"as a scheduled task: the task did not start within 60 seconds"):
        WindowsPowerShell.inline(["x"], run_elevated=True).apply(guest, told.context())


@pytest.mark.parametrize("elevated", [False, True])
def test_what_is_cancelled_ends_in_the_guest_too(guest, told, elevated):
    token = CancelToken()
    context = told.context(deadline=Deadline.after(30, "the budget", token))

    def take(stream, data):
        token.cancel("by the test")

    object.__setattr__(context, "output", take)
    step = WindowsPowerShell.inline(["Write-Output started", "Start-Sleep 600"], run_elevated=elevated)
    with pytest.raises(Cancelled):
        step.apply(guest, context)
    guest.current.close()
    guest.windows.settle(10)
    assert guest.served.shells == {}
    assert list(guest.windows.tasks.table) == []


def test_a_full_disk_is_said(guest, told):
    guest.windows.faults.disk_full(200)
    with pytest.raises(StepError, match="no space"):
        WindowsPowerShell.script(b"# " + b"x" * 1000).apply(guest, told.context())


def test_a_script_that_fills_the_disk_fails_with_windows_words(guest, told):
    guest.windows.faults.disk_full(100_000)
    script = ["$ErrorActionPreference = 'Stop'", "while ($true) { Add-Content c:\\fill ('x' * 10000) }"]
    with pytest.raises(StepError, match="non-zero exit status: 1"):
        WindowsPowerShell.inline(script).apply(guest, told.context())
    assert b"There is not enough space on the disk." in told.stderr
