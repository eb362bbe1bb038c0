"""Choices that end a build differently than expected, and what this machine does not do."""

from __future__ import annotations

from orchestrator.template.node import Node
from orchestrator.template.not_emulated import not_emulated
from orchestrator.template.report import Report
from orchestrator.template.subject import Subject


def validation_flags(subject: Subject, report: Report) -> None:
    """AIB069: sourceValidationOnly leaves customizers unused; continueDistributeOnFailure still fails the run."""
    validate = subject.properties.get("validate")
    if validate is None or not validate.is_object:
        return
    only, go_on = validate.get("sourceValidationOnly"), validate.get("continueDistributeOnFailure")
    if only is not None and only.value is True and (subject.customizers or subject.distributors):
        message = "sourceValidationOnly: nothing is built, customize and distribute are not used"
        report.warning("AIB069", only, message, source="SWG")
    if go_on is not None and go_on.value is True:
        message = "with continueDistributeOnFailure a failed validation is distributed, and the run still fails"
        report.warning("AIB069", go_on, message, source="SWG")


def left_out(subject: Subject, report: Report) -> None:
    """AIB070: what is given but not acted on here, one by one."""
    for pointer, why in not_emulated(subject):
        node: Node | None = subject.node
        for part in pointer.split("/")[1:]:
            if node is None:
                break
            node = node.items()[int(part)] if node.is_array else node.get(part)
        report.info("AIB070", node or subject.node, f"{pointer.rpartition('/')[2]}: {why}", source="aib")


RULES = (validation_flags, left_out)
