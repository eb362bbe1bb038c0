"""Managed images: those that builds distribute, and those that clients make from a VHD or another image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from hypervisor.partitions import Generation, System
from orchestrator.record import arm_ids
from orchestrator.record.arm_ids import InvalidResourceId
from orchestrator.record.resources import Resource
from orchestrator.service.context import Context
from orchestrator.service.resources import disks
from orchestrator.service.resources.kind import Kind, Put, Work, bad_request, build, member, shown

_DISK = ("storageProfile", "osDisk")


class ManagedImage(Kind):
    """Microsoft.Compute/images."""

    tracked = True

    def make(self, put: Put) -> Resource:
        """From an image of the store, or the same image with other tags; a VHD is `work`."""
        check(put)
        if put.existing is not None and _same_source(put, put.existing):
            aib = put.existing.properties.get("aib")
            properties = {**put.existing.properties, **({"aib": aib} if aib else {})}
            return build(put, properties, tracked=True)
        source_id = _source_id(put)
        source = disks.stored(put.context, source_id, "managedDisk")
        return finished(put, disks.facts(source, {}))

    def work(self, put: Put) -> Work | None:
        """The import of a VHD."""
        check(put)
        uri = member(put.properties, *_DISK, "blobUri")
        if not isinstance(uri, str) or (put.existing is not None and _same_source(put, put.existing)):
            return None
        disks.check_blob(put.context, uri)
        system = cast(System, str(member(put.properties, *_DISK, "osType")).lower())
        generation = cast("Generation | None", put.properties.get("hyperVGeneration"))

        def done() -> Resource:
            layer, aib = disks.from_blob(put.context, uri, system=system, generation=generation)
            try:
                image = finished(put, aib)
                put.context.store.put(image)
            finally:
                disks.release(put.context, layer)
            return image

        return done

    def shown(self, context: Context, resource: Resource, origin: str, expand: str = "") -> dict[str, Any]:
        """Without the path of its disk on this machine."""
        form = shown(resource)
        profile = form["properties"].get("storageProfile")
        disk = dict(profile.get("osDisk") or {}) if isinstance(profile, Mapping) else None
        if disk is not None and str(disk.get("blobUri", "")).startswith("file:"):
            del disk["blobUri"]
            form["properties"]["storageProfile"] = {**profile, "osDisk": disk}
        return form


def check(put: Put) -> None:
    """What every image must say of its disk; raises `ArmError`."""
    try:
        arm_ids.parse_managed_image(put.target.id)
    except InvalidResourceId as error:
        raise bad_request("InvalidParameter", f"{error}.", "imageName") from None
    if put.existing is not None and _same_source(put, put.existing):
        return
    if member(put.properties, "sourceVirtualMachine") is not None:
        raise bad_request(
            "InvalidParameter",
            "There are no virtual machines here to make an image of: give storageProfile.osDisk.",
            "sourceVirtualMachine",
        )
    disk = member(put.properties, *_DISK)
    if not isinstance(disk, Mapping):
        raise bad_request("InvalidParameter", "Required parameter 'osDisk' is missing (null).", "osDisk")
    if str(disk.get("osType", "")).lower() not in ("linux", "windows"):
        raise bad_request("InvalidParameter", "Required parameter 'osDisk.osType' must be Linux or Windows.", "osType")
    if disk.get("osState", "Generalized") not in ("Generalized", "Specialized"):
        raise bad_request("InvalidParameter", "'osDisk.osState' must be Generalized or Specialized.", "osState")
    if put.properties.get("hyperVGeneration", "V1") not in ("V1", "V2"):
        raise bad_request("InvalidParameter", "'hyperVGeneration' must be V1 or V2.", "hyperVGeneration")
    if not isinstance(disk.get("blobUri"), str) and not _source_id(put):
        message = "One of 'osDisk.blobUri', 'osDisk.managedDisk.id' and 'osDisk.snapshot.id' is required."
        raise bad_request("InvalidParameter", message, "osDisk")


def finished(put: Put, aib: Mapping[str, Any]) -> Resource:
    """The image with its disk."""
    asked = put.properties
    disk = {**member(asked, *_DISK), "diskSizeGB": disks.gib(int(aib.get("virtualSize", 0)))}
    disk.pop("blobUri", None)  # a SAS is in it; the image holds its own copy of the disk
    properties = {
        "hyperVGeneration": asked.get("hyperVGeneration", aib.get("generation", "V1")),
        "storageProfile": {
            "osDisk": {"osState": "Generalized", "caching": "None", "storageAccountType": "Standard_LRS", **disk},
            "dataDisks": [],
            "zoneResilient": bool(member(asked, "storageProfile", "zoneResilient")),
        },
        "provisioningState": "Succeeded",
        "aib": dict(aib),
    }
    return build(put, properties, tracked=True)


def _source_id(put: Put) -> str:
    for kind in ("managedDisk", "snapshot"):
        found = member(put.properties, *_DISK, kind, "id")
        if isinstance(found, str) and found:
            return found
    return ""


def _same_source(put: Put, existing: Resource) -> bool:
    """Whether a request names no disk other than the one that is there: only tags can change then."""
    disk = member(put.properties, *_DISK)
    if disk is None:
        return True
    if not isinstance(disk, Mapping) or isinstance(disk.get("blobUri"), str):
        return False
    had = member(existing.properties, *_DISK)
    return all(isinstance(had, Mapping) and had.get(key) == disk.get(key) for key in ("managedDisk", "snapshot"))
