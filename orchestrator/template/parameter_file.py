"""Parameter files of ARM deployments, in both shapes: with the `parameters` wrapper, and its bare content."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchestrator.template import json_reader
from orchestrator.template.arm.expand import parameter_value
from orchestrator.template.diagnostics import InvalidTemplate
from orchestrator.template.read_file import read_text
from orchestrator.template.report import Report
from orchestrator.template.source_text import SourceText


def read_parameters(path: Path) -> dict[str, Any]:
    """Parameter values by name.

    Raises InputError when the file cannot be read, InvalidTemplate when it is no parameter file.
    """
    report = Report()
    root = json_reader.read(SourceText(read_text(path, report), str(path)), report)
    wrapped = root.get("parameters")
    members = wrapped if wrapped is not None and wrapped.is_object else root
    values: dict[str, Any] = {}
    for name, node in members.members():
        if node.is_object and ("value" in node.value or "reference" in node.value):
            values[name] = parameter_value(node, None)
        elif not name.startswith("$") and name != "contentVersion":
            hint = 'write {"value": ...}'
            report.error("AIB004", node, f"the parameter {name!r} has neither value nor reference", hint=hint)
    if root.is_known and not root.is_object:
        report.error("AIB004", root, "a parameter file is a JSON object")
    if report.has_errors:
        raise InvalidTemplate(report.sorted())
    return values
