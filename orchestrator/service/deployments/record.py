"""What is kept of a deployment: a resource in the store, written anew whenever one of its operations ends."""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from orchestrator.record.resources import Resource
from orchestrator.record.run_outputs import without_signatures
from orchestrator.record.store import Store
from orchestrator.service.deployments import parameters
from orchestrator.service.deployments.planned import Plan, Planned
from orchestrator.service.resources.engine import DEPLOYMENT

RUNNING = ("Accepted", "Running", "Canceling")
HELP = (
    "At least one resource deployment operation failed. Please list deployment operations for details. "
    "Please see https://aka.ms/arm-deployment-operations for usage details."
)
SAVED_EVERY = 0.5
"""Seconds between two writings while resources are made."""
LARGEST_KEPT = 256 * 1024
"""Characters of a template that is kept for `exportTemplate`: whoever lists deployments reads them all."""
INTERRUPTED = "The server was stopped while the deployment ran. Deploy again: what is there already stays."


@dataclass(slots=True)
class Record:
    """One deployment as it goes on. `started` is kept to tell how long it took."""

    store: Store
    id: str
    name: str
    mode: str = "Incremental"
    location: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    correlation: str = field(default_factory=lambda: str(uuid.uuid4()))
    operation: str = ""
    state: str = "Accepted"
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    operations: list[dict[str, Any]] = field(default_factory=list)
    outputs: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    made: list[str] = field(default_factory=list)
    shown: dict[str, Any] = field(default_factory=dict)
    template: Any = None
    _saved: float = 0.0

    def describe(self, plan: Plan) -> None:
        """Take what a plan says of the deployment: parameters, providers, dependencies, the template's hash."""
        written = plan.template.plain()
        kept = clean(written)
        self.template = kept if len(json.dumps(kept)) <= LARGEST_KEPT else None
        self.shown = {
            "templateHash": hashed(written),
            "parameters": clean(parameters.shown(plan.template, plan.parameters)),
            "providers": providers(plan),
            "dependencies": dependencies(plan),
        }

    def ended(self, planned: Planned, began: datetime, error: Mapping[str, Any] | None = None) -> None:
        """One resource is done, or has failed."""
        operation = "Create"
        status = {"error": error} if error else None
        self.operations.append(self._operation(operation, began, planned, status))
        if error is None and not planned.is_nested:
            self.made.append(planned.id)
        if time.monotonic() - self._saved > SAVED_EVERY:
            self.save()

    def finish(self, state: str, error: Mapping[str, Any] | None = None) -> None:
        """The deployment has ended."""
        self.state, self.error = state, clean(error)
        self.save()

    def save(self) -> None:
        """Write the record."""
        self._saved = time.monotonic()
        self.store.put(self.resource())

    def resource(self) -> Resource:
        """The record as a resource."""
        properties: dict[str, Any] = {
            **self.shown,
            "mode": self.mode,
            "provisioningState": self.state,
            "timestamp": stamp(datetime.now(UTC)),
            "duration": duration(self.started),
            "correlationId": self.correlation,
            "outputResources": [{"id": each} for each in self.made],
        }
        if self.outputs is not None:
            properties["outputs"] = clean(self.outputs)
        if self.error:
            properties["error"] = self.error
        properties["aib"] = {"operations": clean(self.operations), "operation": self.operation}
        if self.state not in RUNNING:  # large, and of no use before
            properties["aib"]["template"] = self.template
        return Resource(self.id, DEPLOYMENT, self.name, self.location, dict(self.tags), properties)

    def _operation(
        self, kind: str, began: datetime, planned: Planned | None, status: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        name = uuid.uuid4().hex[:16].upper()
        properties: dict[str, Any] = {
            "provisioningOperation": kind,
            "provisioningState": "Failed" if status else "Succeeded",
            "timestamp": stamp(datetime.now(UTC)),
            "duration": duration(began),
            "trackingId": str(uuid.uuid4()),
            "statusCode": "BadRequest" if status else "OK",
        }
        if status:
            properties["statusMessage"] = status
        if planned is not None:
            properties["targetResource"] = {
                "id": planned.id,
                "resourceType": planned.kind,
                "resourceName": planned.name,
            }
        return {"id": f"{self.id}/operations/{name}", "operationId": name, "properties": properties}

    def evaluated(self, began: datetime) -> None:
        """The outputs were evaluated: the last operation of a deployment that succeeded."""
        self.operations.append(self._operation("EvaluateDeploymentOutput", began, None, None))


def interrupt(store: Store, deployment_id: str) -> None:
    """A deployment whose server has gone has failed."""

    def change(resource: Resource) -> Resource:
        if resource.properties.get("provisioningState") not in RUNNING:
            return resource
        error = {"code": "DeploymentFailed", "message": INTERRUPTED}
        return replace(resource, properties={**resource.properties, "provisioningState": "Failed", "error": error})

    if store.get(deployment_id) is not None:
        store.update(deployment_id, change)


def failed(deployment_id: str, details: list[Mapping[str, Any]]) -> dict[str, Any]:
    """The error of a deployment with failed resources."""
    return {"code": "DeploymentFailed", "target": deployment_id, "message": HELP, "details": list(details)}


def failed_resource(resource_id: str, details: list[Mapping[str, Any]]) -> dict[str, Any]:
    """The error of a resource that was accepted and then failed, a nested deployment's too."""
    return {
        "code": "ResourceDeploymentFailure",
        "target": resource_id,
        "message": "The resource write operation failed to complete successfully, because it reached terminal "
        "provisioning state 'Failed'.",
        "details": list(details),
    }


def providers(plan: Plan) -> list[dict[str, Any]]:
    """Which providers and types a plan deploys to, as deployments list them."""
    found: dict[str, dict[str, str]] = {}
    for planned in plan.resources:
        namespace, _, kind = planned.kind.partition("/")
        if planned.deployed:
            found.setdefault(namespace, {})[kind] = plan.scope.location
    return [
        {
            "namespace": namespace,
            "resourceTypes": [{"resourceType": kind, "locations": [place]} for kind, place in sorted(kinds.items())],
        }
        for namespace, kinds in sorted(found.items())
    ]


def dependencies(plan: Plan) -> list[dict[str, Any]]:
    """What depends on what, as deployments list it."""
    return [
        {**_named(planned), "dependsOn": [_named(each) for each in planned.before]}
        for planned in plan.resources
        if planned.deployed and planned.before
    ]


def _named(planned: Planned) -> dict[str, str]:
    return {"id": planned.id, "resourceType": planned.kind, "resourceName": planned.name}


def hashed(template: Any) -> str:
    """A number of the template as ARM has one; its own way of making it is not known."""
    text = json.dumps(template, sort_keys=True, separators=(",", ":"))
    return str(int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8]))


def clean(value: Any) -> Any:
    """Without the signatures of addresses: nothing of them is kept."""
    return without_signatures(value)


def stamp(moment: datetime) -> str:
    """A time as ARM writes it."""
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def duration(since: datetime) -> str:
    """`PT1.5S`."""
    return f"PT{(datetime.now(UTC) - since).total_seconds():.7f}S"
