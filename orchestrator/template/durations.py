"""`restartTimeout`: a size with a unit, as in `5m` or `2h` (SEED S20); parts may be joined as Go joins them."""

from __future__ import annotations

import re

_DURATION = re.compile(r"(?:\d{1,9}(?:s|m|h))+")
_PART = re.compile(r"(\d+)(s|m|h)")
_SECONDS = {"s": 1, "m": 60, "h": 3600}


def seconds(text: str) -> float | None:
    """The duration in seconds; None when `text` is not one."""
    if not _DURATION.fullmatch(text):
        return None
    return float(sum(int(number) * _SECONDS[unit] for number, unit in _PART.findall(text)))
