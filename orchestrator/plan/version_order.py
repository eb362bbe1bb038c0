"""The order of image versions."""

from __future__ import annotations

import re

_BOOTSTRAP = re.compile(r"0\.\d{8}\.[0-9a-f]{8}")


def version_key(version: str) -> tuple[int, ...]:
    """What to sort versions by: their leading numbers.

    The last part of a bootstrapped version (`0.YYYYMMDD.<8 hex>`) is a digest and orders nothing, even if all of it
    happens to be digits.
    """
    parts = version.split(".")[:2] if _BOOTSTRAP.fullmatch(version) else version.split(".")
    numbers = []
    for part in parts:
        if not part.isdecimal():
            break
        numbers.append(int(part))
    return tuple(numbers)
