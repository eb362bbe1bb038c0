"""Bytes appended to a file so that a full disk leaves it readable."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from hypervisor.errors import HostError


class CannotWrite(HostError):
    """A file of the run could not be written (no space left, no permission, a read-only file system)."""

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(
            f"cannot write {path}: {error.strerror or error}",
            hint="free some space there (`aib gc`, `df -h`), or set AIB_HOME to a folder on another disk",
        )
        self.path = path


class Appender:
    """Appends without buffering; what could not be written whole is cut off again. Raises `CannotWrite`.

    With `whole_lines` a last line that a crash cut off is ended first, so that it can't swallow the next one.
    """

    def __init__(self, path: Path, *, whole_lines: bool = False) -> None:
        self.path = path
        self._closed = False
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise CannotWrite(path, error) from error
        self.length = os.fstat(self._descriptor).st_size
        """Bytes in the file: the offset of what comes next."""
        if whole_lines and self.length and os.pread(self._descriptor, 1, self.length - 1) != b"\n":
            self.append(b"\n")

    def append(self, data: bytes) -> None:
        """Write all of `data` at the end, or none of it."""
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError as error:
            with suppress(OSError):  # shrinking works on a full disk; on a broken one the length tells what is there
                os.ftruncate(self._descriptor, self.length)
            self.length = os.fstat(self._descriptor).st_size
            raise CannotWrite(self.path, error) from error
        self.length += len(data)

    def close(self) -> None:
        """Bring it to the disk and let go; safe to call twice."""
        if self._closed:
            return
        self._closed = True
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise CannotWrite(self.path, error) from error
        finally:
            os.close(self._descriptor)
