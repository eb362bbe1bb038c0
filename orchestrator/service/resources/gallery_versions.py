"""Gallery image versions: those that builds publish, and those that clients make from an image, a version or a VHD."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, cast

from hypervisor.partitions import Generation, System
from orchestrator.record import arm_ids, galleries
from orchestrator.record.arm_ids import InvalidResourceId
from orchestrator.record.resources import Resource
from orchestrator.service.context import Context
from orchestrator.service.envelope import ArmError
from orchestrator.service.resources import disks
from orchestrator.service.resources.kind import Kind, Put, Work, bad_request, build, member, shown

_STORAGE = "Standard_LRS"


class ImageVersion(Kind):
    """Microsoft.Compute/galleries/images/versions."""

    tracked = True

    def make(self, put: Put) -> Resource:
        """From an image of the store, or the same version with another publishing profile; a VHD is `work`."""
        definition, gallery = check(put)
        if put.existing is not None:
            _not_under_way(put.context, put.existing)
            properties = {**put.existing.properties, "publishingProfile": _profile(put, gallery)}
            return build(put, properties, tracked=True)
        source = disks.stored(put.context, _source_id(put), "storageProfile.source.id")
        aib = disks.facts(source, {})
        _check_kind(definition, aib, source.id)
        return finished(put, gallery, aib)

    def work(self, put: Put) -> Work | None:
        """The import of a VHD."""
        uri = member(put.properties, "storageProfile", "osDiskImage", "source", "uri")
        if put.existing is not None or not isinstance(uri, str):
            return None
        definition, gallery = check(put)
        disks.check_blob(put.context, uri)
        system = cast(System, str(definition.properties.get("osType", "Linux")).lower())
        generation = cast(Generation, definition.properties.get("hyperVGeneration", "V1"))

        def done() -> Resource:
            layer, aib = disks.from_blob(put.context, uri, system=system, generation=generation)
            try:
                version = finished(put, gallery, aib)
                put.context.store.create(version)
            finally:
                disks.release(put.context, layer)
            return version

        return done

    def may_delete(self, context: Context, resource: Resource) -> None:
        """Not while a run publishes it."""
        _not_under_way(context, resource)

    def shown(self, context: Context, resource: Resource, origin: str, expand: str = "") -> dict[str, Any]:
        """`replicationStatus` only when it is asked for."""
        form = shown(resource)
        if expand.lower() != "replicationstatus":
            form["properties"].pop("replicationStatus", None)
        return form


def check(put: Put) -> tuple[Resource, Resource]:
    """The definition and the gallery of a version whose name can be one; raises `ArmError`."""
    try:
        wanted = arm_ids.parse_image_version(put.target.id)
        arm_ids.parse_version(put.target.name)
    except InvalidResourceId as error:
        raise bad_request("InvalidParameter", f"{error}.", "galleryImageVersionName") from None
    definition, gallery = put.context.store.get(str(wanted.parent)), put.context.store.get(str(wanted.parent.parent))
    if definition is None or gallery is None:
        raise ArmError(
            404,
            "ParentResourceNotFound",
            "Failed to perform 'write' on resource(s) of type 'galleries/images/versions', because the parent resource "
            f"'{wanted.parent}' could not be found.",
        )
    return definition, gallery


def finished(put: Put, gallery: Resource, aib: Mapping[str, Any]) -> Resource:
    """The version with its disk."""
    profile = {
        **{key: value for key, value in (put.properties.get("storageProfile") or {}).items() if key == "source"},
        "osDiskImage": {"sizeInGB": disks.gib(int(aib.get("virtualSize", 0))), "hostCaching": "ReadOnly"},
    }
    properties = {
        "provisioningState": "Succeeded",
        "publishingProfile": _profile(put, gallery),
        "storageProfile": profile,
        "safetyProfile": {"allowDeletionOfReplicatedLocations": False, "reportedForPolicyViolation": False},
        "replicationStatus": {"aggregatedState": "Unknown", "summary": []},
        "aib": {**aib, "replication": "not emulated"},
    }
    return build(put, properties, tracked=True)


def _profile(put: Put, gallery: Resource) -> dict[str, Any]:
    """The publishing profile; one of its regions is the gallery's (S31), no region at all stands for that."""
    given = put.properties.get("publishingProfile")
    asked = dict(given) if isinstance(given, Mapping) else {}
    had = dict(put.existing.properties.get("publishingProfile") or {}) if put.existing else {}
    regions = asked.get("targetRegions", had.get("targetRegions"))
    storage = str(asked.get("storageAccountType") or had.get("storageAccountType") or _STORAGE)
    if not regions:
        regions = [{"name": gallery.location}]
    if not isinstance(regions, list) or not all(isinstance(member(each, "name"), str) for each in regions):
        name = "galleryImageVersion.properties.publishingProfile.targetRegions"
        raise bad_request("InvalidParameter", f"'{name}' must be objects with a 'name'.", name)
    home = arm_ids.region(gallery.location)
    if home not in [arm_ids.region(each["name"]) for each in regions]:
        raise bad_request(
            "InvalidParameter",
            f"The target regions must include the region of the gallery, '{home}'.",
            "galleryImageVersion.properties.publishingProfile.targetRegions",
        )
    exclude = asked.get("excludeFromLatest", had.get("excludeFromLatest", False))
    return {
        **had,
        **asked,
        "targetRegions": [{"regionalReplicaCount": 1, "storageAccountType": storage, **each} for each in regions],
        "replicaCount": asked.get("replicaCount", had.get("replicaCount", 1)),
        "excludeFromLatest": bool(exclude),
        "publishedDate": had.get("publishedDate") or datetime.now(UTC).isoformat(timespec="seconds"),
        "storageAccountType": storage,
    }


def _source_id(put: Put) -> str:
    places = (("source", "id"), ("source", "virtualMachineId"), ("osDiskImage", "source", "id"))
    for place in places:
        found = member(put.properties, "storageProfile", *place)
        if isinstance(found, str) and found:
            return found
    name = "galleryImageVersion.properties.storageProfile.source.id"
    raise bad_request("InvalidParameter", f"Required parameter '{name}' is missing (null).", name)


def _check_kind(definition: Resource, aib: Mapping[str, Any], source_id: str) -> None:
    os = str(definition.properties.get("osType", "Linux")).lower()
    generation = str(definition.properties.get("hyperVGeneration", "V1"))
    if (os, generation) != (aib.get("os"), aib.get("generation")):
        raise bad_request(
            "InvalidParameter",
            f"The image definition '{definition.name}' takes {os} images of generation {generation}; the source "
            f"'{source_id}' is {aib.get('os')} of generation {aib.get('generation')}.",
            "storageProfile.source.id",
        )


def _not_under_way(context: Context, resource: Resource) -> None:
    creating = resource.properties.get("provisioningState") == galleries.CREATING
    if creating and not galleries.is_stale(context.store, resource):
        raise ArmError(409, "OperationNotAllowed", f"'{resource.id}' is being published by a run.")
