"""Several builds at once: which there are, when each may start, and what stops them."""

from __future__ import annotations

import io
import os
import signal
import threading
from pathlib import Path

import pytest

from orchestrator.build.at_once import Stops, Task, run_all
from orchestrator.build.options import BuildOptions
from orchestrator.plan.sizes import RESERVE_MIB, HostCapacity
from orchestrator.verbs.build_many import variants
from orchestrator.views.many import make_consoles, overview

WAIT = 30.0
HOST = HostCapacity(cpus=4, memory_mib=RESERVE_MIB + 8192)


class Bench:
    """Tasks that tell who ran beside whom."""

    def __init__(self) -> None:
        self.busy: set[str] = set()
        self.beside: dict[str, set[str]] = {}
        self.order: list[str] = []
        self.lock = threading.Lock()
        self.meet = threading.Barrier(2)

    def task(self, name: str, vcpus: int, memory_mib: int, *, meets: bool = False) -> Task[str]:
        def run(_: Stops) -> str:
            with self.lock:
                self.order.append(name)
                self.busy.add(name)
                for each in self.busy:
                    self.beside.setdefault(each, set()).update(self.busy - {each})
                self.beside[name] |= self.busy - {name}
            if meets:
                self.meet.wait(WAIT)
            with self.lock:
                self.busy.discard(name)
            return name.upper()

        return Task(vcpus, memory_mib, run)


def test_what_fits_runs_at_once_and_the_results_keep_their_order() -> None:
    bench = Bench()
    tasks = [bench.task("a", 2, 1024, meets=True), bench.task("b", 2, 1024, meets=True), bench.task("c", 4, 1024)]
    assert run_all(tasks, HOST) == ["A", "B", "C"]
    assert bench.beside == {"a": {"b"}, "b": {"a"}, "c": set()}


@pytest.mark.parametrize(("vcpus", "memory"), [(3, 1024), (1, 5000)])
def test_what_does_not_fit_waits(vcpus: int, memory: int) -> None:
    bench = Bench()
    run_all([bench.task(name, vcpus, memory) for name in "abc"], HOST)
    assert bench.beside == {"a": set(), "b": set(), "c": set()}
    assert bench.order == ["a", "b", "c"]


def test_a_small_one_passes_a_great_one_that_waits() -> None:
    bench = Bench()
    tasks = [bench.task("a", 3, 1, meets=True), bench.task("great", 4, 1), bench.task("small", 1, 1, meets=True)]
    run_all(tasks, HOST)
    assert bench.beside["a"] == {"small"}


def test_one_greater_than_the_machine_runs_alone() -> None:
    bench = Bench()
    assert run_all([bench.task("giant", 64, 1 << 20), bench.task("b", 1, 1)], HOST) == ["GIANT", "B"]
    assert bench.beside["giant"] == set()


def test_not_more_at_a_time_than_asked_for() -> None:
    bench = Bench()
    run_all([bench.task(name, 1, 1) for name in "abcd"], HOST, most=1)
    assert all(not others for others in bench.beside.values())


def test_a_signal_stops_what_runs_and_keeps_the_rest_from_starting() -> None:
    told: list[str] = []

    def run(stops: Stops) -> str:
        asked = threading.Event()
        with stops.telling(asked.set):
            os.kill(os.getpid(), signal.SIGINT)
            told.append("told" if asked.wait(WAIT) else "not told")
        return "ended"

    assert run_all([Task(4, 1, run), Task(4, 1, run)], HOST) == ["ended", None]
    assert told == ["told"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_who_comes_after_the_signal_is_told_at_once_and_told_again() -> None:
    stops, told = Stops(), []
    stops.stop()
    with stops.telling(lambda: told.append(1)):
        stops.stop()
    stops.stop()
    assert told == [1, 1]


def test_an_error_is_raised_when_the_others_have_ended() -> None:
    ended = threading.Event()
    begun = threading.Event()

    def fails(_: Stops) -> str:
        assert begun.wait(WAIT)
        raise OSError("no space left")

    def goes_on(_: Stops) -> str:
        begun.set()
        ended.set()
        return ""

    with pytest.raises(OSError, match="no space left"):
        run_all([Task(1, 1, fails), Task(1, 1, goes_on)], HOST)
    assert ended.is_set()


def test_every_combination_of_the_matrix() -> None:
    options = BuildOptions(parameters={"size": "small"}, settings={"who": "me"})
    found = list(variants([Path("x.json"), Path("y.json")], {"os": ["11", "12"], "<who>": ["you"]}, options))
    assert [label for label, _, _ in found] == [
        "x os=11 who=you",
        "x os=12 who=you",
        "y os=11 who=you",
        "y os=12 who=you",
    ]
    _, path, own = found[1]
    assert (path, own.parameters, own.settings) == (Path("x.json"), {"size": "small", "os": "12"}, {"who": "you"})


def test_files_of_one_name_are_told_apart() -> None:
    assert [label for label, _, _ in variants([Path("a/t.json"), Path("b/t.json")], {}, BuildOptions())] == [
        "a/t.json",
        "b/t.json",
    ]


def test_every_line_says_whose_it_is() -> None:
    stream = io.StringIO()
    short, long = make_consoles(["a", "long one"], stream)
    short.line("begun", elapsed=61.0)
    long.line("begun")
    assert stream.getvalue() == "a        | [01:01] begun\nlong one | begun\n"
    assert "not started" in overview([("a", None, None)])[1]
