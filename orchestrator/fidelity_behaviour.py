"""What is said of one emulated behaviour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Grade = Literal["documented", "inferred", "unknown", "different"]


@dataclass(frozen=True, slots=True)
class Behaviour:
    """One row: `code` as in deviation events, `text` for people, `source` of the fact."""

    code: str
    grade: Grade
    text: str
    source: str
