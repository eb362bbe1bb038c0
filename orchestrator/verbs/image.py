"""Source images by hand: list, pull, bootstrap, remove (`aib image ...`; importing is in `image_import`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from hypervisor.deadline import Deadline
from hypervisor.errors import InputError, UsageError
from orchestrator.plan import platform_images
from orchestrator.plan.catalogue import BootstrapSource, Catalogue, CatalogueEntry, RegisteredSource, registered_only
from orchestrator.plan.obtain import Obtaining, newest_version, obtain
from orchestrator.plan.platform_images import PLATFORM_TYPE, Urn, facts_of, origin_of, urn_of
from orchestrator.plan.pull import Progress
from orchestrator.record import arm_ids, files
from orchestrator.record.resources import Resource
from orchestrator.record.runs import RunFolder
from orchestrator.record.store import Store

Say = Callable[[str], None]

_KINDS = {
    PLATFORM_TYPE: "PlatformImage",
    arm_ids.MANAGED_IMAGE: "ManagedImage",
    arm_ids.IMAGE_VERSION: "SharedImageVersion",
}
DEFAULT_BOOTSTRAP = "Debian:debian-12:12"


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image that a template can name as its source. Sizes in bytes; `size` is 0 when its disk is missing.

    `name` is the URN or the resource id; `origin` says where it came from (import, bootstrap, url, build).
    """

    name: str
    kind: str
    os: str
    generation: str
    location: str
    format: str
    virtual_size: int
    size: int
    digest: str
    origin: str

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return asdict(self)


def stored_images(store: Store) -> tuple[StoredImage, ...]:
    """What is in the store, by kind and name."""
    return tuple(
        _stored(store, kind, resource)
        for type_, kind in _KINDS.items()
        for resource in store.list(type_)
        if resource.digest
    )


def _stored(store: Store, kind: str, resource: Resource) -> StoredImage:
    facts, layer = facts_of(resource), store.layer(resource.digest)
    return StoredImage(
        name=urn_of(resource) if kind == "PlatformImage" else resource.id,
        kind=kind,
        os=str(facts.get("os", "")),
        generation=str(facts.get("generation", "")),
        location=resource.location,
        format=str(facts.get("format", "")),
        virtual_size=int(facts.get("virtualSize", 0)),
        size=layer.size if layer else 0,
        digest=resource.digest,
        origin=str(origin_of(resource).get("type", "build")),
    )


def parse_urn(text: str) -> tuple[Urn, str]:
    """`publisher:offer:sku[:version]` taken apart; the version is `latest` when it is not given."""
    parts = text.split(":")
    if len(parts) not in (3, 4) or not all(parts) or any(c in text for c in "/*? \t"):
        raise UsageError(
            f"{text!r} is not a URN", hint="a URN is publisher:offer:sku:version, such as Debian:debian-12:12:latest"
        )
    return Urn(*parts[:3]), parts[3] if len(parts) == 4 else "latest"


def pull_image(
    store: Store, catalogue: Catalogue, name: str, *, deadline: Deadline, say: Say, progress: Progress | None = None
) -> Resource:
    """Download what the catalogue has for the URN `name`, unless it is stored. Raises `InputError`, `HostError`."""
    urn, version = parse_urn(name)
    entry = _entry(catalogue, urn)
    if isinstance(entry.source, BootstrapSource):
        raise UsageError(f"{urn} is made on this machine, not downloaded", hint=f"run: aib image bootstrap {urn}")
    return _obtain(entry, urn, version, Obtaining(store, deadline, say, progress))


def bootstrap_image(store: Store, catalogue: Catalogue, name: str, *, deadline: Deadline, say: Say) -> Resource:
    """Make what the catalogue has for the URN `name` from packages, unless the same is stored already."""
    urn, version = parse_urn(name)
    entry = _entry(catalogue, urn)
    if not isinstance(entry.source, BootstrapSource):
        raise UsageError(f"{urn} is not made from packages", hint=f"run: aib image pull {urn}")
    return _obtain(entry, urn, version, Obtaining(store, deadline, say))


def _entry(catalogue: Catalogue, urn: Urn) -> CatalogueEntry:
    entry = catalogue.find(urn.publisher, urn.offer, urn.sku)
    if entry is None:
        raise catalogue.unknown(urn.publisher, urn.offer, urn.sku)
    return entry


def _obtain(entry: CatalogueEntry, urn: Urn, version: str, how: Obtaining) -> Resource:
    if isinstance(entry.source, RegisteredSource):
        raise registered_only(entry, f"{urn}:{version}")
    if version.lower() == "latest":
        version = newest_version(entry, urn, how.deadline)
    if (stored := platform_images.stored_version(how.store, urn, version)) is not None:
        how.say(f"{urn}:{version} is stored already")
        return stored
    return obtain(entry, urn, version, how)


def find_image(store: Store, name: str) -> Resource:
    """The stored image of this URN (with its version) or resource id; `InputError` when there is none."""
    if name.startswith("/"):
        resource = store.get(name)
        if resource is not None and resource.type in _KINDS and resource.digest:
            return resource
        raise InputError(f"there is no image {name} in the store", hint="`aib image list` shows what there is")
    urn, version = parse_urn(name)
    resource = store.get(urn.version_id(version))
    if resource is None:
        versions = ", ".join(r.name for r in store.list(PLATFORM_TYPE, under=urn.versions_id)) or "none"
        raise InputError(
            f"{urn}:{version} is not in the store (stored versions: {versions})",
            hint="name the exact version; `aib image list` shows what there is",
        )
    return resource


def remove_image(store: Store, name: str) -> int:
    """Forget the image and remove its disk if no other image uses it; returns the bytes that this frees.

    Raises `InputError` when there is no such image, `UsageError` while a run reads its disk.
    """
    resource = find_image(store, name)
    layer = store.layer(resource.digest)
    if layer is None:
        store.delete(resource.id)
        return 0
    forgotten = False

    def forget() -> bool:
        """Called under the layer's exclusive lock: nobody reads it and nobody can begin to."""
        nonlocal forgotten
        forgotten = True
        store.delete(resource.id)
        return layer.digest not in store.referenced()

    if store.layers.remove(layer, forget):
        return layer.size
    if not forgotten:
        readers = ", ".join(run.id for run in store.runs() if run.alive() and _reads(run, layer.digest))
        raise UsageError(
            f"{name} is being read{f' by the run {readers}' if readers else ''}",
            hint=f"wait for it, or stop it: aib cancel {readers or 'RUN'}",
        )
    return 0


def _reads(run: RunFolder, digest: str) -> bool:
    plan = files.read_json(run.plan) or {}
    return bool(plan.get("source", {}).get("digest") == digest)
