"""hypervisor.process: the one door to other programs."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import pytest

from hypervisor.deadline import CancelToken, Deadline
from hypervisor.errors import Cancelled, DeadlineExceeded
from hypervisor.process import ProcessError, ToolMissing, require, run


def soon(seconds: float = 30) -> Deadline:
    return Deadline.after(seconds, "the test's budget")


def gone(pid: int) -> bool:
    """Whether the process ends (a zombie that nobody reaps has); a signal needs a moment to arrive."""
    stat = Path(f"/proc/{pid}/stat")
    for _ in range(100):
        try:
            if stat.read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.05)
    return False


def test_collects_both_streams_and_the_exit_code() -> None:
    done = run(["sh", "-c", "echo out; echo err >&2; exit 7"], deadline=soon(), check=False)
    assert (done.exit_code, done.stdout, done.stderr) == (7, b"out\n", b"err\n")


def test_large_input_and_output_cross_without_a_deadlock() -> None:
    data = os.urandom(3_000_000)
    assert run(["cat"], deadline=soon(), input=data).stdout == data


def test_a_program_that_ignores_its_input_is_no_error() -> None:
    assert run(["true"], deadline=soon(), input=b"x" * 1_000_000).exit_code == 0


def test_without_input_stdin_is_at_its_end() -> None:
    assert run(["sh", "-c", "read -r line || echo eof"], deadline=soon()).stdout == b"eof\n"


def test_env_is_added_and_messages_are_in_one_language(tmp_path: Path) -> None:
    done = run(
        ["sh", "-c", 'echo "$ADDED $LC_ALL ${HOME:+home} $PWD"'], deadline=soon(), env={"ADDED": "1"}, cwd=tmp_path
    )
    assert done.stdout.decode().split() == ["1", "C.UTF-8", "home", str(tmp_path)]


def test_output_is_handed_on_while_the_program_runs(tmp_path: Path) -> None:
    flag = tmp_path / "seen"

    def seen(chunk: bytes) -> None:
        assert chunk == b"first\n" or flag.exists()
        flag.touch()

    script = f"echo first; while [ ! -e {flag} ]; do sleep 0.05; done; echo second"
    assert run(["sh", "-c", script], deadline=soon(), on_output=seen).stdout == b"first\nsecond\n"


def test_failure_says_command_code_and_last_lines() -> None:
    with pytest.raises(ProcessError) as caught:
        run(["sh", "-c", "seq 1 40 >&2; exit 3", "a b"], deadline=soon())
    assert caught.value.returncode == 3
    assert caught.value.exit_code == 3  # HostError's exit code of aib, by chance the same
    assert "'a b'" in caught.value.message
    assert "exit code 3" in caught.value.message
    assert "\n40" in caught.value.message
    assert "\n20\n" not in caught.value.message


def test_death_by_signal_is_named() -> None:
    with pytest.raises(ProcessError, match="SIGSEGV"):
        run(["sh", "-c", "kill -SEGV $$"], deadline=soon())


def test_missing_tool_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hypervisor.process._SYSTEM_FOLDERS", ())
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ToolMissing, match="qemu-img") as caught:
        run(["qemu-img", "--version"], deadline=soon())
    assert "apt install qemu-utils" in caught.value.hint
    assert "aib doctor" in caught.value.hint


def test_require_gives_a_full_path() -> None:
    assert require("sh").is_absolute()


def test_deadline_ends_the_whole_group(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"sleep 600 & echo $! >> {pids}; echo $$ >> {pids}; trap '' TERM; echo; while :; do sleep 600; done"
    deadline = soon()

    def over(_: bytes) -> None:
        object.__setattr__(deadline, "at", 0.0)  # not before the script is as far as it should be

    with pytest.raises(DeadlineExceeded, match="the test's budget is used up while running sh"):
        run(["sh", "-c", script], deadline=deadline, on_output=over)
    assert all(gone(int(pid)) for pid in pids.read_text().split())


def test_cancel_ends_it(tmp_path: Path) -> None:
    token = CancelToken()
    pid = tmp_path / "pid"

    def cancel_once_started() -> None:
        while not pid.exists():
            pass
        token.cancel()

    thread = threading.Thread(target=cancel_once_started)
    thread.start()
    script = f"echo $$ > {pid}.new; mv {pid}.new {pid}; exec sleep 600"
    with pytest.raises(Cancelled):
        run(["sh", "-c", script], deadline=Deadline.after(60, token=token))
    thread.join()
    assert gone(int(pid.read_text()))


def test_an_expired_deadline_starts_nothing(tmp_path: Path) -> None:
    with pytest.raises(DeadlineExceeded):
        run(["touch", tmp_path / "made"], deadline=soon(0))
    assert not (tmp_path / "made").exists()


def test_what_is_left_in_the_background_is_ended_and_not_waited_for() -> None:
    done = run(["sh", "-c", "yes > /dev/null & yes & echo $!"], deadline=soon())
    pids = [word for word in done.stdout.split() if word.isdigit()]
    assert pids
    assert all(gone(int(pid)) for pid in pids)


def test_an_error_of_the_callback_ends_the_program(tmp_path: Path) -> None:
    pid = tmp_path / "pid"

    def fail(_: bytes) -> None:
        raise RuntimeError("the callback broke")

    with pytest.raises(RuntimeError, match="the callback broke"):
        run(["sh", "-c", f"echo $$ > {pid}; echo go; exec sleep 600"], deadline=soon(), on_output=fail)
    assert gone(int(pid.read_text()))


def test_needs_the_standard_library_only() -> None:
    """`aib validate` and the provisioners import this module: nothing heavy may come with it."""
    code = "import sys, hypervisor.process; print([m for m in ('libvirt', 'requests', 'paramiko') if m in sys.modules])"
    assert run([sys.executable, "-c", code], deadline=soon()).stdout == b"[]\n"
