"""The ARM resources that a distribution leaves: pure, from the plan and the stored disk to JSON."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from orchestrator.plan.model import RunPlan
from orchestrator.record import arm_ids
from orchestrator.record.arm_ids import ArmId
from orchestrator.record.layers import Layer
from orchestrator.record.resources import Resource
from orchestrator.template.model import ManagedImageTarget, SharedImageTarget

_GIB = 1 << 30
_DEFAULT_STORAGE = "Standard_LRS"


def image_tags(plan: RunPlan, artifact_tags: Mapping[str, str]) -> dict[str, str]:
    """The template's tags are for the generated image too (S4); the distributor's own win."""
    return {**plan.tags, **artifact_tags}


def aib_properties(plan: RunPlan, layer: Layer, run_id: str) -> dict[str, Any]:
    """What makes a resource a source image for later builds."""
    return {
        "digest": layer.digest,
        "format": layer.format,
        "virtualSize": layer.virtual_size,
        "os": plan.source.os,
        "generation": plan.source.generation,
        "source": plan.source.resource_id or plan.source.requested,
        "run": run_id,
    }


def managed_image(plan: RunPlan, target: ManagedImageTarget, image_id: ArmId, layer: Layer, run_id: str) -> Resource:
    """Microsoft.Compute/images, in the shape of the compute service."""
    os_disk = {
        "osType": plan.source.os.capitalize(),
        "osState": "Generalized",
        "blobUri": layer.path.as_uri(),
        "diskSizeGB": _gib(layer.virtual_size),
        "caching": "ReadWrite",
        "storageAccountType": _DEFAULT_STORAGE,
    }
    properties = {
        "provisioningState": "Succeeded",
        "hyperVGeneration": plan.source.generation,
        "storageProfile": {"osDisk": os_disk, "dataDisks": [], "zoneResilient": False},
        "aib": aib_properties(plan, layer, run_id),
    }
    location, tags = arm_ids.region(target.location), image_tags(plan, target.artifact_tags)
    return Resource(str(image_id), arm_ids.MANAGED_IMAGE, image_id.name, location, tags, properties)


def reservation(plan: RunPlan, target: SharedImageTarget, version_id: ArmId, location: str, run_id: str) -> Resource:
    """A gallery image version whose number is taken and whose disk is still to come."""
    properties = {"provisioningState": "Creating", "aib": {"run": run_id}}
    tags = image_tags(plan, target.artifact_tags)
    return Resource(str(version_id), arm_ids.IMAGE_VERSION, version_id.name, location, tags, properties)


def image_version(plan: RunPlan, target: SharedImageTarget, reserved: Resource, layer: Layer) -> Resource:
    """The published version. Regions are recorded; nothing is replicated, and `replicationStatus` says so."""
    storage = target.storage_account_type or _DEFAULT_STORAGE
    regions = [
        {
            "name": region.name,
            "regionalReplicaCount": region.replica_count,
            "storageAccountType": region.storage_account_type or storage,
        }
        for region in target.regions
    ] or [{"name": reserved.location, "regionalReplicaCount": 1, "storageAccountType": storage}]
    properties = {
        "provisioningState": "Succeeded",
        "publishingProfile": {
            "targetRegions": regions,
            "replicaCount": 1,
            "excludeFromLatest": target.exclude_from_latest,
            "publishedDate": datetime.now(UTC).isoformat(timespec="seconds"),
            "storageAccountType": storage,
        },
        "storageProfile": {
            "source": {"id": plan.template_id},
            "osDiskImage": {"sizeInGB": _gib(layer.virtual_size), "hostCaching": "ReadWrite"},
        },
        "replicationStatus": {"aggregatedState": "Unknown", "summary": []},
        "aib": {**aib_properties(plan, layer, reserved.properties["aib"]["run"]), "replication": "not emulated"},
    }
    return Resource(reserved.id, reserved.type, reserved.name, reserved.location, reserved.tags, properties)


def _gib(size: int) -> int:
    return -(-size // _GIB)
