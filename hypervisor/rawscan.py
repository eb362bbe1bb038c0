"""Search a whole disk, block by block, for bytes that must not be there: also where no file system shows them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hypervisor.deadline import Deadline
from hypervisor.process import run
from hypervisor.spec import DiskSpec

_CHUNK = 4 * 1024 * 1024
_KEPT = 8  # places remembered of one needle


@dataclass(frozen=True, slots=True)
class Hits:
    """How often a needle is on the disk, and where (byte offsets of the first few)."""

    count: int = 0
    offsets: tuple[int, ...] = ()


def scan(disk: DiskSpec, needles: Sequence[bytes], *, work: Path, deadline: Deadline) -> Mapping[bytes, Hits]:
    """Find `needles`, as they are and as UTF-16 (Windows), in everything that a guest could read from the disk.

    What was never written is not read. Memory stays at a few MiB; `work` needs room for the disk's allocated data.
    Raises `ProcessError` when the disk cannot be read, `DeadlineExceeded`, `Cancelled`.
    """
    raw = work / "scan.raw"
    try:
        run(["qemu-img", "convert", "-f", disk.format, "-O", "raw", disk.path, raw], deadline=deadline)
        return scan_raw(raw, needles, deadline)
    finally:
        raw.unlink(missing_ok=True)


def scan_raw(path: Path, needles: Sequence[bytes], deadline: Deadline, chunk: int = _CHUNK) -> Mapping[bytes, Hits]:
    """The same for a raw file, which may have holes."""
    forms = [(needle, form) for needle in needles for form in {needle, needle.decode("latin-1").encode("utf-16-le")}]
    overlap = max((len(form) for _, form in forms), default=1) - 1
    found: dict[bytes, list[int]] = {needle: [] for needle in needles}
    tail, tail_end = b"", -1
    with path.open("rb") as stream:
        for at, data in _extents(stream.fileno(), chunk):
            deadline.check("searching the disk for secrets")
            window = tail + data if at == tail_end else data
            start = at + len(data) - len(window)
            for needle, form in forms:
                found[needle] += _occurrences(window, form, start, new_from=at)
            tail, tail_end = window[-overlap:] if overlap else b"", at + len(data)
    return {needle: Hits(len(places), tuple(sorted(places)[:_KEPT])) for needle, places in found.items()}


def _extents(descriptor: int, chunk: int) -> Iterator[tuple[int, bytes]]:
    """(offset, bytes) of all data, holes left out, in order."""
    at, end = 0, os.fstat(descriptor).st_size
    while at < end:
        try:
            at = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError:  # ENXIO: nothing but a hole is left
            return
        stop = os.lseek(descriptor, at, os.SEEK_HOLE)
        while at < stop:
            data = os.pread(descriptor, min(chunk, stop - at), at)
            yield at, data
            at += len(data)


def _occurrences(window: bytes, form: bytes, start: int, new_from: int) -> Iterator[int]:
    """Offsets on the disk of `form` in the window; those that end before `new_from` were seen in the last one."""
    place = window.find(form)
    while place >= 0:
        if start + place + len(form) > new_from:
            yield start + place
        place = window.find(form, place + 1)
