"""Time: the build's budget against what the steps may take."""

from __future__ import annotations

import re

from orchestrator.template import durations, fixes
from orchestrator.template.node import Node
from orchestrator.template.report import Report
from orchestrator.template.subject import Subject

DEFAULT_MINUTES = 240
WINDOWS_MINUTES = 60
_DELAY = re.compile(r"/t\s+(\d{1,6})", re.IGNORECASE)


def budget(subject: Subject) -> tuple[Node, int] | None:
    """Where the budget is written and its minutes; None when it is wrong or left to the default."""
    at = subject.properties.get("buildTimeoutInMinutes")
    if at is None or not isinstance(at.value, int) or isinstance(at.value, bool) or at.value == 0:
        return None
    return at, at.value


def restart_seconds(step: Node) -> float:
    """How long a WindowsRestart may wait; 0 for other steps."""
    if step.string("type") != "WindowsRestart":
        return 0.0
    given = step.string("restartTimeout")
    return (durations.seconds(given) if given else None) or 300.0


def windows_budget(subject: Subject, report: Report) -> None:
    """AIB018: Windows builds under an hour are not recommended."""
    found = budget(subject)
    if found and subject.os == "windows" and 5 < found[1] < WINDOWS_MINUTES:
        report.warning(
            "AIB018", found[0], f"buildTimeoutInMinutes {found[1]} for Windows", hint="60 or more", source="SEED S15"
        )


def restarts_fit(subject: Subject, report: Report) -> None:
    """AIB019: the restarts alone may use up the budget."""
    found = budget(subject)
    minutes = found[1] if found else DEFAULT_MINUTES
    waits = sum(restart_seconds(step) for step in subject.customizers) / 60
    if waits >= minutes:
        at = found[0] if found else subject.properties
        report.warning(
            "AIB019", at, f"the restarts may take {waits:.0f} minutes of a budget of {minutes}",
            hint="raise buildTimeoutInMinutes or lower restartTimeout", source="TRBL E17",
        )  # fmt: skip


def restart_timeout(subject: Subject, report: Report) -> None:
    """AIB053: restartTimeout is a duration, not shorter than the default, and the restart comes at once."""
    for step in subject.customizers:
        if step.string("type") != "WindowsRestart":
            continue
        at, text = step.get("restartTimeout"), step.string("restartTimeout")
        seconds = durations.seconds(text) if text else None
        if at is not None and text and seconds is None:
            is_number = text.isascii() and text.isdigit() and len(text) < 6
            report.error(
                "AIB053", at, f"restartTimeout {text!r} is no duration", source="SEED S20",
                hint=f"write {text}m" if is_number else "for example 5m or 2h",
                fix=fixes.replace_value(at, fixes.quote(f"{text}m")) if is_number else (),
            )  # fmt: skip
        elif at is not None and seconds is not None and seconds < 300:
            report.warning(
                "AIB053", at, f"restartTimeout {text} is shorter than 5m", hint="5m or more", source="TRBL E19"
            )
        command = step.get("restartCommand")
        delay = _DELAY.search(step.string("restartCommand"))
        if command is not None and delay and int(delay[1]) > 60:
            message = f"the restart begins only after {delay[1]} seconds; the wait for it starts at once"
            report.warning("AIB053", command, message, hint="/t 0", source="TRBL E20")


RULES = (windows_budget, restarts_fit, restart_timeout)
