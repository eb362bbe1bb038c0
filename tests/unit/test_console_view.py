import io
import os
import pty
from pathlib import Path

import pytest

from orchestrator.record import events as e
from orchestrator.record.journal import Journal, read_events
from orchestrator.views import console as console_module
from orchestrator.views.console import ConsoleView, make_console
from orchestrator.views.screen import LiveScreen, PlainScreen, screen_for

STARTED = e.RunStarted(
    "r1", "/t", "hello", "Debian:debian-12:12:latest", "0.2", "ab" * 32, "Standard_D1_v2", 1, 2048, 900.0, ("install",)
)
BEGUN = e.StepStarted(0, "install", "Shell", "Customizing", 1, "steps/00.out", command="/tmp/script_1.sh")
SUCCEEDED = e.StepFinished(0, "install", "succeeded", 2.0)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def play(folder: Path, stream: io.StringIO, *facts: e.Event | bytes, quiet: bool = False) -> str:
    with Journal(folder) as journal, make_console(folder, quiet=quiet, stream=stream) as console:
        journal.subscribe(console)
        for fact in facts:
            if isinstance(fact, bytes):
                journal.output(0, "stdout", fact)
            else:
                journal.emit(fact)
    return stream.getvalue()


def finished(state: str = "Succeeded", code: int = 0) -> e.RunFinished:
    return e.RunFinished(
        state, "Distributing", "" if code == 0 else "it broke", code, 65.0, "" if code == 0 else "fix it"
    )


def test_plain_lines_tell_the_run(tmp_path: Path) -> None:
    text = play(
        tmp_path,
        io.StringIO(),
        STARTED,
        e.Phase("Connecting", "Building"),
        e.Connected(28.0, "127.0.0.1:2222", "packer"),
        BEGUN,
        b"Reading package lists...\nDone\n",
        SUCCEEDED,
        e.Deviation("no-agents", "no Azure agents"),
        e.ArtifactWritten("artifacts/os.vhd", "vhd", 2**30, 2**30 + 512, 2**20, "ab" * 32),
        e.RunOutputReady("out", "VHD", "Succeeded", artifact_uri="file:///os.vhd"),
        finished(),
    )
    assert "\x1b" not in text
    for expected in (
        "Waiting for the build VM to answer",
        "The build VM answers by SSH (packer@127.0.0.1:2222) after 28 s",
        "Step 1/1 install (Shell)",
        "  install | Reading package lists...\n  install | Done\n",
        "Step 1/1 install: done in 2.0 s",
        "Artifact: artifacts/os.vhd (vhd, 1.0 GiB, 1.0 MiB on disk, sha256 abababababababab)",
        "runOutput out (VHD): Succeeded  file:///os.vhd",
        "1 deviation from the service",
        "aib outputs hello",
        f"aib logs {tmp_path.name}",
        "hello succeeded in 1 min 05 s",
    ):
        assert expected in text


def test_failure_is_explained(tmp_path: Path) -> None:
    printed = "".join(f"line {n}\n" for n in range(50)).encode()
    failed = e.StepFinished(
        0, "install", "failed", 12.0, 127, message="Script exited with 127", hint="add the package", line=3
    )
    text = play(tmp_path, io.StringIO(), STARTED, BEGUN, printed, failed, finished("Failed", 1))
    block = text[text.index("failed after 12 s") :]
    assert block.count("    | line ") == 20 and "| line 49\n" in block and "| line 29\n" not in block
    for expected in (
        "Script exited with 127",
        "command: /tmp/script_1.sh  (line 3)",
        "exit code 127: command not found",
        "add the package",
        f"aib logs {tmp_path.name} --step 1 --raw",
        "hello failed after 1 min 05 s\n  it broke\n  fix it\n",
    ):
        assert expected in block


def test_a_failure_after_a_checkpoint_names_the_way_back(tmp_path: Path) -> None:
    begun = e.StepStarted(1, "next", "Shell", "Customizing", 2, "steps/01.out")
    failed = e.StepFinished(1, "next", "failed", 1.0, 1, message="gone")
    way = f"aib shell {tmp_path.name} --at 2 --before"
    kept = e.CheckpointTaken(0, "install", 0.3)
    assert way in play(tmp_path, io.StringIO(), STARTED, BEGUN, SUCCEEDED, kept, begun, failed)
    cached = e.StepFinished(0, "install", "cached", 0.0, 0)
    assert way in play(tmp_path, io.StringIO(), STARTED, BEGUN, cached, begun, failed)
    assert way not in play(tmp_path, io.StringIO(), STARTED, BEGUN, SUCCEEDED, begun, failed)


def test_failure_without_output(tmp_path: Path) -> None:
    failed = e.StepFinished(0, "install", "failed", 1.0, None, message="gone")
    assert "it printed nothing" in play(tmp_path, io.StringIO(), STARTED, BEGUN, failed)


def test_binary_bytes_and_an_endless_line_do_no_harm(tmp_path: Path) -> None:
    noise = bytes(range(256)) * 4 + b"\n" + b"x" * 1_000_000
    text = play(tmp_path, io.StringIO(), STARTED, BEGUN, noise, SUCCEEDED)
    assert all(line.isprintable() for line in text.split("\n"))
    assert max(map(len, text.split("\n"))) < 700


def test_flood_is_cut_off_and_says_where_the_rest_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console_module, "MOST_LINES", 100)
    text = play(tmp_path, io.StringIO(), STARTED, BEGUN, b"y\n" * 5000, b"y\n" * 5000, SUCCEEDED)
    assert text.count("install | y\n") == 100
    assert text.count("the rest is only in steps/00.out") == 1


def test_quiet_tells_only_why_it_failed(tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    assert play(good, io.StringIO(), STARTED, BEGUN, b"x\n", SUCCEEDED, finished(), quiet=True) == ""
    failed = e.StepFinished(0, "install", "failed", 1.0, 2)
    text = play(bad, io.StringIO(), STARTED, BEGUN, b"oops\n", failed, finished("Failed", 1), quiet=True)
    assert "| oops" in text and "exit code 2" in text and "hello failed" in text


class Gone(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_reader_that_has_gone_does_not_stop_the_build(tmp_path: Path) -> None:
    play(tmp_path, Gone(), STARTED, finished())
    assert len(list(read_events(tmp_path / "events.jsonl"))) == 2


def test_stream_that_cannot_say_it_all(tmp_path: Path) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    ConsoleView(PlainScreen(stream), tmp_path)(e.Stamped(0, "", 1.0, e.Said("grüße")))
    assert raw.getvalue() == b"[00:01] gr\\xfc\\xdfe\n"


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Terminal()


def test_terminal_shows_what_is_waited_for_and_keeps_every_line(tmp_path: Path, terminal: Terminal) -> None:
    text = play(
        tmp_path, terminal, STARTED, e.Phase("Connecting", "Building"), BEGUN, b"hello\n", SUCCEEDED, finished()
    )
    assert "\x1b[32m" in text, "a success is green"
    assert "Waiting for the build VM to answer" in text and "install | hello" in text
    assert "hello succeeded" in text.splitlines()[-1]
    assert "\x1b[?25h" in text, "the cursor comes back"


def test_what_is_waited_for_never_takes_two_lines(tmp_path: Path, terminal: Terminal) -> None:
    facts = [STARTED, e.StepStarted(0, "x" * 300, "Shell", "Customizing", 1, "steps/00.out"), SUCCEEDED, finished()]
    text = play(tmp_path, terminal, *facts)
    status = [part for part in text.replace("\r", "\n").split("\n") if "00:00  Step" in part]
    assert status and all("…" in part and part.count("x") < 80 for part in status)


def test_no_color_is_obeyed(tmp_path: Path, terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    text = play(tmp_path, terminal, STARTED, BEGUN, SUCCEEDED, finished())
    assert "\x1b[32m" not in text and "\x1b[31m" not in text


def test_a_real_terminal_is_recognized(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    master, slave = pty.openpty()
    with os.fdopen(master, "rb"), os.fdopen(slave, "w") as stream:
        assert isinstance(screen_for(stream), LiveScreen)
        monkeypatch.setenv("TERM", "dumb")
        assert isinstance(screen_for(stream), PlainScreen)
    assert isinstance(screen_for(io.StringIO()), PlainScreen)
