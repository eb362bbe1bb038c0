"""The server as a deployment sees it: resources found, made and asked, exactly as by requests of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.record.arm_ids import Scope as GroupScope
from orchestrator.service import groups, providers, subscriptions
from orchestrator.service.context import Context
from orchestrator.service.deployments.planned import GROUPS, Planned
from orchestrator.service.envelope import ArmError
from orchestrator.service.resources import engine, owners, targets
from orchestrator.template.arm.functions_azure import Scope

_OURS = ("id", "name", "type", "apiVersion")


@dataclass(frozen=True, slots=True)
class ServerWorld:
    """`origin`: how the client that asked for the deployment reaches the server."""

    context: Context
    origin: str

    def group(self, subscription: str, name: str) -> Mapping[str, Any] | None:
        """The resource group in ARM's form, or None."""
        try:
            return groups.form(self.context, GroupScope(subscription, name))
        except ArmError:
            return None

    def subscription(self, subscription: str) -> Mapping[str, Any]:
        """The subscription in ARM's form."""
        return subscriptions.form(subscription)

    def provider_type(self, namespace: str, kind: str) -> Mapping[str, Any] | None:
        """The resource type as its provider lists it, or None."""
        return providers.type_form(namespace, kind)

    def check_scope(self, scope: Scope) -> None:
        """Raises `ArmError` 404 when the subscription or the group of a nested deployment is not there."""
        subscription = self.context.known_subscription(scope.subscription)
        if scope.resource_group:
            self.context.known_group(GroupScope(subscription, scope.resource_group))

    def resource(self, resource_id: str) -> Mapping[str, Any]:
        """The resource in ARM's form; `ArmError` 404."""
        parts = resource_id.strip("/").split("/")
        if len(parts) == 4 and parts[2].lower() == "resourcegroups":
            return groups.form(self.context, GroupScope(parts[1], parts[3]))
        target = targets.parse(self.context, resource_id)
        if not target.is_resource:
            raise ArmError(400, "InvalidResourceReference", f"'{resource_id[:200]}' is not the id of a resource.")
        found = engine.get(self.context, target)
        owner = owners.of(target.kind)
        return (
            owner.shown(self.context, found, self.origin) if owner else engine.shown(self.context, found, self.origin)
        )

    def action(self, resource_id: str, action: str) -> Mapping[str, Any]:
        """What a POST of `action` (listKeys) answers; `ArmError` when there is no such thing."""
        target = targets.parse(self.context, resource_id)
        found = engine.get(self.context, target)
        answer = engine.kind_of(target.kind).action(self.context, found, action.lower(), self.origin)
        if answer is None:
            raise ArmError(400, "InvalidAction", f"'{target.kind}' does not support '{action}' here.")
        return answer

    def check(self, planned: Planned, body: Mapping[str, Any]) -> None:
        """What the provider of a resource refuses before a deployment begins. Raises `ArmError`."""
        owner = owners.of(planned.kind)
        if owner is not None:
            target = targets.parse(self.context, planned.id)
            owner.check(self.context, target, _request(body), planned.api_version)

    def put(self, planned: Planned, body: Mapping[str, Any]) -> None:
        """Make the resource and wait until it is there. Raises `ArmError`."""
        if planned.kind.lower() == GROUPS:
            parts = planned.id.split("/")
            groups.create(self.context, GroupScope(parts[2], parts[4]), body)
            return
        target = targets.parse(self.context, planned.id)
        owner = owners.of(target.kind)
        if owner is not None:
            owner.put(self.context, target, _request(body), planned.api_version)
        else:
            engine.put_now(self.context, target, _request(body), planned.api_version)


def _request(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body of the PUT that a resource of a template stands for."""
    return {key: value for key, value in body.items() if key not in _OURS}
