"""The resource around the properties: names, api-version, identity, budget."""

from __future__ import annotations

import re

from orchestrator.template import resource_ids
from orchestrator.template.arm.expression import is_expression
from orchestrator.template.node import Node
from orchestrator.template.placeholders import is_open
from orchestrator.template.report import Report
from orchestrator.template.schema.tables import regions, tables
from orchestrator.template.subject import Subject

NAME = re.compile(r"[A-Za-z0-9-_.]{1,64}")
_CALL = re.compile(r"\[\s*[A-Za-z][A-Za-z0-9]*\s*\(")
NAME_SHAPE = "1 to 64 of the characters A-Z a-z 0-9 - _ ."
OLD_BEFORE = "2022-07-01"


def api_version(subject: Subject, report: Report) -> None:
    """AIB006: unknown, missing or old api-version."""
    at = subject.written.get("apiVersion")
    known = tables().versions
    if at is None:
        report.info(
            "AIB006", subject.written, f"no apiVersion: judged as {subject.version}",
            hint="choose another with --target-version",
        )  # fmt: skip
    elif isinstance(at.value, str) and at.value not in known:
        report.warning(
            "AIB006", at, f"unknown apiVersion {at.value!r}: judged as {subject.version}",
            hint=f"known are {', '.join(known)}", source="SDK",
        )  # fmt: skip
    elif isinstance(at.value, str) and at.value < OLD_BEFORE:
        report.info("AIB006", at, f"apiVersion {at.value} is old", hint=f"{known[-2]} is current", source="NOTES")


def template_name(subject: Subject, report: Report) -> None:
    """AIB015 for the template's own name (a child name in an ARM deployment has one segment)."""
    at = subject.written.get("name")
    if at is not None and isinstance(at.value, str) and not NAME.fullmatch(at.value):
        report.error("AIB015", at, f"{at.value!r} is no template name", hint=NAME_SHAPE, source="SDK")


def identity(subject: Subject, report: Report) -> None:
    """AIB012: at most one identity, given by its resource id."""
    node = subject.node.get("identity")
    ids = node.get("userAssignedIdentities") if node is not None else None
    if node is None or ids is None or not ids.is_known:
        return
    if not ids.is_object:
        report.error(
            "AIB012", ids, "userAssignedIdentities must be an object whose keys are resource ids", source="SEED S5"
        )
        return
    names = [name for name, _ in ids.members()]
    if len(names) > 1:
        report.error("AIB012", ids, f"{len(names)} identities, the service takes one", source="SEED S5", key=names[1])
    for name in names:
        if not resource_ids.IDENTITY.fullmatch(name) and not is_open(name):
            report.error(
                "AIB012", ids, f"{name!r} is not the id of a user-assigned identity",
                hint=f"expected {resource_ids.IDENTITY_SHAPE}", key=name,
            )  # fmt: skip


def location(subject: Subject, report: Report) -> None:
    """AIB013: the service runs in some regions only (images can be distributed to all)."""
    at = subject.node.get("location")
    if at is None or not isinstance(at.value, str) or is_open(at.value):
        return
    if at.value.lower().replace(" ", "") not in regions():
        hint = "build in another region and distribute to this one"
        report.warning(
            "AIB013", at, f"image templates cannot live in {at.value!r}", hint=hint, source="JSON region list"
        )


def api_version_in_body(subject: Subject, report: Report) -> None:
    """AIB014: a bare body with apiVersion may be refused by `az resource create --is-full-object`."""
    at = subject.written.get("apiVersion")
    if at is not None and subject.strict and not subject.in_deployment:
        message = "apiVersion inside a bare resource may be refused since 2024-02-01"
        hint = "give it to the client (--api-version), or put the resource into a deployment"
        report.warning("AIB014", at, message, hint=hint, source="NOTES")


def stray_expressions(subject: Subject, report: Report) -> None:
    """AIB004: outside a deployment nobody evaluates `[parameters('x')]`: it would be taken literally."""
    if subject.in_deployment or "(" not in subject.written.source.text:
        return
    for node in subject.written.walk():
        text = node.value
        if isinstance(text, str) and is_expression(text) and _CALL.match(text) and not _in_script(node):
            report.error(
                "AIB004", node, f"{text[:60]} is an expression, and expressions are evaluated in deployments only",
                hint='put the resource into a deployment: {"resources": [ ... ]}', source="ARM template functions",
            )  # fmt: skip


def _in_script(node: Node) -> bool:
    """Whether the text is a line of a script, where brackets have their own meaning."""
    return node.parent is not None and node.parent.key in ("inline", "filters")


def build_timeout(subject: Subject, report: Report) -> None:
    """AIB017: a budget of 1 to 5 minutes never starts (E18)."""
    at = subject.properties.get("buildTimeoutInMinutes")
    if at is not None and isinstance(at.value, int) and 1 <= at.value <= 5:
        report.warning(
            "AIB017", at, f"buildTimeoutInMinutes {at.value}: the service answers 'client_jwt will expire within 5 "
            "minutes, please use a JWT that is valid for at least 5 minutes'", hint="6 or more, or 0 for 240",
            source="TRBL E18",
        )  # fmt: skip


RULES = (api_version, template_name, identity, location, api_version_in_body, stray_expressions, build_timeout)
