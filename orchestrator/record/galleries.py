"""Galleries, image definitions and image versions as resources."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from hypervisor.errors import UsageError
from orchestrator.record import arm_ids
from orchestrator.record.arm_ids import ArmId
from orchestrator.record.resources import Resource
from orchestrator.record.store import Store

CREATING = "Creating"


def gallery(gallery_id: ArmId, location: str) -> Resource:
    """A gallery in a region."""
    unique = f"{gallery_id.scope.subscription}-{gallery_id.name}".upper()
    properties = {"identifier": {"uniqueName": unique}, "provisioningState": "Succeeded"}
    return Resource(str(gallery_id), arm_ids.GALLERY, gallery_id.name, arm_ids.region(location), {}, properties)


def image_definition(
    definition_id: ArmId,
    location: str,
    *,
    os: Literal["linux", "windows"],
    generation: Literal["V1", "V2"],
    publisher: str,
    offer: str,
    sku: str,
) -> Resource:
    """An image definition: what kind of image its versions are."""
    properties = {
        "osType": os.capitalize(),
        "osState": "Generalized",
        "hyperVGeneration": generation,
        "identifier": {"publisher": publisher, "offer": offer, "sku": sku},
        "provisioningState": "Succeeded",
    }
    return Resource(str(definition_id), arm_ids.IMAGE_DEFINITION, definition_id.name, location, {}, properties)


def versions(store: Store, definition_id: ArmId) -> list[Resource]:
    """The versions of a definition, reservations included, in the order of their numbers."""
    found = store.list(arm_ids.IMAGE_VERSION, under=str(definition_id))
    return sorted(found, key=lambda resource: arm_ids.parse_version(resource.name))


def is_stale(store: Store, version: Resource) -> bool:
    """Whether the version is only a reservation whose run ended without publishing or releasing it."""
    if version.properties.get("provisioningState") != CREATING:
        return False
    aib = version.properties.get("aib") or {}
    try:
        return not store.run(str(aib.get("run", ""))).alive()
    except UsageError:  # the run's folder is gone
        return True


def release_stale(store: Store, candidates: Iterable[Resource]) -> list[Resource]:
    """Remove the reservations among `candidates` that dead runs left; returns them."""
    stale = [version for version in candidates if is_stale(store, version)]
    return [version for version in stale if store.delete(version.id, only_if=lambda found: is_stale(store, found))]
