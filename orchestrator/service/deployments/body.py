"""The body of a deployment request: not always JSON, since az splices the template's text in as it is (part 4).

Facts: `arm-and-guest` 4 (`..., template:{ // comments`), the deployments REST reference.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from orchestrator.service.deployments.errors import InvalidDeployment
from orchestrator.template import json_reader, json_tokens
from orchestrator.template.diagnostics import Severity
from orchestrator.template.json_reader import BarePlaceholder
from orchestrator.template.node import UNKNOWN, Node
from orchestrator.template.report import EnoughFound, Report
from orchestrator.template.source_text import SourceText

LONGEST = 4 * 1024 * 1024
"""Bytes of one request; ARM's own limit for a template."""
_MEMBERS = ("$schema", "contentVersion", "resources")
_KNOWN = frozenset({
    "$schema", "contentversion", "resources", "parameters", "variables", "functions", "outputs", "apiprofile",
    "languageversion", "metadata", "definitions", "imports", "extensions", "rules",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Asked:
    """A deployment as asked for. `parameters` holds plain values by name; `references` names Key Vault ones."""

    template: Node
    mode: str = "Incremental"
    parameters: dict[str, Any] = field(default_factory=dict)
    location: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    result_format: str = ""
    """Of a what-if: FullResourcePayloads or ResourceIdOnly."""


def read(data: bytes) -> Asked:
    """The deployment in a request's body. Raises InvalidDeployment: what cannot be read is the client's mistake."""
    root = _tree(data)
    properties = root.get("properties")
    if properties is None or not properties.is_object:
        raise _unreadable("the required property 'properties' is missing")
    for name in ("templateLink", "parametersLink"):
        if properties.get(name) is not None:
            raise InvalidDeployment(
                "InvalidContentLink",
                f"Unable to download deployment content: this server fetches no {name}. "
                "Send the template and its parameters in the request.",
            )
    if properties.get("onErrorDeployment") is not None:
        raise InvalidDeployment(
            "InvalidDeployment", "This server does not go back to an earlier deployment: leave 'onErrorDeployment' out."
        )
    mode = properties.string("mode").lower()
    if mode not in ("incremental", "complete"):
        raise _unreadable(f"'mode' must be Incremental or Complete, not {properties.string('mode')[:40]!r}")
    template = properties.get("template")
    if template is None:
        raise InvalidDeployment(
            "InvalidRequestContent",
            "The request content was invalid: the property 'template' or 'templateLink' is required.",
        )
    check_template(template)
    location = root.string("location")
    tags = {key: str(node.value) for key, node in _members(root.get("tags")) if isinstance(node.value, str)}
    wanted = properties.string("whatIfSettings", "resultFormat")
    return Asked(template, mode.capitalize(), _given(properties.get("parameters")), location, tags, wanted)


def check_template(template: Node) -> None:
    """The members that every template has, and no others."""
    if not template.is_object:
        raise _unreadable("the template is not an object")
    for name in _MEMBERS:
        if template.get(name) is None:
            line, column = template.position.line, template.position.column
            raise _unreadable(
                f"Required property '{name}' not found in JSON. Path 'properties.template', line {line}, "
                f"position {column}."
            )
    resources = template.get("resources")
    if resources is not None and not (resources.is_array or resources.is_object):
        raise _unreadable("'resources' of the template is neither an array nor an object")
    for name, _ in template.members():
        if name.lower() not in _KNOWN:
            raise _unreadable(f"Could not find member '{name[:80]}' on object of type 'Template'. Path '{name[:80]}'.")


def _tree(data: bytes) -> Node:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _unreadable(f"the body is not UTF-8: {error.reason} at byte {error.start}") from None
    report = Report()
    root = Node(UNKNOWN, SourceText(""), 0, 0)
    try:
        root = json_reader.read(SourceText(_quoted(text)), report)
    except EnoughFound:
        pass  # the report says it below
    for item in report.sorted():
        if item.severity is Severity.ERROR:
            where = f"line {item.position.line}, position {item.position.column}" if item.position else ""
            raise _unreadable(f"{item.message}. {where}".strip())
    if not root.is_object:
        raise _unreadable("the body is not a JSON object")
    for node in root.walk():
        if isinstance(node, BarePlaceholder) or not node.is_known:
            raise _unreadable(f"a value that is not JSON at line {node.position.line}")
    return root


def _quoted(text: str) -> str:
    """The text with az's bare `template` member name in quotes."""
    if '"template"' in text and "template:" not in text:
        return text
    before: json_tokens.Token | None = None
    for token in json_tokens.tokens(text, _ignore):
        bare = token.kind == "value" and token.value is UNKNOWN and text[token.start : token.end] == "template"
        if bare and before is not None and before.kind in ("{", ","):
            return f'{text[: token.start]}"template"{text[token.end :]}'
        before = token
    return text


def _ignore(*_: object, **__: object) -> None:
    """What is wrong with the text is said by the reader."""


def _given(node: Node | None) -> dict[str, Any]:
    """The values of parameters; a Key Vault reference cannot be followed here."""
    found: dict[str, Any] = {}
    for name, member in _members(node):
        if member.get("reference") is not None:
            secret = member.string("reference", "secretName")
            raise InvalidDeployment(
                "KeyVaultParameterReferenceNotFound",
                f"The parameter '{name[:80]}' refers to the Key Vault secret '{secret[:80]}': there is no Key Vault "
                "here. Give its value.",
            )
        if not member.is_object or "value" not in member.value:
            raise _unreadable(f"the parameter '{name[:80]}' must be an object with the member 'value'")
        found[name] = member.value["value"].plain()
    return found


def _members(node: Node | None) -> Iterator[tuple[str, Node]]:
    if node is not None:
        yield from node.members()


def _unreadable(why: str) -> InvalidDeployment:
    return InvalidDeployment(
        "InvalidRequestContent", f"The request content was invalid and could not be deserialized: '{why}'."
    )
