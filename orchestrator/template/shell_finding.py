"""What a tool says about a shell script, and how long a script the tools are shown."""

from __future__ import annotations

from dataclasses import dataclass

MAX_SCRIPT = 500_000  # bytes


@dataclass(frozen=True, slots=True)
class Finding:
    """One complaint: 1-based line and column in the script, the tool that says it, its text.

    A note says what a tool did not look at.
    """

    line: int
    column: int
    tool: str
    text: str
    is_note: bool = False


Findings = tuple[Finding, ...]
