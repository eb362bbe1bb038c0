"""The pre-flight checks, grouped by subject. Each is a function of one `Subject` that speaks through a `Report`."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.template.report import Report
from orchestrator.template.rules import (
    distribution,
    downloads,
    emulation,
    envelope,
    machine,
    scripts,
    shell,
    source,
    timing,
    windows,
)
from orchestrator.template.subject import Subject

Rule = Callable[[Subject, Report], None]

RULES: tuple[Rule, ...] = (
    *envelope.RULES,
    *source.RULES,
    *scripts.RULES,
    *downloads.RULES,
    *shell.RULES,
    *windows.RULES,
    *timing.RULES,
    *machine.RULES,
    *distribution.RULES,
    *emulation.RULES,
)


def run(subject: Subject, report: Report) -> None:
    """Runs every rule over one template."""
    for rule in RULES:
        rule(subject, report)
