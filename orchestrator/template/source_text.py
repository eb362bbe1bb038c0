"""The text of one template file, and where each character of it stands."""

from __future__ import annotations

import re
from bisect import bisect_right

from orchestrator.template.diagnostics import Position

_LINE_END = re.compile(r"\r\n|\r|\n")


class SourceText:
    """Text plus file name; turns an offset (characters, from 0) into a 1-based line and column.

    The index of line starts is built when first asked for, because most templates have nothing to report.
    """

    __slots__ = ("_starts", "file", "text")

    def __init__(self, text: str, file: str = "<template>") -> None:
        self.text = text
        self.file = file
        self._starts: list[int] | None = None

    @property
    def line_starts(self) -> list[int]:
        """The offset at which each line begins."""
        if self._starts is None:
            self._starts = [0, *(end.end() for end in _LINE_END.finditer(self.text))]
        return self._starts

    def position(self, offset: int) -> Position:
        """The line and column of `offset`."""
        line = bisect_right(self.line_starts, offset) - 1
        return Position(self.file, line + 1, offset - self.line_starts[line] + 1)

    def line(self, number: int) -> str:
        """The text of 1-based line `number`, without its line end; empty when there is no such line."""
        starts = self.line_starts
        if not 1 <= number <= len(starts):
            return ""
        end = starts[number] if number < len(starts) else len(self.text)
        return self.text[starts[number - 1] : end].rstrip("\r\n")
