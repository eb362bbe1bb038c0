"""Bounds calls of paramiko that block without a time limit."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import paramiko

from hypervisor.deadline import Deadline
from provisioners.communicators.base import ConnectionLost

POLL_SECONDS = 0.1

# What paramiko raises for a connection that ended under it.
GONE = (EOFError, ConnectionError, paramiko.SSHException)


class Guard:
    """Watches one blocking call; `beat` says that it made progress."""

    def __init__(self, deadline: Deadline, stall: float, interrupted: Callable[[], bool] | None) -> None:
        self._deadline = deadline
        self._stall = stall
        self._interrupted = interrupted
        self._done = threading.Event()
        self._progress = time.monotonic()
        self.reason = ""

    def beat(self) -> None:
        """The call moved on."""
        self._progress = time.monotonic()

    def watch(self, cut: Callable[[], None]) -> None:
        """Run in a thread: `cut` ends the blocking call when its time is over."""
        while not self._done.wait(POLL_SECONDS):
            if self._deadline.over:
                self.reason = "the time is over"
            elif time.monotonic() - self._progress > self._stall:
                self.reason = f"the guest did not answer for {self._stall:.0f} s"
            elif self._interrupted is not None and self._interrupted():
                self.reason = "the guest rebooted"
            if self.reason:
                cut()
                return

    def finish(self) -> None:
        """The call ended."""
        self._done.set()


@contextmanager
def guarded(
    cut: Callable[[], None],
    deadline: Deadline,
    doing: str,
    *,
    stall: float,
    interrupted: Callable[[], bool] | None = None,
) -> Iterator[Guard]:
    """Bound a blocking exchange with the guest by `deadline` and by `stall` seconds without progress.

    Raises `DeadlineExceeded`/`Cancelled` as the deadline says, `ConnectionLost` for a connection that went away.
    """
    deadline.check(doing)
    guard = Guard(deadline, stall, interrupted)
    thread = threading.Thread(target=guard.watch, args=(cut,), name="ssh-guard", daemon=True)
    thread.start()
    try:
        yield guard
    except GONE as error:
        deadline.check(doing)
        why = guard.reason or str(error) or type(error).__name__
        raise ConnectionLost(f"the connection to the guest was lost while {doing}: {why}") from error
    finally:
        guard.finish()
        thread.join()
    if guard.reason:  # it came to its end just when it was cut off
        deadline.check(doing)
        raise ConnectionLost(f"the connection to the guest was lost while {doing}: {guard.reason}")
