"""Following a run for a browser: server-sent events with what its log and its record gained."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from orchestrator.record.runs import RunFolder

POLL_SECONDS = 0.05
KEEP_ALIVE_SECONDS = 15.0
FIRST_BYTES = 64 * 1024
"""So much of a log comes with the page itself; the whole of it is a download."""
LARGEST_PIECE = 256 * 1024


@dataclass(frozen=True, slots=True)
class LogEnd:
    """The end of a log: whole lines, where they end in the file (bytes), and whether something is before them."""

    text: str
    offset: int
    cut: bool


def log_end(log: Path) -> LogEnd:
    """The last lines of a log; nothing when there is none yet."""
    try:
        with log.open("rb") as file:
            end = file.seek(0, 2)
            file.seek(begin := max(0, end - FIRST_BYTES))
            data = file.read(end - begin)
    except FileNotFoundError:
        return LogEnd("", 0, cut=False)
    if begin:
        data = data.partition(b"\n")[2]
    return LogEnd(data.decode("utf-8", "backslashreplace"), end, cut=begin > 0)


async def follow(
    folder: RunFolder,
    offset: int,
    *,
    fragment: Callable[[], str],
    gone: Callable[[], Awaitable[bool]],
) -> AsyncIterator[bytes]:
    """Events `log` (text), `state` (the page's changing part as HTML) and at last `end`, until the run ends.

    `offset`: where in the log the reader is. Each carries the offset as its id, so that a browser that comes back
    goes on there. Polls, as files are all that a run and its readers share.
    """
    log, stamp, quiet = folder.customization_log, _stamp(folder), 0.0
    yield _event("state", fragment(), offset)
    while not await gone():
        ended = not folder.alive()  # asked before the last look: what was written until then is still sent
        said = False
        while piece := _read(log, offset):
            offset += len(piece)
            yield _event("log", piece.decode("utf-8", "backslashreplace"), offset)
            said = True
        if (now := _stamp(folder)) != stamp or ended:
            stamp, said = now, True
            yield _event("state", fragment(), offset)
        if ended:
            yield _event("end", "", offset)
            return
        quiet = 0.0 if said else quiet + POLL_SECONDS
        if quiet >= KEEP_ALIVE_SECONDS:
            quiet = 0.0
            yield b": still here\n\n"
        await asyncio.sleep(POLL_SECONDS)


def _read(log: Path, offset: int) -> bytes:
    """Whole lines from `offset` on; a very long line comes in pieces."""
    try:
        with log.open("rb") as file:
            file.seek(offset)
            data = file.read(LARGEST_PIECE)
    except FileNotFoundError:
        return b""
    whole = data.rfind(b"\n") + 1
    return data[:whole] if whole or len(data) < LARGEST_PIECE else data


def _stamp(folder: RunFolder) -> tuple[int, int]:
    try:
        stat = folder.record.stat()
    except FileNotFoundError:
        return (0, 0)
    return stat.st_mtime_ns, stat.st_ino


def _event(kind: str, data: str, offset: int) -> bytes:
    return f"event: {kind}\nid: {offset}\ndata: {json.dumps(data)}\n\n".encode()
