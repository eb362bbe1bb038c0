"""Which diagnostics count, and how much: command line, project file (`aib.toml`), and a tag in the template.

A project file is looked for beside the template and in the folders above it:

    [validate]
    ignore = ["AIB023"]
    fail-on = "warning"          # error (default), warning, info, never
    target-version = "2024-02-01"

    [validate.levels]
    AIB035 = "warning"           # error, warning, info or off

In a template, the tag `aib-ignore` with rule ids (`"aib-ignore": "AIB023 AIB035"`) silences them for that resource.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hypervisor.errors import UsageError
from orchestrator.template.diagnostics import Diagnostic, Severity
from orchestrator.template.node import Node
from orchestrator.template.schema.tables import tables

PROJECT_FILE = "aib.toml"
IGNORE_TAG = "aib-ignore"
_RULE = re.compile(r"AIB\d{3}")
_UNSILENCEABLE = frozenset({"AIB001", "AIB003", "AIB004", "AIB005"})
"""Without these there is no template to speak of; a tag inside it cannot wave them through."""
_FAIL_ON = ("error", "warning", "info", "never")


@dataclass(frozen=True, slots=True)
class Selection:
    """`levels` maps rule ids to a severity or `off`; `fail_on` is the least severity that fails."""

    ignore: frozenset[str] = frozenset()
    only: frozenset[str] = frozenset()
    levels: Mapping[str, str] = field(default_factory=dict)
    fail_on: str = "error"
    target_version: str = ""

    def apply(self, diagnostics: Iterable[Diagnostic]) -> tuple[Diagnostic, ...]:
        """The diagnostics that count, each with its level. `only` never hides a file that could not be read."""
        kept = []
        for item in diagnostics:
            level = self.levels.get(item.rule, "")
            hidden = item.rule in self.ignore or level == "off"
            if hidden or (self.only and item.rule not in self.only and item.rule != "AIB001"):
                continue
            kept.append(replace(item, severity=Severity(level)) if level else item)
        return tuple(kept)

    def fails(self, diagnostics: Iterable[Diagnostic]) -> bool:
        """Whether any of them is severe enough to fail."""
        order = list(Severity)
        if self.fail_on == "never":
            return False
        limit = order.index(Severity(self.fail_on))
        return any(order.index(item.severity) <= limit for item in diagnostics)

    def with_options(
        self, *, ignore: Iterable[str] = (), only: Iterable[str] = (), fail_on: str = "", target_version: str = ""
    ) -> Selection:
        """This selection with what the command line adds; it has the last word."""
        return replace(
            self,
            ignore=self.ignore | rule_ids(ignore, "--ignore"),
            only=self.only | rule_ids(only, "--only"),
            fail_on=fail_on or self.fail_on,
            target_version=known_version(target_version, "--target-version") or self.target_version,
        )


def rule_ids(words: Iterable[str], where: str) -> frozenset[str]:
    """Rule ids out of words that may hold several. Raises UsageError for anything else, also for a mistyped id."""
    found = [part.upper() for word in words for part in re.split(r"[\s,;]+", word) if part]
    if found:
        from orchestrator.template.rules.catalogue import catalogue  # it reads TOML, for which most calls need not pay
    wrong = [part for part in found if part not in catalogue()]
    if wrong:
        raise UsageError(f"{wrong[0]!r} in {where} is no rule", hint="`aib explain rules` lists them: AIB001 and so on")
    return frozenset(found)


def known_version(version: str, where: str) -> str:
    """That api-version, or none. Raises UsageError for an unknown one: another would judge in its place."""
    if version and version not in tables().versions:
        raise UsageError(
            f"{version!r} in {where} is no api-version of imageTemplates",
            hint=f"there is: {', '.join(tables().versions)}",
        )
    return version


def of_project(file: Path) -> Selection:
    """The selection of the nearest project file above `file`; the default one when there is none."""
    for folder in file.absolute().parents:
        project = folder / PROJECT_FILE
        if project.is_file():
            return _read(project)
    return Selection()


def _read(project: Path) -> Selection:
    import tomllib  # only projects with a file pay for it

    try:
        data = tomllib.loads(project.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{project} cannot be read: {error}", hint="it is a TOML file") from None
    part = data.get("validate", {})
    known = {"ignore", "fail-on", "target-version", "levels"}
    if not isinstance(part, dict) or set(part) - known:
        raise UsageError(f"{project}: [validate] has {', '.join(sorted(known))}, nothing else")
    levels = {str(rule): str(level) for rule, level in _table(part.get("levels", {}), project).items()}
    rule_ids(levels, str(project))
    fail_on = str(part.get("fail-on", "error"))
    bad = [level for level in levels.values() if level not in ("error", "warning", "info", "off")]
    if bad or fail_on not in _FAIL_ON:
        raise UsageError(f"{project}: {bad[0] if bad else fail_on!r} is no level", hint="error, warning, info, off")
    ignored = part.get("ignore", [])
    return Selection(
        ignore=rule_ids([str(i) for i in ignored] if isinstance(ignored, list) else [str(ignored)], str(project)),
        levels=levels,
        fail_on=fail_on,
        target_version=known_version(str(part.get("target-version", "")), str(project)),
    )


def _table(value: Any, project: Path) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UsageError(f"{project}: [validate.levels] is a table")
    return value


def silenced_by_tag(resource: Node) -> frozenset[str]:
    """The rules that the resource's own tag silences."""
    return _silenced(resource.string("tags", IGNORE_TAG))


def silenced_by_tags(tags: Mapping[str, str]) -> frozenset[str]:
    """The same of a template's tags."""
    return _silenced(tags.get(IGNORE_TAG, ""))


def _silenced(text: str) -> frozenset[str]:
    return frozenset(_RULE.findall(text.upper())) - _UNSILENCEABLE
