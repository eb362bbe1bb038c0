"""The documentation of every rule, as `aib explain` and the SARIF output show it."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from orchestrator.template.diagnostics import Severity


@dataclass(frozen=True, slots=True)
class RuleDoc:
    """One rule: its usual severity, what it is about, why it matters, how to fix it, source and grade of the fact."""

    id: str
    severity: Severity
    title: str
    why: str
    fix: str
    source: str
    fidelity: str


@cache
def catalogue() -> Mapping[str, RuleDoc]:
    """All rules by id."""
    data = tomllib.loads(Path(__file__).with_name("catalogue.toml").read_text(encoding="utf-8"))
    return {
        name: RuleDoc(
            name, Severity(rule["severity"]), rule["title"], rule["why"], rule["fix"], rule["source"], rule["fidelity"]
        )
        for name, rule in data.items()
    }
