"""The watchdog: a process of its own that ends the VM and removes its files when the process that owns them dies.

It holds the read end of a pipe and a handle on its parent; whichever closes first tells that the owner is gone. It
lives in a session of its own, so that neither Ctrl-C nor a kill of the owner's process group reaches it. (Where the
owner could make itself the reaper of its descendants the kernel has ended QEMU before: see `hypervisor.emulator`.)
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

from hypervisor import runtime

_RELEASED = b"released"
_LOCK_WAIT = 10.0  # seconds a dying owner may take to let go of its lock
# Isolated and without site-packages: 20 ms sooner on guard, and nothing on sys.path can get in its way.
_PROGRAM = "import sys; sys.path.append(sys.argv[1]); from hypervisor.watchdog import main; main(sys.argv[2:])"


class Watchdog:
    """Context manager: on guard over a runtime folder until it is left."""

    def __init__(self, folder: runtime.RuntimeFolder) -> None:
        package = Path(__file__).resolve().parent.parent
        words = [sys.executable, "-I", "-S", "-c", _PROGRAM, str(package), str(folder.path), str(os.getpid())]
        # Not hypervisor.process.run: this one has to live on when we do not.
        self._process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )

    @property
    def pid(self) -> int:
        """The watchdog's process id."""
        return self._process.pid

    def __enter__(self) -> Watchdog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Send it home: the owner has cleaned up by itself."""
        with contextlib.suppress(BrokenPipeError):  # somebody killed it; there is nothing left to guard
            self._process.communicate(_RELEASED)
        self._process.wait()


def main(arguments: list[str]) -> None:
    """`<runtime folder> <owner's process id>`, with the pipe as stdin."""
    path, owner = Path(arguments[0]), int(arguments[1])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends when its owner does, and not before
    if not _released(owner):
        clean_up_after_death(path)


def _released(owner: int) -> bool:
    """Wait for the owner's word or its death."""
    poll = select.poll()
    poll.register(0, select.POLLIN)
    with contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open(owner)
        if os.getppid() == owner:
            poll.register(handle, select.POLLIN)
    poll.poll()
    os.set_blocking(0, False)
    with contextlib.suppress(BlockingIOError):
        return os.read(0, len(_RELEASED)) == _RELEASED
    return False


def clean_up_after_death(path: Path) -> None:
    """End the VMs of the dead owner at once; then, holding its lock, remove its files."""
    runtime.end_machines(path)
    until = time.monotonic() + _LOCK_WAIT
    while time.monotonic() < until and path.exists():
        folder = runtime.take_over(path)
        if folder is not None:
            folder.remove()
            return
        time.sleep(0.05)  # the owner is being torn down, or another process sweeps already
