"""The changes between two disks as lines for people, and as a page."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING

from orchestrator.views.text import safe, size

if TYPE_CHECKING:
    from orchestrator.build.changes import Changes

_SECTIONS = (
    ("packages", "Packages"),
    ("users", "Users"),
    ("groups", "Groups"),
    ("services", "Services"),
    ("units", "Enabled units"),
    ("cron", "Scheduled jobs"),
    ("firewall", "Firewall"),
)
MOST_FOLDERS = 12
_MARKS = {"added": "+", "removed": "-", "changed": "~"}


def lines(before: str, after: str, changes: Changes, *, contents: bool = True) -> Iterator[str]:
    """The changes, the short lists first, then every file; with `contents` what differs in text files."""
    yield f"{safe(before)} -> {safe(after)}"
    for name, head in _SECTIONS:
        if rows := getattr(changes, name):
            yield f"\n{head}:"
            yield from (f"  {safe(row)}" for row in rows)
    if changes.usage:
        yield "\nDisk use:"
        for folder, grown in list(changes.usage.items())[:MOST_FOLDERS]:
            yield f"  {_signed(grown):>12} {safe(folder)}"
    yield "\nFiles:" if changes.files else "\nNo file that counts has changed."
    for change in changes.files:
        what = f" ({', '.join(change.what)})" if change.what else ""
        yield f"  {_MARKS[change.kind]} {safe(change.path)}{what}"
        if contents:
            yield from (f"      {safe(line)}" for line in change.diff)
    noise = f"{changes.noise} more of logs, caches and state (--all shows them)"
    yield f"\n{len(changes.files)} files, {_signed(changes.size)}; {noise}"
    for text in changes.unread:
        yield f"not read: {safe(text)}"


def _signed(grown: int) -> str:
    return f"{'-' if grown < 0 else '+'}{size(abs(grown))}"


def page(before: str, after: str, changes: Changes) -> str:
    """One HTML page that needs nothing else."""
    body = []
    for line in lines(before, after, changes):
        mark = line.strip()[:1]
        kind = {"+": "add", "-": "del", "~": "chg"}.get(mark, "")
        body.append(f'<span class="{kind}">{escape(line)}</span>' if kind else escape(line))
    title = escape(f"{before} -> {after}")
    style = (
        "body{font:14px/1.5 monospace;margin:2rem;white-space:pre-wrap;overflow-wrap:anywhere}"
        ".add{color:#1a7f37}.del{color:#c1121f}.chg{color:#0a5fb4}"
    )
    head = f'<meta charset="utf-8"><title>{title}</title><style>{style}</style>'
    text = "\n".join(body)
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body><main>{text}</main></body></html>\n'
