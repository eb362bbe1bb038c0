"""Diagnostics for people: message, source line with a caret, hint; and as plain data."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchestrator.template.diagnostics import Diagnostic, Severity
from orchestrator.template.source_text import SourceText

MAX_LINE = 110
LONGEST_SIGNATURE = 1000  # characters; a SAS signature has about 50
_SIGNATURE = re.compile(r"(?<=[?&]sig=)[^&\"\s]+", re.IGNORECASE)
_COLOURS = {Severity.ERROR: "31", Severity.WARNING: "33", Severity.INFO: "36"}


def render(
    diagnostics: Sequence[Diagnostic], sources: Mapping[str, SourceText], *, colour: bool = False
) -> Iterator[str]:
    """Lines of text, one block per diagnostic."""
    for item in diagnostics:
        yield from _block(item, sources.get(item.position.file), colour=colour)


def to_json(item: Diagnostic) -> dict[str, Any]:
    """The diagnostic as JSON data; line and column count from 1."""
    return {
        "rule": item.rule,
        "severity": str(item.severity),
        "message": item.message,
        "pointer": item.pointer,
        "file": item.position.file,
        "line": item.position.line,
        "column": item.position.column,
        "hint": item.hint,
        "source": item.source,
        "fixable": bool(item.fix),
    }


def summary(counts: Mapping[Severity, int], files: int) -> str:
    """`2 files: 1 error, 3 warnings, 0 notes`."""
    named = zip(Severity, ("error", "warning", "note"), strict=True)
    words = [f"{counts[severity]} {word}{'' if counts[severity] == 1 else 's'}" for severity, word in named]
    return f"{files} file{'' if files == 1 else 's'}: {', '.join(words)}"


def _block(item: Diagnostic, source: SourceText | None, *, colour: bool) -> Iterator[str]:
    word = f"{item.severity}[{item.rule}]"
    if colour:
        word = f"\x1b[1;{_COLOURS[item.severity]}m{word}\x1b[0m"
    yield f"{_printable(str(item.position))}: {word}: {_printable(item.message)}"
    if item.pointer:
        yield f"    at {_printable(item.pointer)}"
    if source is not None:
        yield from _excerpt(source.line(item.position.line), item.position.line, item.position.column)
    if item.hint:
        yield f"    help: {_printable(item.hint)}"


def _excerpt(line: str, number: int, column: int) -> Iterator[str]:
    """The line with a caret below the column; a long line is cut to the part around it."""
    start = max(0, column - 1 - MAX_LINE // 2) if len(line) > MAX_LINE else 0
    around = max(0, start - LONGEST_SIGNATURE)  # a signature may begin before the part that is shown
    near = line[around : start + MAX_LINE + LONGEST_SIGNATURE]
    near = _SIGNATURE.sub(lambda found: "*" * len(found.group()), near)  # as long as before: the caret stays right
    cut = _printable(near[start - around :][:MAX_LINE].replace("\t", " "))
    before, after = ("..." if start else ""), ("..." if start + MAX_LINE < len(line) else "")
    gutter = f"{number:>5} | "
    if not cut.strip():
        return
    yield f"{gutter}{before}{cut}{after}"
    yield f"{' ' * (len(gutter) - 2)}| {' ' * (len(before) + column - 1 - start)}^"


def _printable(text: str) -> str:
    """Text of a file on a terminal: control and bidirectional characters must not act there."""
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)
