"""Create, change, remove and find resources: what the catch-all routes and deployments both call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.record import arm_ids
from orchestrator.record.resources import Resource
from orchestrator.service.context import GROUP, Context
from orchestrator.service.envelope import ArmError, resource_not_found
from orchestrator.service.resources import roles
from orchestrator.service.resources.galleries import Gallery, ImageDefinition
from orchestrator.service.resources.gallery_versions import ImageVersion
from orchestrator.service.resources.identities import UserAssignedIdentity
from orchestrator.service.resources.kind import Kind, Put, Work
from orchestrator.service.resources.managed_images import ManagedImage
from orchestrator.service.resources.storage import StorageAccount
from orchestrator.service.resources.targets import Target, of_id

DEPLOYMENT = "Microsoft.Resources/deployments"
_KINDS: Mapping[str, Kind] = {
    "microsoft.compute/images": ManagedImage(),
    "microsoft.compute/galleries": Gallery(),
    "microsoft.compute/galleries/images": ImageDefinition(),
    "microsoft.compute/galleries/images/versions": ImageVersion(),
    "microsoft.managedidentity/userassignedidentities": UserAssignedIdentity(),
    "microsoft.storage/storageaccounts": StorageAccount(),
    roles.DEFINITION.lower(): roles.RoleDefinition(),
    roles.ASSIGNMENT.lower(): roles.RoleAssignment(),
}
_ANY = Kind()
_NOT_LISTED = frozenset(
    kind.lower() for kind in (arm_ids.RUN_OUTPUT, DEPLOYMENT, GROUP, roles.DEFINITION, roles.ASSIGNMENT)
)
RESERVED = frozenset({"microsoft.resources", "microsoft.virtualmachineimages", "aib"})
"""Namespaces whose resources have routes of their own, and no others."""
TRIES = 20


@dataclass(frozen=True, slots=True)
class Prepared:
    """A checked request: `work` where it takes long, else `store` keeps it at once."""

    kind: Kind
    put: Put
    work: Work | None

    def store(self) -> tuple[Resource, bool]:
        """Keep the resource; (as it is now, whether it is new). Made anew when another request came in between."""
        put = self.put
        for _ in range(TRIES):
            made = self.kind.make(put)
            if _swap(put, made):
                return made, put.existing is None
            existing = put.context.store.get(put.target.id)
            put = Put(put.context, put.target, put.body, existing, put.api_version)
        raise ArmError(409, "Conflict", f"Others keep changing '{put.target.id}'. Try again.")


class _Changed(Exception):
    """The resource is not what it was."""


def _swap(put: Put, made: Resource) -> bool:
    """Keep `made` if what is there is still what it was made from."""

    def change(existing: Resource | None) -> Resource:
        if existing != put.existing:
            raise _Changed
        return made

    try:
        put.context.store.upsert(put.target.id, change)
    except _Changed:
        return False
    return True


def kind_of(type: str) -> Kind:
    """How resources of a type behave."""
    return _KINDS.get(type.lower(), _ANY)


def prepare(context: Context, target: Target, body: Mapping[str, Any], api_version: str) -> Prepared:
    """Check a request to create or replace `target`. Raises `ArmError`."""
    if target.namespace.lower() in RESERVED:
        raise ArmError(400, "InvalidResourceType", f"The resource type '{target.kind}' cannot be created in this way.")
    if target.extends and context.store.get(target.scope) is None:
        raise missing(of_id(target.scope))
    if len(target.names) > 1 and context.store.get(target.owner.id) is None:
        raise ArmError(
            404,
            "ParentResourceNotFound",
            f"Failed to perform 'write' on resource(s) of type '{'/'.join(target.types)}', because the parent resource "
            f"'{target.owner.id}' could not be found.",
        )
    kind = kind_of(target.kind)
    put = Put(context, target, body, context.store.get(target.id), api_version)
    return Prepared(kind, put, kind.work(put))


def put_now(context: Context, target: Target, body: Mapping[str, Any], api_version: str) -> tuple[Resource, bool]:
    """Create or replace `target`, however long it takes: (the resource, whether it is new). Raises `ArmError`."""
    prepared = prepare(context, target, body, api_version)
    if prepared.work is not None:
        return prepared.work(), prepared.put.existing is None
    return prepared.store()


def find(context: Context, target: Target) -> Resource | None:
    """The resource, or None."""
    found = context.store.get(target.id)
    if found is None and target.kind.lower() == roles.DEFINITION.lower():
        from orchestrator.service import azure

        guid = target.name.lower()
        return roles.built_in(guid, target.scope) if guid in azure.roles() else None
    return found


def get(context: Context, target: Target) -> Resource:
    """The resource; `ArmError` 404."""
    found = find(context, target)
    if found is None:
        raise missing(target)
    return found


def delete(context: Context, target: Target) -> Resource | None:
    """Remove the resource and, where the service does so too, what belongs to it. None when there was none.

    Raises `ArmError` where the service refuses.
    """
    if target.namespace.lower() in RESERVED:
        raise ArmError(405, "MethodNotAllowed", f"Resources of the type '{target.kind}' cannot be deleted in this way.")
    found = context.store.get(target.id)
    if found is None:
        return None
    kind = kind_of(target.kind)
    kind.may_delete(context, found)
    if not context.store.delete(found.id, only_if=lambda now: now == found):
        raise ArmError(409, "Conflict", f"'{found.id}' is being changed by another request. Try again.")
    for child in reversed(context.store.list(under=found.id)):
        context.store.delete(child.id)
    return found


def tracked(context: Context, scope: str) -> list[Resource]:
    """What `az resource list` shows of a subscription or a group."""
    return [each for each in context.store.list(under=scope) if each.type.lower() not in _NOT_LISTED]


def shown(context: Context, resource: Resource, origin: str, expand: str = "") -> dict[str, Any]:
    """The resource in ARM's form."""
    return kind_of(resource.type).shown(context, resource, origin, expand)


def missing(target: Target) -> ArmError:
    """404 in ARM's words."""
    if not target.group:
        return ArmError(404, "ResourceNotFound", f"The Resource '{target.kind}/{target.path_name}' was not found.")
    return resource_not_found(target.kind, target.path_name, target.group)
