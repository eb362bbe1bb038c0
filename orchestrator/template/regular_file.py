"""Reading files that a template or a project names: ordinary files alone, never more than was asked for.

A template can name anything: a FIFO or a device that never answers, `/proc/kmsg` that waits for the next message of the
kernel, a file that grows while it is read. None of them may hold a check up, or fill the memory.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def open_regular(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """The file opened for reading, and its size in bytes. Read no more than that many.

    A file of size 0 has to be left unread: so report themselves those of /proc whose reader would wait for ever.
    Raises OSError: EISDIR for a folder, EINVAL for what is neither a folder nor an ordinary file.
    """
    _require_regular(path, path.stat())  # before it is opened: opening alone can act on a device
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        _require_regular(path, status)  # the name may have changed hands in between
        yield file, status.st_size


def read_regular(path: Path, limit: int) -> bytes:
    """The first `limit` bytes of an ordinary file at most. Raises OSError as `open_regular` does."""
    with open_regular(path) as (file, size):
        return file.read(min(size, limit)) if size else b""


def chunks(file: BinaryIO, size: int, chunk: int = 1 << 20) -> Iterator[bytes]:
    """The `size` bytes of an opened file piece by piece; fewer when it was cut short meanwhile."""
    left = size
    while left > 0 and (data := file.read(min(chunk, left))):
        left -= len(data)
        yield data


def _require_regular(path: Path, status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
