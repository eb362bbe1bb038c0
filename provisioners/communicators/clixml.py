"""PowerShell's serialized error stream (CLIXML) as the text that a console would show."""

from __future__ import annotations

import re
from html import unescape

MARK = b"#< CLIXML"
END = b"</Objs>"
_STRING = re.compile(rb'<S S="(?P<kind>\w+)">(?P<text>.*?)</S>', re.DOTALL)
_ESCAPED = re.compile(r"_x([0-9A-Fa-f]{4})_")
_SHOWN = {b"Error", b"Warning", b"Verbose", b"Debug", b"Output", b"output"}
LONGEST = 1024 * 1024
"""An object that is longer (a progress record never is) is passed on as it came."""


class ClixmlFilter:
    """Takes a stream in pieces; passes text on, turns CLIXML documents into their messages, drops progress records."""

    def __init__(self) -> None:
        self._kept = b""
        self._inside = False

    def feed(self, data: bytes) -> bytes:
        """What can be shown now."""
        self._kept += data
        shown = b""
        while True:
            more, done = self._document() if self._inside else self._text()
            shown += more
            if done:
                return shown

    def flush(self) -> bytes:
        """What is left at the end of the stream; an unfinished document is dropped but for its messages."""
        left, self._kept = self._kept, b""
        return b"" if self._inside else left

    def _text(self) -> tuple[bytes, bool]:
        before, mark, after = self._kept.partition(MARK)
        if mark:
            self._inside, self._kept = True, after
            return before, False
        held = next((size for size in range(len(MARK) - 1, 0, -1) if before.endswith(MARK[:size])), 0)
        cut = len(before) - held
        self._kept = before[cut:]
        return before[:cut], True

    def _document(self) -> tuple[bytes, bool]:
        ends = self._kept.find(END)
        region = self._kept if ends < 0 else self._kept[:ends]
        shown, position = b"", 0
        for match in _STRING.finditer(region):
            position = match.end()
            if match["kind"] in _SHOWN:
                shown += _plain(match["text"])
        if ends >= 0:
            self._inside, self._kept = False, self._kept[ends + len(END) :]
            return shown, False
        self._kept = self._kept[position:]
        if len(self._kept) > LONGEST:
            shown, self._kept, self._inside = shown + self._kept, b"", False
        return shown, True


def _plain(text: bytes) -> bytes:
    decoded = unescape(text.decode(errors="replace"))
    return _ESCAPED.sub(lambda match: chr(int(match[1], 16)), decoded).encode("utf-8", "replace")
