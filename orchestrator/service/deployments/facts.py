"""What functions of a running deployment answer: the scope's own facts, and what resources say of themselves."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from orchestrator.template.arm.context import Context
from orchestrator.template.arm.expression import Call, ExpressionError
from orchestrator.template.arm.functions_azure import Scope
from orchestrator.template.arm.functions_text import text_of
from orchestrator.template.arm.values import Unresolved

Refer = Callable[[Call, list[Any], Context], Any]
"""Answers `reference()` and `list*()`."""

_FACTS = frozenset({"resourcegroup", "subscription", "deployment", "newguid", "deployer", "providers", "tenant"})
_REFERRING = frozenset({"reference", "references", "list", "getsecret", "managementgroup"})
_ZONES = frozenset({"pickzones", "tologicalzone", "tologicalzones", "tophysicalzone", "tophysicalzones"})


class World(Protocol):
    """What a deployment sees of the server."""

    def group(self, subscription: str, name: str) -> Mapping[str, Any] | None:
        """The resource group in ARM's form, or None."""

    def subscription(self, subscription: str) -> Mapping[str, Any]:
        """The subscription in ARM's form."""

    def provider_type(self, namespace: str, kind: str) -> Mapping[str, Any] | None:
        """The resource type as the provider lists it."""


class Facts:
    """The functions that only a deployment can answer (`Live`). `refer` answers those that ask for a resource."""

    def __init__(self, world: World, name: str, refer: Refer, *, caller: str = "", template: Any = None) -> None:
        self._world = world
        self._name = name
        self._refer = refer
        self._caller = caller
        self._template = template

    def referring(self, refer: Refer) -> Facts:
        """The same with another answer to `reference()`."""
        return Facts(self._world, self._name, refer, caller=self._caller, template=self._template)

    def called(self, name: str) -> Facts:
        """The same within a nested deployment."""
        return Facts(self._world, name, self._refer, caller=self._caller)

    def knows(self, name: str) -> bool:
        return name in _FACTS or name in _REFERRING or name in _ZONES or name.startswith("list")

    def call(self, call: Call, arguments: list[Any], context: Context) -> Any:
        name = call.name.lower()
        if name == "newguid":
            return str(uuid.uuid4())
        if name == "resourcegroup":
            return self._group(context.scope)
        if name == "subscription":
            return dict(self._world.subscription(context.scope.subscription))
        if name == "tenant":
            return {"tenantId": context.scope.tenant, "displayName": "aib", "id": "/"}
        if name == "deployment":
            return self._deployment(context.scope)
        if name == "deployer":
            return {"objectId": self._caller, "tenantId": context.scope.tenant, "userPrincipalName": ""}
        if name == "providers":
            return self._provider(call, arguments)
        if name in _ZONES:
            return []  # no region of ours has zones
        return self._refer(call, arguments, context)

    def _group(self, scope: Scope) -> dict[str, Any]:
        if not scope.resource_group:
            raise ExpressionError("The template function 'RESOURCEGROUP' is not expected at this location")
        found = self._world.group(scope.subscription, scope.resource_group)
        if found is None:
            raise ExpressionError(f"Resource group '{scope.resource_group}' could not be found")
        return dict(found)

    def _deployment(self, scope: Scope) -> dict[str, Any]:
        level = scope.group_id if scope.resource_group else scope.subscription_id
        return {
            "name": self._name,
            "id": f"{level}/providers/Microsoft.Resources/deployments/{self._name}",
            "location": scope.location,
            "properties": {
                "mode": "Incremental",
                "provisioningState": "Accepted",
                "template": self._template or {},
                "templateHash": "",
                "parameters": {},
            },
        }

    def _provider(self, call: Call, arguments: list[Any]) -> Any:
        if len(arguments) != 2:
            raise ExpressionError("providers() takes a namespace and a resource type", call.offset)
        namespace, kind = (text_of(argument) for argument in arguments)
        found = self._world.provider_type(namespace, kind)
        if found is None:
            raise ExpressionError(f"the resource type {namespace}/{kind} is not known here")
        return dict(found)


def refuse(call: Call, _: list[Any], __: Context) -> Any:
    """Where ARM allows no `reference()`: names, conditions, variables, parameters."""
    raise ExpressionError(f"The template function '{call.name}' is not expected at this location", call.offset)


class Noting:
    """Stands in for resources that are not deployed yet, and keeps which were asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, call: Call, arguments: list[Any], context: Context) -> Any:
        if not arguments:
            raise ExpressionError(f"{call.name}() needs the name or the id of a resource", call.offset)
        for argument in arguments[:1]:
            text = text_of(argument, f"the first argument of {call.name}()")
            self.asked.append(text)
        return Unresolved(f"<{call.name}({arguments[0]})>")
