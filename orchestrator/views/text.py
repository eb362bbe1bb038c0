"""Bytes of a guest as text that can do a terminal no harm; durations and sizes for people."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

LONGEST_PIECE = 1 << 15
"""Bytes of one line that are handled at a time: an endless line must not fill the memory."""
LONGEST_SHOWN = 500
"""Characters of one line that a person is shown."""

_ESCAPE_SEQUENCES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[PX^_][^\x1b]*(?:\x1b\\)?|[ -/]*[0-~])"
)
# Control characters, line separators, and the marks that turn the direction of writing around.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class Piece(NamedTuple):
    """A line without its end, or a part of one: `more` says that it goes on, `rest` that it is not its beginning."""

    data: bytes
    more: bool = False
    rest: bool = False


class LineSplitter:
    """Cuts a stream of bytes into lines; holds back at most one piece."""

    def __init__(self) -> None:
        self._held = b""
        self._in_line = False

    def feed(self, data: bytes) -> Iterator[Piece]:
        """The lines that are whole now, and pieces of one that is too long to wait for."""
        *lines, self._held = (self._held + data).split(b"\n")
        for line in lines:
            if self._in_line or len(line) > LONGEST_PIECE:
                yield from self._cut(line, ended=True)
            else:
                yield Piece(line)
        if len(self._held) >= LONGEST_PIECE:
            held, self._held = self._held, b""
            yield from self._cut(held, ended=False)

    def finish(self) -> Iterator[Piece]:
        """What came without a line end."""
        held, self._held = self._held, b""
        if held or self._in_line:
            yield from self._cut(held, ended=True)

    def _cut(self, line: bytes, *, ended: bool) -> Iterator[Piece]:
        for at in range(0, len(line) or 1, LONGEST_PIECE):
            last = at + LONGEST_PIECE >= len(line)
            yield Piece(line[at : at + LONGEST_PIECE], more=not (last and ended), rest=self._in_line)
            self._in_line = not (last and ended)


def clean_line(line: bytes) -> bytes:
    """The line as Packer logs it: nothing of what a carriage return overwrote, no blanks at its end (PKR)."""
    return line.rstrip().rpartition(b"\r")[2]


def printable(data: bytes, limit: int = LONGEST_SHOWN) -> str:
    """One line for a terminal: colours and cursor movements gone, other control characters and broken UTF-8 escaped.

    At most `limit` characters, and then how long the whole line is.
    """
    cut = data[: 4 * limit]  # a character is at most four bytes
    text = safe(cut.decode("utf-8", "backslashreplace"))
    if len(text) <= limit and len(cut) == len(data):
        return text
    return f"{text[:limit]}… (a line of {len(data)} bytes)"


def safe(text: str) -> str:
    """The same text with nothing in it that a terminal would obey."""
    plain = _ESCAPE_SEQUENCES.sub("", text.expandtabs(4))
    return _UNSAFE.sub(lambda match: match.group().encode("unicode_escape").decode("ascii"), plain)


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min 05 s`, `2 h 07 min`."""
    if seconds < 10:
        return f"{max(0.0, seconds):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def clock(seconds: float) -> str:
    """`03:07` or `1:02:03`: time since the run began."""
    whole = int(max(0.0, seconds))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes:02d}:{whole % 60:02d}"


def size(count: float) -> str:
    """`512 B`, `1.5 MiB`, `10.0 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows under a head, columns as wide as they must be; the last column is not filled up."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [head, *rows]]
    return [line.rstrip() for line in lines]
