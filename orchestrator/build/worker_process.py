"""Starting and ending a worker process, seen from the supervisor.

Every VM session is a process of its own (a process can open one embedded libvirt driver in its life), in a session of
its own, so that Ctrl-C reaches the supervisor alone. While the supervisor lives it holds the worker's standard input
open: end-of-file tells an attached worker that it is on its own and must stop.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.build.job import Job

GRACE = 10.0
"""Seconds a worker gets to undo everything after it was asked to stop (DESIGN: cancel ends within 10 s)."""


class WorkerProcess:
    """A running worker."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._exited = os.pidfd_open(process.pid)
        self._asked_at: float | None = None

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._process.pid

    def wait(self, seconds: float) -> bool:
        """Wait at most `seconds` for the worker to end; true when it has. Ends one that outstays its grace."""
        poll = select.poll()
        poll.register(self._exited, select.POLLIN)
        if self._asked_at is not None and time.monotonic() - self._asked_at > GRACE:
            self.kill()
        return bool(poll.poll(seconds * 1000))

    @property
    def asked_to_stop(self) -> bool:
        """Whether somebody asked it to stop."""
        return self._asked_at is not None

    def ask_to_stop(self) -> None:
        """SIGTERM: the worker cancels its run and undoes everything; a second request ends it at once."""
        if self._asked_at is not None:
            self.kill()
            return
        self._asked_at = time.monotonic()
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL: the kernel and the watchdog end the VM."""
        self._signal(signal.SIGKILL)

    def exit_code(self) -> int:
        """Reap the ended worker and return its exit code (negative: the signal that ended it)."""
        return self._process.wait()

    def _signal(self, number: int) -> None:
        try:
            signal.pidfd_send_signal(self._exited, number)
        except ProcessLookupError:
            pass  # it has ended meanwhile: that is what was wanted

    def close(self) -> None:
        """Let go of the worker; one that still runs is ended."""
        if self._process.poll() is None:
            self.kill()
            self._process.wait()
        if self._process.stdin:
            self._process.stdin.close()
        os.close(self._exited)


@contextmanager
def started(job: Job, log: Path) -> Iterator[WorkerProcess]:
    """Start a worker for `job`; what it prints unexpectedly (a crash of a C library) goes to `log`."""
    with log.open("ab") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "orchestrator.build.worker"],
            stdin=subprocess.PIPE,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
        )
    worker = WorkerProcess(process)
    try:
        assert process.stdin is not None
        try:
            process.stdin.write(job.to_line())
            process.stdin.flush()
        except BrokenPipeError:
            pass  # it died before it read its job; the supervisor sees that by its exit code
        yield worker
    finally:
        worker.close()
        if log.stat().st_size == 0:
            log.unlink()
