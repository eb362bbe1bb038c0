"""What a deployment is going to do: its resources with their ids, and the template they stand in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from orchestrator.template.arm.context import Context
from orchestrator.template.arm.deployment import Deployment
from orchestrator.template.arm.functions_azure import Scope
from orchestrator.template.node import Node

NESTED = "microsoft.resources/deployments"
GROUPS = "microsoft.resources/resourcegroups"


@dataclass(slots=True, eq=False)
class Planned:
    """One resource of a template, or one turn of its copy loop.

    `node` is what is written, to be expanded in `context` when its turn comes. `skipped`: its condition is false.
    `existing`: it is only read. `asked`: what its expressions refer to. `before`: what
    must be there first.
    """

    node: Node
    context: Context
    kind: str
    name: str
    id: str
    api_version: str
    loop: str = ""
    symbol: str = ""
    skipped: bool = False
    existing: bool = False
    asked: list[str] = field(default_factory=list)
    before: list[Planned] = field(default_factory=list)
    nested: Plan | None = None
    preview: Any = None
    """The body with stand-ins for what is not there yet, where it was wanted."""

    @property
    def is_nested(self) -> bool:
        """Whether it is a deployment itself."""
        return self.kind.lower() == NESTED

    @property
    def deployed(self) -> bool:
        """Whether the deployment makes it."""
        return not self.skipped and not self.existing


@dataclass(slots=True, eq=False)
class Plan:
    """One template, ready to be deployed. `outer`: the plan around a nested one that shares its names."""

    template: Node
    deployment: Deployment
    context: Context
    scope: Scope
    parameters: dict[str, Any] = field(default_factory=dict)
    resources: list[Planned] = field(default_factory=list)
    outer: Plan | None = None
    loops: dict[str, list[Planned]] = field(default_factory=dict)
    _names: dict[str, Planned] = field(default_factory=dict)

    @property
    def level(self) -> str:
        """The id of the resource group, or of the subscription, that it is deployed to."""
        return self.scope.group_id if self.scope.resource_group else self.scope.subscription_id

    def keep(self, resources: list[Planned]) -> None:
        """These are the plan's resources; their names can be asked for from now on."""
        self.resources = resources
        self._names = {}
        for resource in resources:
            if resource.loop:
                self.loops.setdefault(resource.loop.lower(), []).append(resource)
            short = resource.id.lower().rpartition("/providers/")[2]
            for name in (short, resource.name.lower(), resource.id.strip("/").lower(), resource.symbol.lower()):
                self._names[name] = resource  # the last wins, as in ARM

    def own(self, name: str) -> Planned | None:
        """The resource of this template that is called so: by symbolic name, id, `type/name` or name."""
        return self._names.get(name.strip("/").lower())

    def find(self, name: str) -> Planned | None:
        """The resource that `reference(name)` means; an outer scope's names count too."""
        return self.own(name) or (self.outer.find(name) if self.outer is not None else None)

    def everything(self) -> Iterator[Planned]:
        """Every resource that is deployed, those of nested deployments behind their deployment."""
        for resource in self.resources:
            if resource.deployed:
                yield resource
                if resource.nested is not None:
                    yield from resource.nested.everything()
