"""Mechanical corrections of a template's text: only the characters that are wrong change.

A fix is offered only where the text at a value's place says literally that value: what came out of an expression or a
placeholder is not rewritten.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from orchestrator.template.diagnostics import Diagnostic, Edit
from orchestrator.template.node import Node

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')


def replace_value(node: Node, literal: str) -> tuple[Edit, ...]:
    """Writes `literal` in the place of a scalar."""
    written = node.source.text[node.start : node.end]
    try:
        same = json.loads(written) == node.value
    except ValueError:
        same = False
    return (Edit(node.start, node.end, literal),) if same and written != literal else ()


def quote(text: str) -> str:
    """`text` as JSON."""
    return json.dumps(text, ensure_ascii=False)


def rename_key(owner: Node, old: str, new: str) -> tuple[Edit, ...]:
    """Writes the name `new` where the member `old` of an object is named, unless both stand there."""
    if new in owner.value:
        return ()
    offset = owner.keys.get(old)
    found = _STRING.match(owner.source.text, offset) if offset is not None else None
    if found is None or found[0] != quote(old):
        return ()
    return (Edit(found.start(), found.end(), quote(new)),)


def delete(offset: int, count: int = 1) -> tuple[Edit, ...]:
    """Removes `count` characters."""
    return (Edit(offset, offset + count, ""),)


def fixable(diagnostics: Iterable[Diagnostic]) -> list[Edit]:
    """The edits of all diagnostics that do not touch each other, in file order."""
    chosen: list[Edit] = []
    for edit in sorted({edit for item in diagnostics for edit in item.fix}, key=lambda e: (e.start, e.end)):
        if not chosen or edit.start >= chosen[-1].end:
            chosen.append(edit)
    return chosen


def apply(text: str, edits: Iterable[Edit]) -> str:
    """`text` with the edits made; they are in file order and do not overlap."""
    parts, at = [], 0
    for edit in edits:
        parts += [text[at : edit.start], edit.text]
        at = edit.end
    return "".join([*parts, text[at:]])
