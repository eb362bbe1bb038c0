"""Pre-flight: check templates and say everything that is wrong, without booting or fetching anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypervisor.errors import InputError
from orchestrator.template.arm.functions_azure import Scope
from orchestrator.template.diagnostics import Diagnostic, Severity
from orchestrator.template.load import Loaded, inspect_templates
from orchestrator.template.source_text import SourceText

_NONE: Mapping[str, Any] = {}
_HERE = Scope()


@dataclass(frozen=True, slots=True)
class Validation:
    """What was checked and what was found, over all files."""

    files: tuple[str, ...]
    templates: tuple[str, ...]
    """Names of the templates that are free of errors."""
    diagnostics: tuple[Diagnostic, ...]
    sources: Mapping[str, SourceText]

    def count(self, severity: Severity) -> int:
        """How many diagnostics have this severity."""
        return sum(item.severity is severity for item in self.diagnostics)

    @property
    def is_valid(self) -> bool:
        return not self.count(Severity.ERROR)


def validate(
    paths: Sequence[Path],
    *,
    settings: Mapping[str, str] = _NONE,
    parameters: Mapping[str, Any] = _NONE,
    scope: Scope = _HERE,
    target_version: str = "",
) -> Validation:
    """Checks the templates in files and folders (`-` is standard input). Raises InputError for what cannot be read."""
    files = [file for path in paths for file in template_files(path)]
    results = [
        inspect_templates(
            None if str(file) == "-" else file,
            settings=settings,
            parameters=parameters,
            scope=scope,
            target_version=target_version,
        )
        for file in files
    ]
    return _together(files, results)


def template_files(path: Path) -> list[Path]:
    """The file itself, or the `*.json` and `*.jsonc` files below a folder. Raises InputError when there are none."""
    if not path.is_dir():
        return [path]
    found = sorted(p for p in path.rglob("*") if p.suffix.lower() in (".json", ".jsonc") and p.is_file())
    if not found:
        raise InputError(f"there is no .json file in {path}", hint="name the template files")
    return found


def _together(files: Sequence[Path], results: Sequence[Loaded]) -> Validation:
    sources: dict[str, SourceText] = {}
    for result in results:
        sources.update(result.sources)
    return Validation(
        files=tuple(str(file) for file in files),
        templates=tuple(template.name for result in results for template in result.templates),
        diagnostics=tuple(item for result in results for item in result.diagnostics),
        sources=sources,
    )
