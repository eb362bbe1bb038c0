"""The Shell customizer: what the guest gets, to the byte, and what its end means."""

from __future__ import annotations

import re

import pytest

from hypervisor.errors import DeadlineExceeded
from provisioners.base import StepError
from provisioners.communicators.base import CommandResult
from provisioners.communicators.memory import MemoryFile
from provisioners.shell import Shell, shell_command


def ending(code=None, *, stderr=b"", signal=""):
    def behave(call):
        call.write("stderr", stderr.replace(b"PATH", call.match["path"].encode()))
        return CommandResult(code, signal=signal)

    return behave


def failure(guest, told, shell) -> StepError:
    with pytest.raises(StepError) as caught:
        shell.apply(guest, told.context())
    return caught.value


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (["echo a", "echo b"], b"#!/bin/sh -e\necho a\necho b\n"),
        (["#!/bin/bash", "echo a"], b"#!/bin/bash\necho a\n"),
        (["echo 'x\r\ny'"], b"#!/bin/sh -e\necho 'x\ny'\n"),
        (["echo 漢 \"'\\"], "#!/bin/sh -e\necho 漢 \"'\\\n".encode()),
        (["printf a\0b\r\n"], b"#!/bin/sh -e\nprintf a\0b\r\n\n"),
        ([], b"#!/bin/sh -e\n\n"),
    ],
)
def test_inline_lines_become_one_script(guest, told, lines, text):
    Shell.inline(lines).apply(guest, told.context())
    assert [content for _, content in guest.ran_scripts] == [text]


def test_the_command_is_packers(guest, told):
    Shell.inline(["true"]).apply(guest, told.context())
    [(command, _)] = guest.ran_scripts
    path = command.split()[2].rstrip(";")
    assert re.fullmatch(r"/tmp/script_\d{1,4}\.sh", path)
    assert command == f"chmod +x {path}; PACKER_BUILDER_TYPE='azure-arm' PACKER_BUILD_NAME='azure-arm'  {path}"


def test_as_root_goes_through_sudo_with_the_same_variables():
    assert shell_command("/tmp/s", {"A": "it's"}, as_root=True) == (
        "chmod +x /tmp/s; sudo -n env A='it'\"'\"'s'  /tmp/s"
    )


def test_a_fetched_script_keeps_its_first_line_and_loses_its_carriage_returns(guest, told, tmp_path):
    payload = tmp_path / "customize.sh"
    payload.write_bytes(b"#!/usr/bin/python3\r\nprint(1)\r\n")
    Shell.script(payload, as_root=False).apply(guest, told.context())
    assert guest.ran_scripts[0][1] == b"#!/usr/bin/python3\nprint(1)\n"


def test_a_program_is_sent_byte_for_byte(guest, told):
    Shell.script(b"\x7fELF\0\r\n\xff").apply(guest, told.context())
    assert guest.ran_scripts[0][1] == b"\x7fELF\0\r\n\xff"


def test_the_script_is_removed_after_success_alone(guest, told):
    Shell.inline(["true"]).apply(guest, told.context())
    assert guest.machine.files == {}
    bad = Shell.inline(["false"])
    guest.scripts[bad.content] = ending(1)
    failure(guest, told, bad)
    assert len(guest.machine.files) == 1


@pytest.mark.parametrize(
    ("stderr", "line"),
    [
        (b"PATH: 3: frob: not found\n", 3),
        (b"PATH: line 2: frob: command not found\n", 2),
        (b"PATH: 2: warning\nPATH: 3: frob: not found\n", 3),
        (b"PATH: 99: beyond the end\n", None),
        (b"something else\n", None),
    ],
)
def test_the_failing_line_is_named_where_the_shell_says_it(guest, told, stderr, line):
    shell = Shell.inline(["first", "frob --hard"])
    guest.scripts[shell.content] = ending(127, stderr=stderr)
    error = failure(guest, told, shell)
    assert (error.guest_exit_code, error.line) == (127, line)
    assert "Script exited with non-zero exit status: 127. Allowed exit codes are: [0]" in error.message
    assert "a command was not found" in error.message
    if line == 3:
        assert "line 3: frob --hard" in error.message


def test_a_killed_script_is_a_failure(guest, told):
    shell = Shell.inline(["kill -9 $$"])
    guest.scripts[shell.content] = ending(None, signal="KILL")
    error = failure(guest, told, shell)
    assert (error.guest_exit_code, guest.reconnects) == (None, 0)
    assert "ended by SIGKILL" in error.message


def test_running_out_of_memory_is_hinted(guest, told):
    shell = Shell.inline(["hog"])
    guest.scripts[shell.content] = ending(137)
    assert "memory" in failure(guest, told, shell).hint


def test_noexec_is_found_out(guest, told):
    shell = Shell.inline(["true"])
    guest.scripts[shell.content] = ending(126)
    guest.machine.answers(r"grep ' /tmp ' /proc/mounts", b"tmpfs /tmp tmpfs rw,nosuid,noexec 0 0\n")
    assert "noexec" in failure(guest, told, shell).hint


def test_a_full_disk_stops_the_script_from_being_sent(guest, told):
    guest.machine.files["/var/big"] = MemoryFile(b"x" * 100)
    guest.machine.capacity = 110
    error = failure(guest, told, Shell.inline(["true"]))
    assert "could not be sent" in error.message
    assert "osDiskSizeGB" in error.hint


def test_the_deadline_is_not_a_failure_of_the_script(guest, told):
    shell = Shell.inline(["sleep 1000"])
    guest.scripts[shell.content] = lambda call: call.wait(1000)
    with pytest.raises(DeadlineExceeded, match="the budget"):
        shell.apply(guest, told.context(0.1))
