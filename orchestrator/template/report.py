"""Collects the diagnostics of one load: everything that is wrong, all at once."""

from __future__ import annotations

from orchestrator.template.diagnostics import Diagnostic, Edit, Position, Severity
from orchestrator.template.node import Node

Fix = tuple[Edit, ...]

MAX_OF_A_KIND = 2000


class Report:
    """Diagnostics in the order they were found; `sorted()` gives them in file order."""

    def __init__(self) -> None:
        self.items: list[Diagnostic] = []
        self._counts: dict[tuple[str, Severity], int] = {}

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
        self._keep(Diagnostic(rule, severity, message, "", position, hint, source, fix))

    def _keep(self, item: Diagnostic) -> None:
        """Keeps the first of each rule and severity; who has thousands of them needs no more, and memory is bounded."""
        kind = (item.rule, item.severity)
        count = self._counts[kind] = self._counts.get(kind, 0) + 1
        if count <= MAX_OF_A_KIND:
            self.items.append(item)
        elif count == MAX_OF_A_KIND + 1:
            more = f"more than {MAX_OF_A_KIND} of {item.rule}: those from here on are not shown"
            self.items.append(Diagnostic(item.rule, item.severity, more, "", item.position))

    @property
    def has_errors(self) -> bool:
        return any(item.severity is Severity.ERROR for item in self.items)

    def sorted(self) -> tuple[Diagnostic, ...]:
        """In file order, without repetitions (an expression used twice is wrong once)."""
        unique = dict.fromkeys(self.items)
        return tuple(sorted(unique, key=lambda d: (d.position, d.rule)))
