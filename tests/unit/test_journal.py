import json
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import pytest

from hypervisor.errors import HostError
from orchestrator.record.events import Output, Phase, RunFinished, Said, Stamped, StepFinished, Unknown
from orchestrator.record.journal import Journal, read_events, read_output


def finished(index: int = 0) -> StepFinished:
    return StepFinished(index, "one", "succeeded", 1.0)


def lines(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_bytes().splitlines()]


def test_an_event_is_on_disk_before_it_is_shown(tmp_path: Path) -> None:
    seen: list[int] = []
    with Journal(tmp_path) as journal:
        journal.subscribe(lambda stamped: seen.append(len(lines(tmp_path)) - stamped.seq))
        journal.emit(Phase("Booting", "Building"))
        journal.emit(Said("hello"))
    assert seen == [1, 1]
    assert [line["type"] for line in lines(tmp_path)] == ["Phase", "Said"]


def test_output_goes_raw_to_the_file_of_its_step_and_is_batched(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        for _ in range(1000):
            journal.output(3, "stdout", b"\x00\xffabc\n")
        journal.output(3, "stderr", b"oops")
        journal.emit(finished(3))
    assert (tmp_path / "steps/03.out").read_bytes() == b"\x00\xffabc\n" * 1000 + b"oops"
    events = [s.event for s in read_events(tmp_path / "events.jsonl")]
    outputs = [e for e in events if isinstance(e, Output)]
    assert len(outputs) < 100 and isinstance(events[-1], StepFinished)
    assert b"".join(read_output(tmp_path, o) for o in outputs if o.stream == "stdout") == b"\x00\xffabc\n" * 1000
    assert read_output(tmp_path, outputs[-1]) == b"oops"


def test_output_is_shown_without_waiting_for_more(tmp_path: Path) -> None:
    shown = threading.Event()
    with Journal(tmp_path) as journal:
        journal.subscribe(lambda stamped: shown.set())
        journal.output(0, "stdout", b"working...")
        assert shown.wait(30), "a quiet guest's last words must come out by themselves"


def test_secrets_never_reach_a_file(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.redact(["hunter2"])
        journal.output(0, "stdout", b"pass hunt")
        journal.output(0, "stderr", b"er2 is not it; ")
        journal.output(0, "stdout", b"er2 https://x/y?sig=abc")
        journal.output(0, "stdout", b"def&z")
        journal.emit(Said("hunter2 and ?sig=xyz123"))
        journal.emit(finished())
    whole = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"hunter2" not in whole and b"abc" not in whole and b"xyz123" not in whole
    assert (tmp_path / "steps/00.out").read_bytes() == b"pass er2 is not it; <redacted> https://x/y?sig=<redacted>&z"


def test_many_threads_keep_one_order(tmp_path: Path) -> None:
    seen: list[int] = []
    with Journal(tmp_path) as journal:
        journal.subscribe(lambda stamped: seen.append(stamped.seq))

        def work(index: int) -> None:
            for n in range(200):
                journal.output(index, "stdout", b"x" * 1000)
                journal.emit(Said(str(n)))

        threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert seen == list(range(len(seen)))
    assert [line["seq"] for line in lines(tmp_path)] == seen
    assert all((tmp_path / f"steps/{i:02d}.out").stat().st_size == 200_000 for i in range(4))


def test_a_subscriber_may_emit(tmp_path: Path) -> None:
    order: list[str] = []
    with Journal(tmp_path) as journal:

        def answer(stamped: Stamped) -> None:
            if stamped.event == Said("ask"):
                journal.emit(Said("answer"))

        journal.subscribe(answer)
        journal.subscribe(lambda stamped: order.append(stamped.event.text))  # type: ignore[union-attr]  # all are Said
        journal.emit(Said("ask"))
    assert order == ["ask", "answer"]


def test_memory_stays_flat(tmp_path: Path) -> None:
    chunk = b"0123456789abcde\n" * 2048
    with Journal(tmp_path) as journal:
        journal.redact(["a secret nobody prints"])
        journal.output(0, "stdout", chunk)
        tracemalloc.start()
        try:
            for _ in range(640):  # 20 MiB
                journal.output(0, "stdout", chunk)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 2 * 2**20


def test_full_disk_is_one_host_error_naming_the_path(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        (tmp_path / "steps/00.out").symlink_to("/dev/full")
        with pytest.raises(HostError) as caught:
            journal.output(0, "stdout", b"x")
        assert "steps/00.out" in caught.value.message and "No space left" in caught.value.message and caught.value.hint
        journal.output(0, "stdout", b"x")
        journal.emit(RunFinished("Failed", "Building", "no space", 3, 1.0))
    assert [line["type"] for line in lines(tmp_path)] == ["RunFinished"]


_FILLS_ITS_QUOTA = """
import resource, sys
from pathlib import Path
from hypervisor.errors import HostError
from orchestrator.record.events import RunFinished
from orchestrator.record.journal import Journal
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
with Journal(Path(sys.argv[1])) as journal:
    try:
        for _ in range(50):
            journal.output(0, "stdout", b"x" * 9_999 + b"\\n")
    except HostError as error:
        print(error.message)
    journal.emit(RunFinished("Failed", "Building", "no space", 3, 1.0))
"""


def test_what_was_written_before_the_disk_was_full_stays_whole(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", _FILLS_ITS_QUOTA, str(tmp_path)]
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    assert "steps/00.out: File too large" in done.stdout
    events = [s.event for s in read_events(tmp_path / "events.jsonl")]
    assert isinstance(events[-1], RunFinished)
    kept = b"".join(read_output(tmp_path, o) for o in events if isinstance(o, Output))
    assert kept == (b"x" * 9_999 + b"\n") * 10 == (tmp_path / "steps/00.out").read_bytes()


def test_failing_subscriber_is_reported_once_and_still_called(tmp_path: Path) -> None:
    calls = []

    def failing(stamped: Stamped) -> None:
        calls.append(stamped)
        raise HostError("cannot write customization.log")

    with Journal(tmp_path) as journal:
        journal.subscribe(failing)
        with pytest.raises(HostError, match=r"customization\.log"):
            journal.emit(Said("a"))
        journal.emit(Said("b"))
    assert len(calls) == 2 and len(lines(tmp_path)) == 2


def test_goes_on_after_a_torn_line(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.emit(Said("a"))
    with (tmp_path / "events.jsonl").open("ab") as file:
        file.write(b'{"v":1,"seq":1,"ti')
    assert [s.seq for s in read_events(tmp_path / "events.jsonl")] == [0]
    with Journal(tmp_path) as journal:
        journal.emit(Said("b"))
    stamps = list(read_events(tmp_path / "events.jsonl"))
    assert [(s.seq, s.event) for s in stamps] == [(0, Said("a")), (1, Said("b"))]
    assert stamps[1].elapsed >= stamps[0].elapsed


def test_reads_what_other_versions_wrote(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text(
        '{"v":9,"seq":0,"time":"t","elapsed":0,"type":"Said","text":"x","mood":"good"}\n'
        '{"v":9,"seq":1,"time":"t","elapsed":0,"type":"Teleported","to":"mars"}\n'
        '{"v":9,"seq":2,"time":"t","elapsed":0,"type":"Said","text":7}\n'
        "not json\n[]\n"
        '{"v":1,"seq":3,"time":"t","elapsed":0,"type":"Rebooted","index":1,"seconds":2}'
    )
    said, teleported, misshapen, rebooted = read_events(path)
    assert said.event == Said("x") and said.extra == {"mood": "good"}
    assert teleported.event == Unknown("Teleported", {"to": "mars"}) and teleported.to_json()["type"] == "Teleported"
    assert isinstance(misshapen.event, Unknown)
    assert rebooted.seq == 3


def test_event_survives_the_way_through_its_line(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        stamped = journal.emit(Said("é \udc80 \u2028 \x00"))
    (read,) = read_events(tmp_path / "events.jsonl")
    assert read.event == stamped.event and read.time == stamped.time


def test_following_ends_with_the_run(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    seen: list[Stamped] = []
    reader = threading.Thread(target=lambda: seen.extend(read_events(path, follow=True)))
    reader.start()  # before the file is there
    with Journal(tmp_path) as journal:
        journal.emit(Said("a"))
        journal.emit(RunFinished("Succeeded", "", "", 0, 1.0))
    reader.join(30)
    assert not reader.is_alive() and len(seen) == 2


def test_following_ends_when_told_to_and_reads_to_the_end(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.emit(Said("a"))
    assert [s.event for s in read_events(tmp_path / "events.jsonl", follow=True, stop=lambda: True)] == [Said("a")]
    assert list(read_events(tmp_path / "missing", follow=True, stop=lambda: True)) == []
