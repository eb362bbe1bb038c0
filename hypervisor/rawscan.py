"""Search a whole disk, block by block, for bytes that must not be there: also where no file system shows them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from hypervisor.deadline import Deadline
from hypervisor.process import run
from hypervisor.qcow2_map import Piece, written
from hypervisor.spec import DiskSpec

_CHUNK = 4 * 1024 * 1024
_KEPT = 8  # places remembered of one needle


@dataclass(frozen=True, slots=True)
class Hits:
    """How often a needle is on the disk, and where (byte offsets of the first few)."""

    count: int = 0
    offsets: tuple[int, ...] = ()


def scan(
    disk: DiskSpec, needles: Sequence[bytes], *, work: Path, deadline: Deadline, base: Path | None = None
) -> Mapping[bytes, Hits]:
    """Find `needles`, as they are and as UTF-16 (Windows), in everything that a guest could read from the disk.

    What was never written is not read, nor what still is as in `base`, an image of the disk's backing chain that is
    older than the needles. Memory stays at a few MiB; `work` needs room for the disk's allocated data where the disk
    is not an uncompressed qcow2. Raises `ProcessError` when the disk cannot be read, `DeadlineExceeded`, `Cancelled`.
    """
    pieces = written(disk.path, disk.format, base, deadline)
    if pieces is not None:
        return _search(_read(pieces, _CHUNK), needles, deadline)
    raw = work / "scan.raw"
    try:
        run(["qemu-img", "convert", "-f", disk.format, "-O", "raw", disk.path, raw], deadline=deadline)
        return scan_raw(raw, needles, deadline)
    finally:
        raw.unlink(missing_ok=True)


def scan_raw(path: Path, needles: Sequence[bytes], deadline: Deadline, chunk: int = _CHUNK) -> Mapping[bytes, Hits]:
    """The same for a raw file, which may have holes."""
    with path.open("rb") as stream:
        return _search(_extents(stream.fileno(), chunk), needles, deadline)


def _search(pieces: Iterable[tuple[int, bytes]], needles: Sequence[bytes], deadline: Deadline) -> Mapping[bytes, Hits]:
    """`pieces` are (offset, bytes) in order; what adjoins is searched as one."""
    forms = [(needle, form) for needle in needles for form in {needle, needle.decode("latin-1").encode("utf-16-le")}]
    overlap = max((len(form) for _, form in forms), default=1) - 1
    found: dict[bytes, list[int]] = {needle: [] for needle in needles}
    tail, tail_end = b"", -1
    for at, data in pieces:
        deadline.check("searching the disk for secrets")
        window = tail + data if at == tail_end else data
        start = at + len(data) - len(window)
        for needle, form in forms:
            found[needle] += _occurrences(window, form, start, new_from=at)
        tail, tail_end = window[-overlap:] if overlap else b"", at + len(data)
    return {needle: Hits(len(places), tuple(sorted(places)[:_KEPT])) for needle, places in found.items()}


def _read(pieces: Iterable[Piece], chunk: int) -> Iterator[tuple[int, bytes]]:
    """(offset on the disk, bytes) of all pieces, straight from the files that hold them."""
    with ExitStack() as stack:
        streams: dict[Path, IO[bytes]] = {}
        for piece in pieces:
            if piece.path not in streams:
                streams[piece.path] = stack.enter_context(piece.path.open("rb", buffering=0))
            done = 0
            while done < piece.length:
                data = os.pread(streams[piece.path].fileno(), min(chunk, piece.length - done), piece.offset + done)
                if not data:
                    break  # a cluster at the end of the file that was not written whole: the rest is zero
                yield piece.start + done, data
                done += len(data)


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
