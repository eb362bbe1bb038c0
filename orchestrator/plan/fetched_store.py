"""`AIB_HOME/fetched`: scripts and files by their sha256, and which URL gave which.

fetched/<sha256>              mode 0444, published whole
fetched/urls/<key>.json       the last answer of one URL; the key is the sha256 of the URL without its SAS token
fetched/incoming/<random>/    unfinished; cleared when a day old
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from orchestrator.plan.credentials import has_signature
from orchestrator.plan.http_errors import redact_url
from orchestrator.record import files

_DIGEST = re.compile(r"[0-9a-f]{64}")
_STALE_SECONDS = 24 * 3600.0
_SAS_PARAMETERS = {
    "sv", "sr", "sp", "st", "se", "sip", "spr", "sig", "ss", "srt", "si", "ses", "sdd", "snapshot",
    "skoid", "sktid", "skt", "ske", "sks", "skv", "saoid", "suoid", "scid", "rscc", "rscd", "rsce", "rscl", "rsct",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Stored:
    """A file of the store."""

    path: Path
    sha256: str
    size: int


def without_sas(url: str) -> str:
    """The URL without credentials: no user info, no fragment, and no SAS parameters where it is signed."""
    parts = urlsplit(url)
    query = parts.query
    if has_signature(url):
        kept = [(k, v) for k, v in parse_qsl(query, keep_blank_values=True) if k.lower() not in _SAS_PARAMETERS]
        query = urlencode(kept)
    return urlunsplit((parts.scheme.lower(), parts.netloc.rpartition("@")[2].lower(), parts.path, query, ""))


class FetchedStore:
    """Content-addressed, safe for several processes at once."""

    def __init__(self, home: Path) -> None:
        self.root = home / "fetched"
        self._urls = self.root / "urls"
        self._incoming = self.root / "incoming"
        with files.translating("creating", self.root):
            for folder in (self.root, self._urls, self._incoming):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._sweep()

    def find(self, sha256: str) -> Stored | None:
        """The file of this digest, or None; a damaged one is removed and counts as absent."""
        if not _DIGEST.fullmatch(sha256):
            return None
        path = self.root / sha256
        if not path.is_file():
            return None
        if files.sha256(path) != sha256:
            path.unlink(missing_ok=True)
            return None
        return Stored(path, sha256, path.stat().st_size)

    @contextmanager
    def incoming(self) -> Iterator[Path]:
        """A path for a new file, on the store's file system, in a folder that is gone afterwards."""
        with files.translating("writing in", self._incoming):
            folder = Path(tempfile.mkdtemp(dir=self._incoming))
        try:
            yield folder / "file"
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def publish(self, path: Path, sha256: str) -> Stored:
        """Move the finished and synced file `path`, whose digest is `sha256`, to its name."""
        target = self.root / sha256
        with files.translating("writing", target):
            path.chmod(0o444)
            size = path.stat().st_size
            path.replace(target)
            files.sync_folder(self.root)
        return Stored(target, sha256, size)

    def remember(self, url: str, stored: Stored) -> None:
        """Note what `url` gave, for `--offline`."""
        note = {"url": redact_url(without_sas(url)), "sha256": stored.sha256, "size": stored.size, "time": time.time()}
        files.publish_json(self._note(url), note)

    def last_answer(self, url: str) -> Stored | None:
        """What `url` gave when it was last fetched, or None."""
        note = files.read_json(self._note(url))
        return self.find(str(note.get("sha256", ""))) if note else None

    def _note(self, url: str) -> Path:
        return self._urls / f"{hashlib.sha256(without_sas(url).encode()).hexdigest()}.json"

    def _sweep(self) -> None:
        """Remove what processes left that were killed while they fetched."""
        for folder in self._incoming.iterdir():
            try:
                old = time.time() - folder.stat().st_mtime > _STALE_SECONDS
            except FileNotFoundError:
                continue
            if old:
                shutil.rmtree(folder, ignore_errors=True)
