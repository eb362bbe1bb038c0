"""Customizers and validators: what they run and how it is proved."""

from __future__ import annotations

import re

from orchestrator.template import fixes
from orchestrator.template.node import Node
from orchestrator.template.placeholders import is_open
from orchestrator.template.report import Report
from orchestrator.template.schema.tables import older
from orchestrator.template.subject import Subject

_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_NAMES_UNIQUE_UNTIL = "2019-05-01-preview"


def _is_given(step: Node, name: str) -> bool:
    """Whether a field has a value; an empty string is the service's own way to say no."""
    found = step.get(name)
    return found is not None and found.value not in ("", [])


def one_script(subject: Subject, report: Report) -> None:
    """AIB028: exactly one of inline and scriptUri (script in the first previews)."""
    for step in subject.steps:
        kind = step.string("type")
        if kind not in ("Shell", "PowerShell"):
            continue
        given = [name for name in ("inline", "scriptUri", "script") if _is_given(step, name)]
        if not given:
            report.error("AIB028", step, f"the {kind} step has neither inline nor scriptUri", source="SWG")
        elif len(given) > 1:
            message = f"the {kind} step has both {given[0]} and {given[1]}"
            report.error("AIB028", step, message, hint="exactly one; split the step", source="SWG", key=given[1])


def names(subject: Subject, report: Report) -> None:
    """AIB032: customizer names must be unique (the user's document; later versions no longer say so) and help."""
    seen: dict[str, Node] = {}
    must = not older(_NAMES_UNIQUE_UNTIL, subject.version)
    for step in subject.customizers:
        at = step.get("name")
        if at is None or at.value == "":
            report.info("AIB032", step, f"the {step.string('type')} step has no name", hint="logs name steps by it")
        elif isinstance(at.value, str):
            first = seen.setdefault(at.value, at)
            if first is not at:
                say = report.error if must else report.warning
                where = f"line {first.position.line}"
                say("AIB032", at, f"the customizer name {at.value!r} is also used on {where}", source="SEED S16")


def checksums(subject: Subject, report: Report) -> None:
    """AIB033: sha256Checksum is 64 hexadecimal digits, in lower case."""
    for step in subject.steps:
        at = step.get("sha256Checksum")
        if at is None or not isinstance(at.value, str) or at.value == "" or is_open(at.value):
            continue
        if not _SHA256.fullmatch(at.value):
            report.error(
                "AIB033", at, f"sha256Checksum has {len(at.value)} characters and is no SHA-256",
                hint="64 hexadecimal digits, as `sha256sum FILE` prints them", source="SEED S19",
            )  # fmt: skip
        elif at.value != at.value.lower():
            report.warning(
                "AIB033", at, "sha256Checksum is not in lower case", hint=at.value.lower(), source="JSON",
                fix=fixes.replace_value(at, fixes.quote(at.value.lower())),
            )  # fmt: skip


def system_needs_elevation(subject: Subject, report: Report) -> None:
    """AIB031: runAsSystem only together with runElevated."""
    for step in subject.steps:
        system, elevated = step.get("runAsSystem"), step.get("runElevated")
        if system is not None and system.value is True and (elevated is None or elevated.value is False):
            report.error(
                "AIB031", system, "runAsSystem needs runElevated: true", hint="add runElevated: true", source="SWG"
            )


RULES = (one_script, names, checksums, system_needs_elevation)
