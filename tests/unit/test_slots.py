"""The queue of builds over all processes of a store."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

from orchestrator.build.slots import Need, Slots
from orchestrator.plan.sizes import RESERVE_MIB, HostCapacity

HOST = HostCapacity(cpus=4, memory_mib=RESERVE_MIB + 8192)
WAIT = 30.0


class Waiter:
    """One build that waits in a thread; `go` ends it, `stop` gives up waiting."""

    def __init__(self, slots: Slots, need: Need) -> None:
        self.waiting, self.running, self.go, self.stop = (threading.Event() for _ in range(4))
        self.granted: bool | None = None
        self.thread = threading.Thread(target=self._work, args=(slots, need), daemon=True)
        self.thread.start()

    def _work(self, slots: Slots, need: Need) -> None:
        with slots.waited_for(need, lambda seconds: self.stop.wait(min(seconds, 0.01)), self.waiting.set) as granted:
            self.granted = granted
            if granted:
                self.running.set()
                self.go.wait(WAIT)

    def end(self) -> None:
        self.go.set()
        self.thread.join(WAIT)
        assert not self.thread.is_alive()


def test_what_does_not_fit_waits_until_there_is_room(tmp_path: Path) -> None:
    slots = Slots(tmp_path, HOST)
    first = Waiter(slots, Need(3, 1024))
    assert first.running.wait(WAIT)
    second = Waiter(slots, Need(2, 1024))
    assert second.waiting.wait(WAIT) and not second.running.is_set()
    small = Waiter(slots, Need(1, 512))
    assert small.running.wait(WAIT), "what fits passes what does not"
    first.end()
    assert second.running.wait(WAIT)
    second.end()
    small.end()
    assert list((tmp_path / "locks" / "builds").glob("*.ticket")) == []


def test_who_came_first_goes_first(tmp_path: Path) -> None:
    slots = Slots(tmp_path, HOST)
    first = Waiter(slots, Need(4, 1024))
    assert first.running.wait(WAIT)
    second = Waiter(slots, Need(4, 1024))
    assert second.waiting.wait(WAIT)
    third = Waiter(slots, Need(4, 1024))
    assert third.waiting.wait(WAIT)
    first.end()
    assert second.running.wait(WAIT) and not third.running.is_set()
    second.end()
    assert third.running.wait(WAIT)
    third.end()


def test_one_that_gives_up_does_not_run(tmp_path: Path) -> None:
    slots = Slots(tmp_path, HOST)
    with slots.counted(Need(4, 1024)):
        waiter = Waiter(slots, Need(1, 512))
        assert waiter.waiting.wait(WAIT)
        waiter.stop.set()
        waiter.end()
        assert waiter.granted is False


def test_the_greatest_runs_alone_and_a_dead_process_blocks_nobody(tmp_path: Path) -> None:
    code = (
        "import sys, os, pathlib\n"
        "from orchestrator.build.slots import Need, Slots\n"
        "with Slots(pathlib.Path(sys.argv[1])).counted(Need(64, 999999)):\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == -9
    assert len(list((tmp_path / "locks" / "builds").glob("*.ticket"))) == 1
    waiter = Waiter(Slots(tmp_path, HOST), Need(64, 999999))
    assert waiter.running.wait(WAIT)
    waiter.end()
