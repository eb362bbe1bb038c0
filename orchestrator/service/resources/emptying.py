"""Removing everything below a resource group, and what `Complete` deployments do not name."""

from __future__ import annotations

from collections.abc import Collection

from orchestrator.record import arm_ids
from orchestrator.record.resources import Resource, resource_key
from orchestrator.service.context import Context
from orchestrator.service.envelope import ArmError
from orchestrator.service.resources import engine, owners
from orchestrator.service.resources.targets import of_id


def empty(context: Context, group_id: str, keep: Collection[str] = ()) -> None:
    """Remove what lies in a group but for the ids in `keep` and what these need; children before their parents.

    What the service would refuse (a template that is being built) is left, and told at the end by one `ArmError`.
    """
    kept = {resource_key(each) for each in keep}
    failed: list[ArmError] = []
    found = [each for each in context.store.list(under=group_id) if not _is_kept(each, kept)]
    for resource in sorted(found, key=lambda each: -each.id.count("/")):
        try:
            remove(context, resource)
        except ArmError as error:
            failed.append(error)
    if failed:
        raise ArmError(
            409,
            "ResourceGroupDeletionBlocked",
            f"Deletion of resource group '{group_id.rpartition('/')[2]}' failed as resources could not be deleted.",
            details=[error.error() for error in failed[:20]],
        )


def remove(context: Context, resource: Resource) -> None:
    """Remove one resource as its own DELETE would."""
    if context.store.get(resource.id) is None:
        return  # it went with its parent
    owner = owners.of(resource.type)
    if owner is not None:
        owner.delete(context, resource)
    elif resource.type.lower() in (arm_ids.RUN_OUTPUT.lower(), engine.DEPLOYMENT.lower()):
        context.store.delete(resource.id)
    else:
        engine.delete(context, of_id(resource.id))


def _is_kept(resource: Resource, kept: set[str]) -> bool:
    """What is named, what lies above or below it; runOutputs and deployments are no business of a deployment's."""
    if not kept:
        return False
    key = resource_key(resource.id)
    related = any(key == each or key.startswith(f"{each}/") or each.startswith(f"{key}/") for each in kept)
    return related or resource.type.lower() in (engine.DEPLOYMENT.lower(), arm_ids.RUN_OUTPUT.lower())
