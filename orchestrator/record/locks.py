"""Advisory locks (flock): who is alive and who reads is decided by held locks, never by process ids.

A lock belongs to an open file description, so it goes with its process however that ends, and two threads of one
process exclude each other like two processes do. Descriptors are not inherited by children.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypervisor.deadline import Deadline
from hypervisor.errors import DeadlineExceeded, HostError

WRITE_WAIT = 60.0
"""Seconds to wait for another process's short critical section before saying that it hangs."""


def try_lock(fd: int, *, exclusive: bool) -> bool:
    """Take the lock if nobody is in the way; true when it is held."""
    try:
        fcntl.flock(fd, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def lock(fd: int, path: Path, *, exclusive: bool, seconds: float = WRITE_WAIT) -> None:
    """Take the lock, waiting at most `seconds`; `HostError` when another process keeps it longer."""
    deadline = Deadline.after(seconds)
    try:
        deadline.wait_until(lambda: try_lock(fd, exclusive=exclusive), f"waiting for {path}", interval=0.01)
    except DeadlineExceeded:
        raise HostError(
            f"another aib process has kept {path} locked for {seconds:.0f} seconds",
            hint=f"`fuser -v {path}` shows which process it is; end it, and try again",
        ) from None


def unlock(fd: int) -> None:
    """Give the lock up."""
    fcntl.flock(fd, fcntl.LOCK_UN)


def is_linked(fd: int, path: Path) -> bool:
    """Whether `path` still names the file behind `fd`: a lock on a removed file protects nothing."""
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


@contextmanager
def locked(path: Path, *, exclusive: bool) -> Iterator[None]:
    """Hold the lock file `path` (created when missing) for the time of the block."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        lock(fd, path, exclusive=exclusive)
        yield
    finally:
        os.close(fd)
