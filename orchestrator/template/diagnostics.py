"""What is wrong with a template, where, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from hypervisor.errors import TemplateError


class Severity(StrEnum):
    """How much it matters; only errors make a template invalid."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """Where a value starts: file, 1-based line and column."""

    file: str = "<template>"
    line: int = 1
    column: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Edit:
    """Replaces the characters `start` to `end` (offsets into the file's text) by `text`."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One finding of a rule (`AIB0xx`): message, JSON pointer, position, hint, and the source of the fact.

    `fix` is how to correct it mechanically, when that cannot be wrong.
    """

    rule: str
    severity: Severity
    message: str
    pointer: str = ""
    position: Position = Position()
    hint: str = ""
    source: str = ""
    fix: tuple[Edit, ...] = ()

    def __str__(self) -> str:
        where = f"{self.position}: {self.severity} {self.rule} at {self.pointer or '/'}: {self.message}"
        return f"{where}\n    {self.hint}" if self.hint else where


class InvalidTemplate(TemplateError):
    """The template has errors; `diagnostics` holds all of them, warnings included, in file order."""

    def __init__(self, diagnostics: tuple[Diagnostic, ...]) -> None:
        errors = sum(d.severity is Severity.ERROR for d in diagnostics)
        listed = "\n".join(str(d) for d in diagnostics if d.severity is Severity.ERROR)
        super().__init__(f"the template has {errors} error{'s' if errors != 1 else ''}", hint=listed)
        self.diagnostics = diagnostics
