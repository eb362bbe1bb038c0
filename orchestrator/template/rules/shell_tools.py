"""AIB048: runs the shell tools over inline scripts and local script files, and places what they say."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from orchestrator.template import shell_syntax
from orchestrator.template.diagnostics import Position, Severity
from orchestrator.template.node import Node
from orchestrator.template.report import Report
from orchestrator.template.rules.local_files import LocalFile
from orchestrator.template.script_text import inline_lines, shell_steps
from orchestrator.template.source_text import SourceText
from orchestrator.template.subject import Subject

_HINTS = {"sh -n": "the step would fail at once", "bash -n": "the step would fail at once"}


def inline(subject: Subject, cache: Path | None, report: Report) -> None:
    """Checks each inline Shell script; a finding stands at the element that holds its line."""
    for step in shell_steps(subject):
        lines = inline_lines(step, subject.memo)
        script = "\n".join(line.text for line in lines).encode()
        for found in shell_syntax.check(script, cache):
            at = lines[min(found.line, len(lines)) - 1].node if lines else step
            report.warning(
                "AIB048", at, f"line {found.line} of the script: {found.text}", hint=_HINTS.get(found.tool, ""),
                source=found.tool,
            )  # fmt: skip


def files(scripts: Iterable[LocalFile], cache: Path | None, report: Report) -> dict[str, SourceText]:
    """Checks each local script of a Shell step; returns the texts for showing the lines."""
    sources: dict[str, SourceText] = {}
    for script in scripts:
        if script.step.string("type") != "Shell" or script.at.key == "sourceUri":
            continue
        name = str(script.path)
        sources[name] = SourceText(script.data.decode(errors="replace"), name)
        _first_line(script, script.at, report)
        for found in shell_syntax.check(script.data, cache):
            place = Position(name, found.line, found.column)
            hint = _HINTS.get(found.tool, "")
            report.at_position(Severity.WARNING, "AIB048", place, found.text, hint=hint, source=found.tool)
    return sources


def _first_line(script: LocalFile, at: Node, report: Report) -> None:
    if not script.data.startswith(b"#!"):
        hint = "begin the file with #!/bin/sh -e or #!/bin/bash"
        report.warning("AIB048", at, "the script has no #! line", hint=hint, source="PKR 2.4")
    if b"\r\n" in script.data:
        message = "the script has CRLF line ends; they become LF on the way"
        report.warning("AIB048", at, message, hint="save it with LF", source="PKR 2.4")
