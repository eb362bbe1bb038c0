"""AIB048: runs the shell tools over inline scripts and local script files, and places what they say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from orchestrator.template.diagnostics import Position, Severity
from orchestrator.template.node import Node
from orchestrator.template.report import Report
from orchestrator.template.rules.local_files import LocalScript
from orchestrator.template.script_text import Line, inline_lines, shell_steps
from orchestrator.template.shell_finding import Finding
from orchestrator.template.shell_syntax import ShellTools
from orchestrator.template.source_text import SourceText
from orchestrator.template.subject import Subject

_HINTS = {"sh -n": "the step would fail at once", "bash -n": "the step would fail at once"}


@dataclass(frozen=True, slots=True)
class _Script:
    """One script: what stands for it in the template, its content, and its lines (inline) or its file's text."""

    at: Node
    data: bytes
    lines: list[Line] = field(default_factory=list)
    text: SourceText | None = None


def check(subject: Subject, local: Sequence[LocalScript], tools: ShellTools, report: Report) -> dict[str, SourceText]:
    """Checks inline and local Shell scripts together; returns the texts of the local ones, for showing their lines."""
    scripts = [*map(_inline, _shell_steps_with_lines(subject)), *map(_local, local)]
    for each in local:
        _first_line(each, report)
    missed = 0
    for script, findings in zip(scripts, tools.check([script.data for script in scripts]), strict=True):
        if findings is None:
            missed += 1
        for found in findings or ():
            _place(script, found, report)
    if missed:
        message = f"{missed} shell script{'s were' if missed > 1 else ' was'} not looked at by sh -n and ShellCheck"
        hint = (
            f"the {tools.seconds:g} seconds for them were used up; run it again (findings are kept), "
            "or give more with --shell-seconds"
        )
        report.info("AIB048", subject.properties.get("customize") or subject.properties, message, hint=hint)
    return {script.text.file: script.text for script in scripts if script.text is not None}


def _shell_steps_with_lines(subject: Subject) -> list[tuple[Node, list[Line]]]:
    found = [(step, inline_lines(step, subject.memo)) for step in shell_steps(subject)]
    return [(step, lines) for step, lines in found if lines]


def _inline(step: tuple[Node, list[Line]]) -> _Script:
    node, lines = step
    return _Script(node, "\n".join(line.text for line in lines).encode(errors="replace"), lines)


def _local(script: LocalScript) -> _Script:
    return _Script(script.at, script.data, text=SourceText(script.data.decode(errors="replace"), str(script.path)))


def _place(script: _Script, found: Finding, report: Report) -> None:
    """A finding stands at the element that holds its line, or at its line in the script's own file."""
    severity, hint = (Severity.INFO if found.is_note else Severity.WARNING), _HINTS.get(found.tool, "")
    if script.text is not None:
        place = Position(script.text.file, found.line, found.column)
        report.at_position(severity, "AIB048", place, found.text, hint=hint, source=found.tool)
        return
    at = script.lines[min(found.line, len(script.lines)) - 1].node
    report.add(severity, "AIB048", at, f"line {found.line} of the script: {found.text}", hint=hint, source=found.tool)


def _first_line(script: LocalScript, report: Report) -> None:
    if not script.data.startswith(b"#!"):
        hint = "begin the file with #!/bin/sh -e or #!/bin/bash"
        report.warning("AIB048", script.at, "the script has no #! line", hint=hint, source="PKR 2.4")
    if b"\r\n" in script.data:
        message = "the script has CRLF line ends; they become LF on the way"
        report.warning("AIB048", script.at, message, hint="save it with LF", source="PKR 2.4")
