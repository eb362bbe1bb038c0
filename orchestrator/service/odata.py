"""The `$filter` of lists: `name eq 'value'`, several joined by `and`. ARM takes little more."""

from __future__ import annotations

import re

from orchestrator.service.envelope import ArmError

_PART = re.compile(
    r"\s*(?:substringof\('(?P<inside>[^']*)',\s*(?P<of>\w+)\)|(?P<key>[\w/]+)\s+eq\s+'(?P<value>(?:[^']|'')*)')\s*"
)
LONGEST = 2000


def equalities(text: str, known: tuple[str, ...]) -> dict[str, str]:
    """The wanted value of each name (lower case) in a filter; `ArmError` 400 for what is not understood."""
    found: dict[str, str] = {}
    at = 0
    text = text[:LONGEST]
    while at < len(text.rstrip()):
        part = _PART.match(text, at)
        if part is None or (part["key"] or "").lower() not in known:
            raise ArmError(
                400, "InvalidFilterInQueryString", f"Invalid $filter '{text[:200]}' specified in the query string."
            )
        found[part["key"].lower()] = part["value"].replace("''", "'")
        at = part.end()
        if text[at : at + 4].lower() == "and ":
            at += 4
    return found
