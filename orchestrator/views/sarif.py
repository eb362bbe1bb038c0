"""Diagnostics as SARIF 2.1.0, for code scanning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from orchestrator.template.diagnostics import Diagnostic, Severity
from orchestrator.template.rules.catalogue import RuleDoc

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}


def log(diagnostics: Sequence[Diagnostic], rules: Mapping[str, RuleDoc], version: str) -> dict[str, Any]:
    """The whole SARIF log: one run, the rules that it used, one result for each diagnostic."""
    used = sorted({item.rule for item in diagnostics})
    index = {rule: number for number, rule in enumerate(used)}
    driver = {
        "name": "aib",
        "version": version,
        "rules": [_rule(rule, rules.get(rule)) for rule in used],
    }
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": driver},
                "columnKind": "unicodeCodePoints",
                "results": [_result(item, index[item.rule]) for item in diagnostics],
            }
        ],
    }


def _rule(name: str, doc: RuleDoc | None) -> dict[str, Any]:
    if doc is None:
        return {"id": name}
    return {
        "id": name,
        "shortDescription": {"text": doc.title},
        "fullDescription": {"text": doc.why},
        "help": {"text": f"{doc.fix} Source: {doc.source}."},
        "defaultConfiguration": {"level": _LEVELS[doc.severity]},
        "properties": {"fidelity": doc.fidelity},
    }


def _result(item: Diagnostic, index: int) -> dict[str, Any]:
    location: dict[str, Any] = {
        "physicalLocation": {
            "artifactLocation": {"uri": _uri(item.position.file)},
            "region": {"startLine": item.position.line, "startColumn": item.position.column},
        }
    }
    if item.pointer:
        location["logicalLocations"] = [{"fullyQualifiedName": item.pointer, "kind": "member"}]
    return {
        "ruleId": item.rule,
        "ruleIndex": index,
        "level": _LEVELS[item.severity],
        "message": {"text": f"{item.message} ({item.hint})" if item.hint else item.message},
        "locations": [location],
    }


def _uri(file: str) -> str:
    """A URI reference: relative paths stay relative, absolute ones become file:."""
    path = PurePath(file)
    return path.as_uri() if path.is_absolute() else quote(path.as_posix())
