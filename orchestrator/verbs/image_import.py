"""`aib image import`: a disk file of the user's becomes a source image under a URN or a resource id."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypervisor.deadline import Deadline
from hypervisor.errors import InputError, UsageError
from hypervisor.partitions import Generation, System
from orchestrator.plan import add_image, platform_images
from orchestrator.plan.add_image import DiskFacts
from orchestrator.plan.versions import create_command, define_command
from orchestrator.record import arm_ids
from orchestrator.record.arm_ids import ArmId, InvalidResourceId, region
from orchestrator.record.layers import Layer
from orchestrator.record.resources import Resource, ResourceExists
from orchestrator.record.store import Store
from orchestrator.verbs.image import parse_urn

_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class ImportName:
    """Exactly one of the three. `locations`: the managed image's region, or those of the gallery version."""

    urn: str = ""
    managed_image_id: str = ""
    gallery_version_id: str = ""
    locations: Sequence[str] = ()


def import_image(
    store: Store,
    path: Path,
    name: ImportName,
    *,
    deadline: Deadline,
    system: System | None = None,
    generation: Generation | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Resource:
    """Copy the disk in `path` into the store and name it; the file itself stays as it is.

    The name is checked before the disk is read. Raises `UsageError` (bad or taken name), `InputError` (not a usable
    disk, no gallery), `HostError`.
    """
    target = _target(store, name)
    if store.get(target.resource_id) is not None:
        raise ResourceExists(target.resource_id)
    say(f"checking {path}")
    facts = add_image.examine(path, deadline, system=system, generation=generation or target.boots_as)
    target.require(facts, path)
    say(f"storing a {facts.format} disk of {facts.virtual_size / _GIB:.1f} GiB")
    layer = add_image.add_layer(store, path, facts, deadline, ours=False)
    try:
        origin = {"type": "import", "file": path.name, "format": facts.format}
        aib = add_image.image_properties(layer, facts, origin)
        if isinstance(target, _Platform):
            return platform_images.register(store, target.urn, target.version, aib, generation=generation or "")
        resource = target.resource(layer, facts, aib)
        store.create(resource)
        return resource
    finally:
        store.release_layer(layer.digest)


@dataclass(frozen=True, slots=True)
class _Platform:
    urn: platform_images.Urn
    version: str
    boots_as: Generation | None = None

    @property
    def resource_id(self) -> str:
        return self.urn.version_id(self.version)

    def require(self, facts: DiskFacts, path: Path) -> None:
        """Any disk may have any URN."""


@dataclass(frozen=True, slots=True)
class _Managed:
    id: ArmId
    location: str
    boots_as: Generation | None = None

    @property
    def resource_id(self) -> str:
        return str(self.id)

    def require(self, facts: DiskFacts, path: Path) -> None:
        """Any disk may be a managed image."""

    def resource(self, layer: Layer, facts: DiskFacts, aib: dict[str, Any]) -> Resource:
        """Microsoft.Compute/images, in the shape of the compute service."""
        os_disk = {
            "osType": facts.os.capitalize(),
            "osState": "Generalized",
            "blobUri": layer.path.as_uri(),
            "diskSizeGB": -(-layer.virtual_size // _GIB),
        }
        properties = {
            "provisioningState": "Succeeded",
            "hyperVGeneration": facts.generation,
            "storageProfile": {"osDisk": os_disk, "dataDisks": []},
            "aib": aib,
        }
        return Resource(str(self.id), arm_ids.MANAGED_IMAGE, self.id.name, self.location, properties=properties)


@dataclass(frozen=True, slots=True)
class _Version:
    id: ArmId
    location: str
    regions: tuple[str, ...]
    os: str
    boots_as: Generation | None

    @property
    def resource_id(self) -> str:
        return str(self.id)

    def require(self, facts: DiskFacts, path: Path) -> None:
        """A version is of its definition's kind."""
        if facts.os != self.os:
            raise InputError(
                f"{path} holds a {facts.os} system; the image definition {self.id.parent.name} takes {self.os}",
                hint="define another image for it: aib gallery define",
            )

    def resource(self, layer: Layer, facts: DiskFacts, aib: dict[str, Any]) -> Resource:
        """Microsoft.Compute/galleries/images/versions, in the shape of the compute service."""
        regions = [{"name": name, "regionalReplicaCount": 1} for name in self.regions]
        properties = {
            "provisioningState": "Succeeded",
            "publishingProfile": {"targetRegions": regions, "excludeFromLatest": False},
            "storageProfile": {"osDiskImage": {"sizeInGB": -(-layer.virtual_size // _GIB)}},
            "aib": aib,
        }
        return Resource(str(self.id), arm_ids.IMAGE_VERSION, self.id.name, self.location, properties=properties)


def _target(store: Store, name: ImportName) -> _Platform | _Managed | _Version:
    given = [value for value in (name.urn, name.managed_image_id, name.gallery_version_id) if value]
    if len(given) != 1:
        raise UsageError(
            "the image needs exactly one name", hint="give one of --urn, --managed-image-id, --gallery-version-id"
        )
    for location in name.locations:
        if not region(location).isalnum():
            raise UsageError(
                f"{location!r} is not the name of a region", hint='regions look like westus2 or "West US 2"'
            )
    try:
        if name.urn:
            return _platform(name)
        return _managed(name) if name.managed_image_id else _version(store, name)
    except InvalidResourceId as error:
        raise UsageError(str(error)) from error


def _platform(name: ImportName) -> _Platform:
    urn, version = parse_urn(name.urn)
    if version.lower() == "latest" or not _VERSION.fullmatch(version):
        raise UsageError(
            f"{name.urn!r} names no exact version",
            hint=f"an import has one: {urn}:1.0.0; `latest` then finds the newest",
        )
    if name.locations:
        raise UsageError("a platform image is in every region", hint="leave --location out")
    return _Platform(urn, version)


def _managed(name: ImportName) -> _Managed:
    found = arm_ids.parse_managed_image(name.managed_image_id)
    if len(name.locations) != 1:
        raise UsageError(
            "a managed image is in one region: that of the templates that use it", hint="give --location REGION, once"
        )
    return _Managed(found, region(name.locations[0]))


def _version(store: Store, name: ImportName) -> _Version:
    found = arm_ids.parse_image_version(name.gallery_version_id)
    if found.name.lower() == "latest":
        raise UsageError(
            "an import has an exact version", hint="end the id in /versions/1.0.0; `latest` finds the newest"
        )
    definition_id = found.parent
    gallery, definition = store.get(str(definition_id.parent)), store.get(str(definition_id))
    if gallery is None:
        place = name.locations[0] if name.locations else "<region>"
        raise InputError(
            f"there is no gallery {definition_id.parent}",
            hint=f"create it: {create_command(definition_id.parent, place)}",
        )
    if definition is None:
        raise InputError(
            f"there is no image definition {definition_id}",
            hint=f"define it: {define_command(definition_id, 'linux', 'V1')} (or windows, V2)",
        )
    wanted: Generation = "V2" if definition.properties.get("hyperVGeneration") == "V2" else "V1"
    regions = tuple(dict.fromkeys(map(region, name.locations or (gallery.location,))))
    if region(gallery.location) not in regions:
        raise UsageError(
            f"the gallery {gallery.name} is in {gallery.location}: a version of it must be there, too",
            hint=f"add --location {region(gallery.location)}",
        )
    system = str(definition.properties.get("osType", "Linux")).lower()
    return _Version(found, region(gallery.location), regions, system, wanted)
