"""Images of public hosts: which releases there are, and one of them downloaded, verified and unpacked."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

from hypervisor.deadline import Deadline
from hypervisor.errors import InputError
from orchestrator.plan import http
from orchestrator.plan.catalogue import UrlSource
from orchestrator.plan.checksums import Checksum, find_checksum
from orchestrator.plan.unpack import unpack
from orchestrator.plan.version_order import version_key
from orchestrator.record import files
from orchestrator.record.store import Store

Progress = Callable[[int, int | None], None]
Say = Callable[[str], None]

_DOWNLOADS = "downloads"
# The caller's deadline is what usually ends a download; a gigabyte over a slow line may take hours.
LIMITS = http.Limits(size=256 << 30, total=12 * 3600.0)
_HREF = re.compile(r"""href\s*=\s*["']?([^"'\s>]+)""", re.IGNORECASE)
_WORD = re.compile(r"[^\s()*]+")


@dataclass(frozen=True, slots=True)
class Release:
    """One release of an image: its version here, and where its file and its checksums are."""

    version: str
    url: str
    sums: str


def releases(source: UrlSource, deadline: Deadline) -> tuple[Release, ...]:
    """What the source's index offers, oldest first; raises `InputError` when it cannot be read or names nothing."""
    text = http.read(source.index, deadline=deadline).decode(errors="replace")
    found = {}
    for name in _names(text):
        if match := source.release.fullmatch(name):
            groups = {"release": name, **match.groupdict("")}
            version = source.version.format(**{key: value or "0" for key, value in groups.items()})
            url = urljoin(source.index, source.file.format(**groups))
            found[version] = Release(version, url, urljoin(source.index, source.sums.format(**groups)))
    if not found:
        raise InputError(
            f"{source.index} names no release that the catalogue recognizes ({source.release.pattern})",
            hint="the host's layout has changed: correct the entry in your own catalogue file",
        )
    return tuple(sorted(found.values(), key=lambda release: version_key(release.version)))


def _names(text: str) -> set[str]:
    """The last parts of all links of an HTML page; all words of a page without links (a checksum file)."""
    links = [urlsplit(unescape(link)).path for link in _HREF.findall(text)] or _WORD.findall(text)
    return {unquote(link.rstrip("/").rsplit("/", 1)[-1]) for link in links}


def expected_checksum(release: Release, deadline: Deadline) -> Checksum:
    """What the release's checksum file says about its file."""
    text = http.read(release.sums, deadline=deadline).decode(errors="replace")
    return find_checksum(text, _file_name(release.url), release.sums)


def pull(
    release: Release, store: Store, target: Path, *, deadline: Deadline, say: Say, progress: Progress | None = None
) -> str:
    """Download the release's disk to `target`, verified and unpacked; returns the checksum as `sha256:HEX`.

    A download that is cut off stays in the store and is continued by the next call; a wrong checksum leaves nothing.
    """
    checksum = expected_checksum(release, deadline)
    folder = store.home / _DOWNLOADS
    with files.translating("creating", folder):
        folder.mkdir(mode=0o700, exist_ok=True)
    archive = folder / hashlib.sha256(release.url.encode()).hexdigest()
    say(f"downloading {release.url}")
    http.download(
        release.url,
        archive,
        deadline=deadline,
        limits=LIMITS,
        expected={checksum.algorithm: checksum.hex},
        resume=True,
        progress=progress or _tenths(say),
    )
    try:
        say(f"unpacking {_file_name(release.url)}")
        unpack(archive, _file_name(release.url), target, deadline)
    finally:
        archive.unlink(missing_ok=True)
    return f"{checksum.algorithm}:{checksum.hex}"


def _file_name(url: str) -> str:
    return unquote(urlsplit(url).path.rsplit("/", 1)[-1])


def _tenths(say: Say) -> Progress:
    """Progress as a line for every tenth, for whoever gave no callback."""
    said = 0

    def progress(done: int, total: int | None) -> None:
        nonlocal said
        tenth = done * 10 // total if total else 0
        if tenth > said and total:
            said = tenth
            say(f"downloaded {tenth * 10} % of {total / 1e6:.0f} MB")

    return progress
