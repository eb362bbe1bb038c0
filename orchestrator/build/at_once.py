"""Several builds at once: each starts when this machine has the vCPUs and the memory that its build VM gets."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Generic, Protocol, TypeVar

from orchestrator.plan.sizes import RESERVE_MIB, HostCapacity

T = TypeVar("T")
POLL = 0.2


@dataclass(frozen=True, slots=True)
class Task(Generic[T]):
    """One build: what its VM gets, and what runs it to its end."""

    vcpus: int
    memory_mib: int
    run: Callable[[Stops], T]


@dataclass
class Stops:
    """Who is to be told when a signal asks everything to stop; the second signal is told as well."""

    asked: bool = field(default=False, init=False)
    _tell: list[Callable[[], None]] = field(default_factory=list, init=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, init=False)

    @contextmanager
    def telling(self, tell: Callable[[], None]) -> Iterator[None]:
        """`tell` is called at every request during the block, and at once when there was one already."""
        with self._lock:
            self._tell.append(tell)
            if self.asked:
                tell()
        try:
            yield
        finally:
            with self._lock:
                self._tell.remove(tell)

    def stop(self) -> None:
        """Ask everybody to stop. A signal handler may call it."""
        with self._lock:
            self.asked = True
            for tell in list(self._tell):
                tell()

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """SIGINT, SIGTERM and SIGHUP ask to stop; for the main thread."""

        def told(_number: int, _frame: FrameType | None) -> None:
            self.stop()

        watched = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, told) for number in watched}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def run_all(tasks: Sequence[Task[T]], host: HostCapacity, most: int | None = None) -> list[T | None]:
    """Run the tasks, in this order as far as there is room, at most `most` at a time; their results in the same order.

    One that is greater than the machine runs alone. None stands for a task that never started, because a signal came
    first. What a task raises is raised after the others have ended.
    """
    stops, waiting = Stops(), list(range(len(tasks)))
    running: dict[Future[T], int] = {}
    results: list[T | None] = [None] * len(tasks)
    errors: list[BaseException] = []
    with stops.on_signals(), ThreadPoolExecutor(len(tasks), thread_name_prefix="build") as pool:
        while (waiting and not stops.asked and not errors) or running:
            for number in [] if stops.asked or errors else list(waiting):
                busy = [tasks[each] for each in running.values()]
                if (most is None or len(busy) < most) and fits(tasks[number], busy, host):
                    waiting.remove(number)
                    running[pool.submit(tasks[number].run, stops)] = number
            for future in wait(running, POLL, FIRST_COMPLETED).done:
                number = running.pop(future)
                if error := future.exception():
                    errors.append(error)
                else:
                    results[number] = future.result()
    if errors:
        raise errors[0]
    return results


class Needs(Protocol):
    """What a build VM takes of this machine."""

    @property
    def vcpus(self) -> int:
        """Logical CPUs."""

    @property
    def memory_mib(self) -> int:
        """Memory in MiB."""


def fits(task: Needs, busy: Sequence[Needs], host: HostCapacity) -> bool:
    """Whether this machine carries `task` beside the `busy` ones; one that is greater than it runs alone."""
    vcpus = sum(each.vcpus for each in busy) + task.vcpus
    memory = sum(each.memory_mib for each in busy) + task.memory_mib
    return not busy or (vcpus <= host.cpus and memory <= host.memory_mib - RESERVE_MIB)
