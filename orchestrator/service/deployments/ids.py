"""From the type and the name of a template's resource to its id."""

from __future__ import annotations

import re

from orchestrator.service.deployments.planned import GROUPS
from orchestrator.template.arm.functions_azure import Scope

_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.]{0,120}(/[A-Za-z0-9_.-]{1,80}){1,10}")
_PART = re.compile(r"[^/\\?#%&<>\x00-\x1f\x7f]{1,260}")
UNKNOWN_MARK = "<"
"""In a name: it rests on what nobody knows before the deployment runs."""


class BadId(ValueError):
    """Type and name do not make an id; the message is ARM's sentence without place."""


def check_type(kind: str) -> None:
    """A type is `Namespace/type[/type...]`. Raises BadId."""
    if not _TYPE.fullmatch(kind):
        raise BadId(f"The resource type '{kind[:120]}' is not valid: it is a namespace and one or more types")


def resource_id(scope: Scope, kind: str, name: str, extends: str = "") -> str:
    """The id of a resource in a scope; `extends` is the id of the resource that it belongs to (its `scope`)."""
    types, names = kind.split("/"), name.split("/")
    if UNKNOWN_MARK in name:
        return f"{extends or _base(scope)}/providers/{kind}/{name}"
    if len(types) != len(names) + 1:
        raise BadId(
            "has incorrect segment lengths. A nested resource type must have identical number of segments as its "
            "resource name. A root resource type must have segment length one greater than its resource name"
        )
    for part in names:
        if not _PART.fullmatch(part) or part.strip(". ") == "":
            raise BadId(f"has the name '{name[:120]}', which cannot be a part of an id")
    if kind.lower() == GROUPS:
        return f"{scope.subscription_id}/resourceGroups/{name}"
    pairs = "".join(f"/{t}/{n}" for t, n in zip(types[1:], names, strict=True))
    return f"{extends or _base(scope)}/providers/{types[0]}{pairs}"


def extended(scope: Scope, text: str) -> str:
    """The id that a resource's `scope` means: absolute, or `Namespace/type/name` in the deployment's own scope."""
    if text.startswith("/"):
        return "" if text == "/" else text.rstrip("/")
    return f"{_base(scope)}/providers/{text}"


def _base(scope: Scope) -> str:
    return scope.group_id if scope.resource_group else scope.subscription_id
