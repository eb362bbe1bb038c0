"""PowerShell on a Windows guest: what is sent, how it is run, and what its end means."""

from __future__ import annotations

import re

import pytest

from hypervisor.deadline import CancelToken, Deadline
from hypervisor.errors import Cancelled
from provisioners.base import Context, StepError
from provisioners.communicators.base import CommandResult
from provisioners.windows_powershell import WindowsPowerShell, environment_script
from provisioners.windows_task import normalised
from tests.unit.provisioners.windows_fake import FakeWindows

SCRIPT = r"powershell -executionpolicy bypass .*script-(?P<name>[0-9a-f-]{36})\.ps1.*"


@pytest.fixture
def windows() -> FakeWindows:
    return FakeWindows()


def script_of(windows: FakeWindows) -> bytes:
    [path] = [path for path in windows.files if "/script-" in path]
    return windows.files[path]


def test_inline_lines_are_one_script_run_in_packers_words(windows, told):
    seen = {}

    def run(running):
        seen.update(windows.files)
        running.say("out\r\n")
        running.say("err\r\n", "stderr")
        return CommandResult(0)

    windows.on(SCRIPT, run)
    outcome = WindowsPowerShell.inline(["Write-Host 1", "exit 0"]).apply(windows, told.context())
    assert outcome.exit_code == 0
    [line] = [line for line in windows.ran if "script-" in line and not line.startswith("del")]
    name = re.search(r"script-([0-9a-f-]+)\.ps1", line)[1]
    assert line == (
        'powershell -executionpolicy bypass "& { if (Test-Path variable:global:ProgressPreference)'
        "{set-variable -name variable:global:ProgressPreference -value 'SilentlyContinue'};. "
        f"c:/Windows/Temp/packer-ps-env-vars-{name}.ps1; &'c:/Windows/Temp/script-{name}.ps1'; "
        'exit $LastExitCode }"'
    )
    assert seen[f"c:/windows/temp/script-{name}.ps1"] == b"Write-Host 1\nexit 0\n"
    assert seen[f"c:/windows/temp/packer-ps-env-vars-{name}.ps1"] == (
        b'$env:PACKER_BUILDER_TYPE="azure-arm"; $env:PACKER_BUILD_NAME="azure-arm"; '
    )
    assert (told.stdout, told.stderr) == (b"out\r\n", b"err\r\n")
    assert windows.leftovers() == []
    assert windows.released == 1


def test_the_newer_form_catches_what_terminates(windows, told):
    sent = {}
    windows.on(SCRIPT, lambda _: sent.update(text=script_of(windows).decode()) or CommandResult(0))
    WindowsPowerShell.inline(["@'", "here", "'@", "throw 'x'"], form="try-catch").apply(windows, told.context())
    assert windows.ran[0].startswith("powershell -executionpolicy bypass -file c:/Windows/Temp/script-")
    text = sent["text"]
    assert "try {\n@'\nhere\n'@\nthrow 'x'\n} catch {" in text  # a here-string keeps its line starts
    assert text.index("packer-ps-env-vars-") < text.index("try {")
    assert text.endswith("if ($LASTEXITCODE) { exit $LASTEXITCODE }\nexit 0\n")


@pytest.mark.parametrize("content", [b"\xef\xbb\xbfWrite-Host \xc3\xa9\r\n", b"exit 0\r\n", b"x" * 2_000_000])
def test_a_script_by_uri_arrives_as_it_is(windows, told, content):
    sent = []
    windows.on(SCRIPT, lambda _: sent.append(script_of(windows)) or CommandResult(0))
    WindowsPowerShell.script(content).apply(windows, told.context())
    assert sent == [content]
    assert told.said == []


def test_characters_that_powershell_would_misread_are_said(windows, told):
    windows.answers(SCRIPT)
    WindowsPowerShell.inline(["Write-Host 'é'"]).apply(windows, told.context())
    assert "ANSI" in told.said[0]


@pytest.mark.parametrize(("code", "words"), [(3, "3"), (3010, "a restart is required"), (0xC0000005, "0xC0000005")])
def test_a_code_that_is_not_valid_fails_with_the_services_words(windows, told, code, words):
    windows.answers(SCRIPT, code)
    with pytest.raises(StepError, match=rf"non-zero exit status: {code}\. Allowed exit codes are: \[0\].*{words}") as e:
        WindowsPowerShell.inline(["x"]).apply(windows, told.context())
    assert e.value.guest_exit_code == code
    assert windows.leftovers() == []


def test_valid_exit_codes_replace_the_default(windows, told):
    windows.answers(SCRIPT, 4294967295)
    step = WindowsPowerShell.inline(["x"], valid_exit_codes=[7, 4294967295])
    assert step.apply(windows, told.context()).exit_code == 4294967295
    windows.answers(SCRIPT, 0)
    with pytest.raises(StepError, match=r"non-zero exit status: 0\. Allowed exit codes are: \[7 4294967295\]"):
        step.apply(windows, told.context())


def test_a_lost_connection_is_16001(windows, told):
    windows.on(SCRIPT, lambda _: windows.reboot_now())
    with pytest.raises(StepError, match="non-zero exit status: 16001") as caught:
        WindowsPowerShell.inline(["Restart-Computer"]).apply(windows, told.context())
    assert "WindowsRestart" in caught.value.hint


def test_16001_may_be_valid_and_the_guest_is_waited_for(windows, told):
    windows.on(SCRIPT, lambda _: windows.reboot_now())
    outcome = WindowsPowerShell.inline(["x"], valid_exit_codes=[0, 16001]).apply(windows, told.context())
    assert (outcome.exit_code, outcome.rebooted) == (16001, True)
    assert windows.alive()
    assert windows.leftovers() == []


def test_the_start_is_tried_again_but_not_what_ran(windows, told):
    windows.open = False
    attempts = []
    windows.on(SCRIPT, lambda _: attempts.append(1) or CommandResult(0))
    WindowsPowerShell.inline(["x"]).apply(windows, told.context())
    assert len(attempts) == 1


def test_elevated_runs_as_a_task_of_the_build_account(windows, told):
    context = Context(**{**vars(told.context()), "user": "packer", "password": "pw-secret"})
    windows.on_task = lambda running: running.say("as a task\r\n") or CommandResult(0)
    WindowsPowerShell.inline(["whoami"], run_elevated=True).apply(windows, context)
    [task] = windows.tasks
    assert (task["user"], task["password"]) == ("packer", "pw-secret")
    assert task["command"].startswith('powershell -executionpolicy bypass "& {')
    assert told.stdout == b"as a task\r\n"
    assert not any("pw-secret" in line for line in windows.ran)
    assert windows.leftovers() == []


def test_system_needs_no_password(windows, told):
    WindowsPowerShell.inline(["x"], run_elevated=True, run_as_system=True).apply(windows, told.context())
    assert (windows.tasks[0]["user"], windows.tasks[0]["password"]) == ("SYSTEM", "")


def test_the_hresult_of_a_task_is_its_code(windows, told):
    windows.on_task = lambda _: CommandResult(0x80070065)
    step = WindowsPowerShell.inline(["x"], run_elevated=True, valid_exit_codes=[101])
    assert step.apply(windows, told.context()).exit_code == 101
    assert [normalised(code) for code in (0, 1, 0x80070005, 0xC0000005)] == [0, 1, 5, 0xC0000005]


def test_a_task_that_cannot_be_made_is_told(windows, told):
    def run(running):
        running.say("aib-task: The user name or password is incorrect.\r\n", "stderr")
        return CommandResult(2587)

    windows.on_task = run
    with pytest.raises(StepError, match=r"as a scheduled task: The user name or password is incorrect\."):
        WindowsPowerShell.inline(["x"], run_elevated=True, valid_exit_codes=[2587]).apply(windows, told.context())


def test_a_cancelled_task_is_removed(windows, told):
    token = CancelToken()
    windows.on_task = lambda running: token.cancel("by the test") or running.wait()
    windows.answers('schtasks /End /TN "(packer-[0-9a-f-]{36})" & schtasks /Delete /TN "(packer-[0-9a-f-]{36})" /F')
    context = Context(**{**vars(told.context()), "deadline": Deadline.after(30, "the budget", token)})
    with pytest.raises(Cancelled):
        WindowsPowerShell.inline(["x"], run_elevated=True).apply(windows, context)
    assert windows.ran[-1].startswith("schtasks /End")


def test_variables_are_escaped_as_packer_does():
    assert environment_script({"B": "1", "A": "a$b\"c`d'e"}) == b'$env:A="a`$b`"c``d`\'e"; $env:B="1"; '
