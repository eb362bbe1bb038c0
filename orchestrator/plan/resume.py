"""A `.part` file: what has come so far of a download, and what must hold for the rest to fit to it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from orchestrator.plan.http_errors import redact_url
from orchestrator.record.files import sync_folder, translating

_MODE = 0o600


class Part:
    """The unfinished file of one download.

    `keep` leaves it for a later call when this one fails; a note beside it then says which version of the remote file
    the bytes belong to (its strong ETag or its date), because bytes of two versions must never be put together.
    """

    def __init__(self, target: Path, url: str, *, keep: bool) -> None:
        self.target = target
        self.path = target.with_name(target.name + ".part")
        self._note = target.with_name(target.name + ".part.json")
        self._key = hashlib.sha256(url.partition("?")[0].encode()).hexdigest()
        self._url = redact_url(url)
        self._keep = keep
        self._file: IO[bytes] | None = None
        self._validator = ""

    @contextmanager
    def opened(self) -> Iterator[IO[bytes]]:
        """The file, open for reading and writing; afterwards it is gone unless it was published or is to be kept."""
        with translating("writing", self.path):
            if not self._keep:
                self.discard()
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, _MODE)
            with os.fdopen(fd, "r+b", buffering=0) as file:
                self._file = file
                self._validator = self._read_note()
                if not self._validator:
                    file.truncate(0)
                try:
                    yield file
                finally:
                    if not (self._keep and self._validator):
                        self.discard()

    @property
    def file(self) -> IO[bytes]:
        """The open file."""
        if self._file is None:
            raise RuntimeError("the part is not open")
        return self._file

    def size(self) -> int:
        """Bytes that have come so far."""
        return os.fstat(self.file.fileno()).st_size

    def ask_for_the_rest(self) -> dict[str, str]:
        """Headers that ask for what is missing, if the remote file is still the same; empty to ask for all of it."""
        size = self.size()
        return {"Range": f"bytes={size}-", "If-Range": self._validator} if size and self._validator else {}

    def begin(self, status: int, headers: Mapping[str, str]) -> int:
        """Stand ready for the body of this answer; returns the offset it begins at (0: the part begins anew)."""
        offset = self.size()
        if status != 206 or not headers.get("Content-Range", "").startswith(f"bytes {offset}-"):
            self.restart()
            offset = 0
            self._write_note(_validator(headers))
        self.file.seek(offset)
        return offset

    def write(self, data: bytes) -> None:
        """Append all of `data`."""
        view = memoryview(data)
        while view:
            view = view[self.file.write(view) :]

    def restart(self) -> None:
        """Forget what has come."""
        self.file.truncate(0)
        self.file.seek(0)
        self._validator = ""
        self._note.unlink(missing_ok=True)

    def publish(self, mode: int = _MODE) -> None:
        """Sync the file and give it the target's name."""
        with translating("writing", self.target):
            os.fchmod(self.file.fileno(), mode)
            os.fsync(self.file.fileno())
            self.path.replace(self.target)
            self._note.unlink(missing_ok=True)
            sync_folder(self.target.parent)

    def discard(self) -> None:
        """Remove the part and its note."""
        for path in (self.path, self._note):
            path.unlink(missing_ok=True)

    def _read_note(self) -> str:
        if not self._keep:
            return ""
        with suppress(FileNotFoundError, ValueError, KeyError, TypeError):
            note = json.loads(self._note.read_text())
            if note["key"] == self._key:
                return str(note["validator"])
        return ""

    def _write_note(self, validator: str) -> None:
        self._validator = validator
        if self._keep and validator:
            self._note.write_text(json.dumps({"key": self._key, "url": self._url, "validator": validator}))


def _validator(headers: Mapping[str, str]) -> str:
    """What `If-Range` may carry: a strong ETag, else the date; nothing where the server can't continue or encodes."""
    if headers.get("Content-Encoding", "identity") != "identity" or headers.get("Accept-Ranges") == "none":
        return ""
    etag = headers.get("ETag", "")
    return etag if etag.startswith('"') else headers.get("Last-Modified", "")
