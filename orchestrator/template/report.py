"""Collects the diagnostics of one load: everything that is wrong, all at once."""

from __future__ import annotations

from dataclasses import dataclass, field

from orchestrator.template.diagnostics import Diagnostic, Edit, Position, Severity
from orchestrator.template.node import Node

Fix = tuple[Edit, ...]

MAX_OF_A_KIND = 1000
"""Diagnostics of one rule and severity that are kept: who has more of them mends these first."""
MAX_FINDINGS = 20_000
"""After so many, shown or not, the checks of a file end: a hostile one could go on finding for minutes."""


class EnoughFound(Exception):
    """The report has taken all it takes; `inspect_templates` ends the checks of the file."""


@dataclass(slots=True)
class _Counts:
    """What the parts of one report share: how often each kind was found, what was kept, and how many there are."""

    of: dict[tuple[str, Severity], int] = field(default_factory=dict)
    last: dict[tuple[str, Severity], Position] = field(default_factory=dict)
    kept: set[Diagnostic] = field(default_factory=set)
    total: int = 0


class Report:
    """Diagnostics in the order they were found; `sorted()` gives them in file order."""

    def __init__(self) -> None:
        self.items: list[Diagnostic] = []
        self.silenced: frozenset[str] = frozenset()
        self._counts = _Counts()

    def part(self, silenced: frozenset[str]) -> Report:
        """A report of its own for one resource, whose `silenced` rules say nothing; its findings go in here too."""
        part = Report()
        part.items, part._counts, part.silenced = self.items, self._counts, silenced
        return part

    def add(
        self,
        severity: Severity,
        rule: str,
        at: Node,
        message: str,
        *,
        hint: str = "",
        source: str = "",
        key: str = "",
        fix: Fix = (),
    ) -> None:
        """Reports `message` at a node, or at the member `key` of an object."""
        if not self._wants(severity, rule):
            return
        if key:
            child = at.value.get(key) if isinstance(at.value, dict) else None
            pointer = child.pointer if isinstance(child, Node) else at.pointer
            position = at.key_position(key)
        else:
            pointer, position = at.pointer, at.position
        self._keep(Diagnostic(rule, severity, message, pointer, position, hint, source, fix))

    def error(
        self, rule: str, at: Node, message: str, *, hint: str = "", source: str = "", key: str = "", fix: Fix = ()
    ) -> None:
        """The service would reject it, or it cannot work."""
        self.add(Severity.ERROR, rule, at, message, hint=hint, source=source, key=key, fix=fix)

    def warning(
        self, rule: str, at: Node, message: str, *, hint: str = "", source: str = "", key: str = "", fix: Fix = ()
    ) -> None:
        """Likely to bite."""
        self.add(Severity.WARNING, rule, at, message, hint=hint, source=source, key=key, fix=fix)

    def info(
        self, rule: str, at: Node, message: str, *, hint: str = "", source: str = "", key: str = "", fix: Fix = ()
    ) -> None:
        """Advice."""
        self.add(Severity.INFO, rule, at, message, hint=hint, source=source, key=key, fix=fix)

    def at_position(
        self,
        severity: Severity,
        rule: str,
        position: Position,
        message: str,
        *,
        hint: str = "",
        source: str = "",
        fix: Fix = (),
    ) -> None:
        """Reports something that has no node, such as a syntax error."""
        if not self._wants(severity, rule):
            return
        self._keep(Diagnostic(rule, severity, message, "", position, hint, source, fix))

    def _wants(self, severity: Severity, rule: str) -> bool:
        """Counts a finding; false when it is only counted. Raises EnoughFound when there were far too many."""
        if rule in self.silenced:
            return False
        counts, kind = self._counts, (rule, severity)
        counts.total += 1
        if counts.total > MAX_FINDINGS:
            raise EnoughFound
        count = counts.of[kind] = counts.of.get(kind, 0) + 1
        return count <= MAX_OF_A_KIND

    def _keep(self, item: Diagnostic) -> None:
        counts, kind = self._counts, (item.rule, item.severity)
        if item in counts.kept:
            counts.of[kind] -= 1  # an expression used twice is wrong once
            return
        counts.kept.add(item)
        counts.last[kind] = item.position
        self.items.append(item)

    @property
    def has_errors(self) -> bool:
        return any(item.severity is Severity.ERROR for item in self.items)

    def sorted(self) -> tuple[Diagnostic, ...]:
        """In file order; behind the last of a kind that was cut short, how many more there are."""
        cut = [
            Diagnostic(rule, severity, f"and {count - MAX_OF_A_KIND:,} more of {rule}", "", last)
            for (rule, severity), count in self._counts.of.items()
            if count > MAX_OF_A_KIND and (last := self._counts.last.get((rule, severity)))
        ]
        return tuple(sorted([*self.items, *cut], key=lambda d: (d.position, d.rule)))

    def stopped(self, file: str) -> None:
        """Says that the checks ended before their time, which is an error: nobody knows what else is wrong."""
        message = f"more than {MAX_FINDINGS:,} findings: the checks of this file ended here"
        place = max((item.position for item in self.items), default=Position(file))
        self.items.append(Diagnostic("AIB001", Severity.ERROR, message, "", place, "correct the ones above first"))
