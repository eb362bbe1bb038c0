"""Types of resources that have an area of their own, for those who reach them in another way: deployments, groups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from orchestrator.record.resources import Resource
from orchestrator.service.context import Context
from orchestrator.service.resources.targets import Target


class Owner(Protocol):
    """What the area of a type does for others, exactly as for its own requests. Every method raises `ArmError`."""

    def check(self, context: Context, target: Target, body: Mapping[str, Any], api_version: str) -> None:
        """Refuses what a PUT would refuse before it begins."""

    def put(self, context: Context, target: Target, body: Mapping[str, Any], api_version: str) -> None:
        """Creates or changes the resource and waits for the end of it."""

    def delete(self, context: Context, resource: Resource) -> None:
        """Removes the resource with what belongs to it and waits for the end of it."""

    def shown(self, context: Context, resource: Resource, origin: str) -> dict[str, Any]:
        """The resource in ARM's form."""


_OWNERS: dict[str, Owner] = {}


def register(kind: str, owner: Owner) -> None:
    """`owner` looks after the resources of this type."""
    _OWNERS[kind.lower()] = owner


def of(kind: str) -> Owner | None:
    """Who looks after a type, or None when it is an ordinary one."""
    return _OWNERS.get(kind.lower())
