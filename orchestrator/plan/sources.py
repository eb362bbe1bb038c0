"""The source image of a template, resolved: exact version, digest and disk of an image in the store.

Done once, when a run is planned: `latest` is asked of where the image comes from, and what it was is recorded.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Literal, cast, get_args

from hypervisor.deadline import Deadline
from hypervisor.disk import DiskFormat
from hypervisor.errors import HostError, InputError, TemplateError
from orchestrator.plan import platform_images
from orchestrator.plan.catalogue import Catalogue, CatalogueEntry, RegisteredSource, registered_only
from orchestrator.plan.model import ResolvedSource
from orchestrator.plan.obtain import Obtaining, newest_version, obtain
from orchestrator.plan.platform_images import Urn, facts_of
from orchestrator.plan.pull import Progress
from orchestrator.plan.version_order import version_key
from orchestrator.record import arm_ids, galleries
from orchestrator.record.arm_ids import InvalidResourceId, region
from orchestrator.record.resources import Resource
from orchestrator.record.store import Layer, Store
from orchestrator.template.model import ManagedImage, PlatformImage, SharedImageVersion, Source

Say = Callable[[str], None]
Kind = Literal["PlatformImage", "ManagedImage", "SharedImageVersion"]
LATEST = "latest"


def resolve_source(
    source: Source,
    *,
    store: Store,
    catalogue: Catalogue,
    location: str,
    offline: bool,
    deadline: Deadline,
    say: Say,
    prepare: bool,
    warn: Say | None = None,
    progress: Progress | None = None,
) -> ResolvedSource:
    """Find the source image of a template in `location`.

    With `prepare` an image that is not stored yet is brought in (downloaded, or made from packages) and `say` is told;
    without it the result has the exact version, `digest` "" and no `path` or size. `offline` asks nobody: the newest
    stored version serves for `latest`, with a warning to `warn` (without it to `say`).

    Raises `InputError` (unknown, not stored, out of reach), `TemplateError` (malformed id, other region), `HostError`.
    """
    match source:
        case PlatformImage():
            how = Obtaining(store, deadline, say, progress)
            platform = _Platform(Urn(source.publisher, source.offer, source.sku), catalogue, how, warn or say)
            resource, version = platform.resolve(source.version, offline=offline)
            if resource is None and prepare:
                resource = platform.obtain(version)
            if resource is None:
                return platform.not_stored(source.urn, version)
            return _resolved("PlatformImage", source.urn, resource, resource.name, store)
        case ManagedImage():
            resource = _managed_image(source.image_id, store, location)
            return _resolved("ManagedImage", source.image_id, resource, "", store)
        case SharedImageVersion():
            resource = _image_version(source.image_version_id, store, location)
            return _resolved("SharedImageVersion", source.image_version_id, resource, resource.name, store)


class _Platform:
    """One URN, what is stored of it, and where it comes from."""

    def __init__(self, urn: Urn, catalogue: Catalogue, how: Obtaining, warn: Say) -> None:
        self.urn, self._how, self._warn = urn, how, warn
        self.entry = catalogue.find(urn.publisher, urn.offer, urn.sku)
        self.stored = platform_images.stored_versions(how.store, urn)
        if self.entry is None and not self.stored:
            known = {platform_images.urn_of(r).rsplit(":", 1)[0] for r in how.store.list(platform_images.PLATFORM_TYPE)}
            raise catalogue.unknown(urn.publisher, urn.offer, urn.sku, tuple(known))

    def resolve(self, wanted: str, *, offline: bool) -> tuple[Resource | None, str]:
        """The stored version that serves, or None and the version to bring in."""
        if wanted.lower() != LATEST:
            found = platform_images.stored_version(self._how.store, self.urn, wanted)
            if found is None and (offline or self._fetchable() is None):
                raise self._missing(wanted, offline=offline)
            return found, wanted
        entry = self._fetchable()
        newest_stored = self.stored[-1] if self.stored else None
        if entry is None or offline:
            if newest_stored is None:
                raise self._missing(wanted, offline=offline)
            if entry is not None:
                self._warn(f"offline: {self.urn}:latest is the newest stored version, {newest_stored.name}")
            return newest_stored, newest_stored.name
        try:
            newest = newest_version(entry, self.urn, self._how.deadline)
        except (InputError, HostError) as error:
            if newest_stored is None:
                raise
            self._warn(
                f"{self.urn}:latest is the newest stored version, {newest_stored.name}: "
                f"what is newer cannot be found out ({error.message.splitlines()[0]})"
            )
            return newest_stored, newest_stored.name
        if newest_stored is not None and version_key(newest_stored.name) > version_key(newest):
            return newest_stored, newest_stored.name  # imported by the user
        return platform_images.stored_version(self._how.store, self.urn, newest), newest

    def obtain(self, version: str) -> Resource:
        """Bring the version in."""
        entry = self._fetchable()
        if entry is None:
            raise self._missing(version, offline=False)
        return obtain(entry, self.urn, version, self._how)

    def not_stored(self, requested: str, version: str) -> ResolvedSource:
        """What is known of a version before it is brought in."""
        entry = self.entry
        return ResolvedSource(
            kind="PlatformImage",
            requested=requested,
            resource_id=self.urn.version_id(version),
            version=version,
            digest="",
            path=Path(),
            format="qcow2",
            virtual_size=0,
            os=entry.os if entry else "linux",
            generation=(entry.generation if entry else "") or platform_images.generation_of(self.urn),
        )

    def _fetchable(self) -> CatalogueEntry | None:
        entry = self.entry
        return None if entry is None or isinstance(entry.source, RegisteredSource) else entry

    def _missing(self, wanted: str, *, offline: bool) -> InputError:
        urn = f"{self.urn}:{wanted}"
        stored = ", ".join(resource.name for resource in self.stored)
        if self.entry is not None and not stored and not offline:
            return registered_only(self.entry, urn)
        exact = f"{self.urn}:<version>" if wanted.lower() == LATEST else urn
        have = f"stored versions: {stored}" if stored else "no version of it is"
        offline_hint = "leave --offline out so that it can be fetched, or " if offline and self._fetchable() else ""
        return InputError(
            f"the source image {urn} is not stored here; {have}",
            hint=f"{offline_hint}import it: aib image import FILE --urn {exact}",
        )


def _managed_image(image_id: str, store: Store, location: str) -> Resource:
    try:
        wanted = str(arm_ids.parse_managed_image(image_id))
    except InvalidResourceId as error:
        raise TemplateError(f"source.imageId: {error}") from error
    resource = store.get(wanted)
    if resource is None or not resource.digest:
        raise _unknown_image(
            f"there is no managed image {wanted}",
            wanted,
            [known.id for known in store.list(arm_ids.MANAGED_IMAGE)],
            f"import it: aib image import FILE --managed-image-id {wanted}; or build it with a template first",
        )
    if location and region(resource.location) != region(location):
        raise TemplateError(
            f"the managed image {resource.name} is in {resource.location}, the template in {location}: "
            "a source image must be in the template's region",
            hint=f'set the template\'s location to "{resource.location}", or make the image available in '
            f"{region(location)} under another name (distribute or import it there)",
        )
    return resource


def _image_version(version_id: str, store: Store, location: str) -> Resource:
    try:
        wanted = arm_ids.parse_image_version(version_id)
    except InvalidResourceId as error:
        raise TemplateError(f"source.imageVersionId: {error}") from error
    published = [v for v in galleries.versions(store, wanted.parent) if v.digest and not _unfinished(v)]
    if wanted.name.lower() == LATEST:
        candidates = [version for version in published if not _publishing(version).get("excludeFromLatest")]
    else:
        candidates = [version for version in published if version.name == wanted.name]
    if not candidates:
        raise _unknown_image(
            f"there is no gallery image version {wanted}",
            str(wanted),
            [known.id for known in store.list(arm_ids.IMAGE_VERSION) if known.digest],
            f"import it: aib image import FILE --gallery-version-id {wanted}; or build it with a template first",
        )
    resource = candidates[-1]
    regions = _regions(resource)
    if location and region(location) not in map(region, regions):
        raise TemplateError(
            f"the gallery image version {resource.id} is replicated to {', '.join(regions) or 'no region'}, "
            f"the template is in {location}: a source image must be replicated to the template's region",
            hint=f'set the template\'s location to "{regions[0] if regions else resource.location}", or add '
            f"{region(location)} to the regions of the version (distribute it again with that replication region)",
        )
    return resource


def _publishing(version: Resource) -> dict[str, object]:
    profile = version.properties.get("publishingProfile")
    return profile if isinstance(profile, dict) else {}


def _regions(version: Resource) -> list[str]:
    """The regions that a version is replicated to; its own where it says none."""
    targets = _publishing(version).get("targetRegions")
    names = (
        [str(t["name"]) for t in targets if isinstance(t, dict) and "name" in t] if isinstance(targets, list) else []
    )
    return names or [version.location]


def _unfinished(resource: Resource) -> bool:
    return str(resource.properties.get("provisioningState", "Succeeded")) != "Succeeded"


def _unknown_image(message: str, wanted: str, known: list[str], hint: str) -> InputError:
    by_key = {name.lower(): name for name in known}
    near = [by_key[key] for key in difflib.get_close_matches(wanted.lower(), by_key, n=3, cutoff=0.7)]
    similar = f"; similar ones are {', '.join(near)}" if near else ""
    return InputError(f"{message} in the store{similar}", hint=hint)


def _resolved(kind: Kind, requested: str, resource: Resource, version: str, store: Store) -> ResolvedSource:
    layer = store.layer(resource.digest)
    if layer is None:
        raise InputError(
            f"the disk of {resource.id} is not in the store any more",
            hint="remove the image (aib image remove) and import, pull or build it again",
        )
    aib = facts_of(resource)
    return ResolvedSource(
        kind=kind,
        requested=requested,
        resource_id=resource.id,
        version=version,
        digest=layer.digest,
        path=layer.path,
        format=_format(layer),
        virtual_size=layer.virtual_size,
        os="windows" if aib.get("os") == "windows" else "linux",
        generation="V2" if aib.get("generation") == "V2" else "V1",
    )


def _format(layer: Layer) -> DiskFormat:
    for known in get_args(DiskFormat):
        if layer.format == known:
            return cast(DiskFormat, known)
    raise HostError(f"the layer {layer.digest} has the unknown format {layer.format!r}")
