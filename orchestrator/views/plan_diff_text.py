"""The difference of two plans for people."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from orchestrator.plan.plan_diff import Change, PlanDiff
from orchestrator.views.text import safe

_SIGNS = {"added": "+", "removed": "-", "changed": "~", "moved": ">"}


def render(found: PlanDiff) -> Iterator[str]:
    """Lines of text: one for each change, diffs of inline text indented below."""
    if not found.changes:
        yield "The two plans are the same."
        if found.first_rerun is not None:
            yield f"But from step {found.first_rerun} on their digests differ: two versions of aib made them."
        return
    for change in found.changes:
        yield f"{_SIGNS[change.kind]} {safe(change.where)}{_values(change)}"
        yield from (f"    {safe(line)}" for line in change.lines)
    if found.first_rerun is None:
        yield "No step finds another guest than before."
    else:
        yield f"From step {found.first_rerun} on, the guest is another one than before."


def _values(change: Change) -> str:
    if change.kind in {"changed", "moved"} and not change.lines:
        return f": {_text(change.old)} -> {_text(change.new)}"
    value = change.new if change.kind == "added" else change.old
    return f": {_text(value)}" if value is not None else ""


def _text(value: Any) -> str:
    return safe(value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False))
