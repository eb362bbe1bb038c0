"""Diagnostics as GitHub workflow commands: annotations on the lines of a pull request."""

from __future__ import annotations

from orchestrator.template.diagnostics import Diagnostic, Severity

_COMMANDS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "notice"}


def annotation(item: Diagnostic) -> str:
    """One workflow command."""
    place = item.position
    title = _property(f"{item.rule} {item.pointer}".strip())
    text = f"{item.message} ({item.hint})" if item.hint else item.message
    return (
        f"::{_COMMANDS[item.severity]} file={_property(place.file)},line={place.line},col={place.column},"
        f"title={title}::{_data(text)}"
    )


def _data(text: str) -> str:
    """What follows `::`: a line break in it would start another command."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
