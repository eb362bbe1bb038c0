"""Finds the imageTemplates resources in a JSON document: a bare resource, a deployment, or an array of either."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.template import fixes
from orchestrator.template.node import Node
from orchestrator.template.report import Report
from orchestrator.template.schema.tables import RESOURCE_TYPE

_TYPE = RESOURCE_TYPE.lower()
_PROVIDER = _TYPE.partition("/")[0]
NO_RESOURCE = "there is no imageTemplates resource in it"
NO_RESOURCE_HINT = f'a template is a resource of type "{RESOURCE_TYPE}", alone or among the "resources" of a deployment'
_OWN_FIELDS = ("source", "distribute", "customize")


@dataclass(frozen=True, slots=True)
class Found:
    """One resource; `in_deployment` when it stands in a list of resources."""

    node: Node
    in_deployment: bool


def is_deployment(node: Node) -> bool:
    """Whether an object is an ARM deployment template."""
    return node.is_object and "resources" in node.value and "properties" not in node.value


def looks_like_template(node: Node) -> bool:
    """Whether an object is, or was meant to be, an imageTemplates resource."""
    kind = node.string("type").lower()
    if kind in (_TYPE, _PROVIDER):
        return True
    properties = node.get("properties")
    if "/" in kind or properties is None or not properties.is_object:
        return False
    return any(name in properties.value for name in _OWN_FIELDS)


def find(root: Node, report: Report) -> Iterator[Found]:
    """Every imageTemplates resource below `root`, in file order, at any depth; AIB005 when there is none."""
    count = 0
    work: list[tuple[Node, bool]] = [(root, False)]
    while work:
        node, inside = work.pop()
        if node.is_array:
            work.extend((child, inside) for child in reversed(node.items()))
        elif not node.is_object:
            continue
        elif looks_like_template(node):
            count += 1
            check_type(node, report)
            yield Found(node, inside)
        else:
            work.extend(reversed([(child, True) for child in _lists_of_resources(node)]))
    if not count and root.is_known:
        report.error("AIB005", root, NO_RESOURCE, hint=NO_RESOURCE_HINT, source="SEED S1")


def _lists_of_resources(node: Node) -> Iterator[Node]:
    """Where resources can stand: `resources` (array, or object since languageVersion 2.0) and nested deployments."""
    resources = node.get("resources")
    if resources is not None and resources.is_object:
        yield from (child for _, child in resources.members())
    elif resources is not None:
        yield resources
    nested = node.get("properties", "template")
    if nested is not None:
        yield nested


def check_type(node: Node, report: Report) -> None:
    """AIB005: the type is exactly `Microsoft.VirtualMachineImages/imageTemplates`."""
    at = node.get("type")
    if at is None or not at.is_known or not isinstance(at.value, str):
        return  # reported as missing or mistyped
    hint, fix = f"write {RESOURCE_TYPE}", fixes.replace_value(at, fixes.quote(RESOURCE_TYPE))
    if at.value.lower() == _PROVIDER:
        message = f"{at.value} is the provider, not a resource type"
        report.error("AIB005", at, message, hint=hint, source="SEED S1", fix=fix)
    elif at.value.lower() != _TYPE:
        report.error("AIB005", at, f"type is {at.value!r}", hint=hint, source="SEED S1")
    elif at.value != RESOURCE_TYPE:
        report.warning("AIB005", at, f"type is spelt {at.value!r}", hint=hint, source="SEED S1", fix=fix)
