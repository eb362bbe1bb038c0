"""Galleries, image definitions and versions: what must be there before a SharedImage distributor can publish (S31)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from hypervisor.errors import InputError, UsageError
from orchestrator.record import arm_ids, galleries
from orchestrator.record.arm_ids import DEFAULT_SCOPE, ArmId, InvalidResourceId, Scope
from orchestrator.record.resources import Resource, ResourceExists
from orchestrator.record.store import Store


@dataclass(frozen=True, slots=True)
class GalleryView:
    """A gallery with what lies in it."""

    gallery: Resource
    definitions: tuple[tuple[Resource, tuple[Resource, ...]], ...]
    """(definition, its versions in the order of their numbers)."""


def create(
    store: Store, name: str, *, location: str, scope: Scope = DEFAULT_SCOPE, if_missing: bool = False
) -> Resource:
    """Create a gallery in a region. Raises `ResourceExists`, `UsageError` for a bad name or region.

    `if_missing`: one that is there already, in the same region, is what was wanted.
    """
    if not arm_ids.region(location).isalnum():
        raise UsageError(f"{location!r} is not the name of a region", hint='regions look like westus2 or "West US 2"')
    gallery = galleries.gallery(_gallery_id(name, scope), location)
    return _create(store, gallery, if_missing=if_missing, same=lambda found: _same_region(found, gallery))


def define(
    store: Store,
    gallery: str,
    definition: str,
    *,
    os: Literal["linux", "windows"],
    generation: Literal["V1", "V2"],
    publisher: str = "aib",
    offer: str = "",
    sku: str = "",
    scope: Scope = DEFAULT_SCOPE,
    if_missing: bool = False,
) -> Resource:
    """Define an image in a gallery; `offer` and `sku` are the gallery's and the definition's names by default.

    `if_missing`: one that is there already, for the same kind of image, is what was wanted.

    Raises `InputError` without the gallery, `ResourceExists`, and `UsageError` for a bad name or when another
    definition of the gallery has the same publisher, offer and sku (the compute service refuses that too).
    """
    parent = _existing(store, _gallery_id(gallery, scope), f"aib gallery create {gallery} --location <region>")
    try:
        wanted, _ = arm_ids.parse_gallery_target(str(_gallery_id(gallery, scope).child("images", definition)))
    except InvalidResourceId as error:
        raise UsageError(str(error)) from error
    resource = galleries.image_definition(
        wanted,
        parent.location,
        os=os,
        generation=generation,
        publisher=publisher,
        offer=offer or gallery,
        sku=sku or definition,
    )
    for other in store.list(arm_ids.IMAGE_DEFINITION, under=parent.id):
        same = other.properties.get("identifier") == resource.properties["identifier"]
        if same and not arm_ids.same(other.id, resource.id):
            raise UsageError(
                f"the definition {other.name} has the same publisher, offer and sku", hint="give another --sku"
            )
    return _create(store, resource, if_missing=if_missing, same=lambda found: found.properties == resource.properties)


def _create(store: Store, wanted: Resource, *, if_missing: bool, same: Callable[[Resource], bool]) -> Resource:
    try:
        store.create(wanted)
    except ResourceExists:
        found = store.get(wanted.id)
        if not if_missing or found is None:
            raise
        if not same(found):
            raise UsageError(
                f"{found.id} is there already, and is another one than asked for",
                hint="`aib gallery show` says what it is; choose another name",
            ) from None
        return found
    return wanted


def _same_region(one: Resource, other: Resource) -> bool:
    return arm_ids.region(one.location) == arm_ids.region(other.location)


def list_galleries(store: Store) -> list[GalleryView]:
    """Every gallery, with its definitions and versions."""
    return [_view(store, gallery) for gallery in store.list(arm_ids.GALLERY)]


def show(store: Store, name: str, scope: Scope = DEFAULT_SCOPE) -> GalleryView:
    """One gallery; `InputError` when it is not there."""
    return _view(store, _existing(store, _gallery_id(name, scope), "`aib gallery list` shows what is there"))


def delete_version(store: Store, gallery: str, definition: str, version: str, scope: Scope = DEFAULT_SCOPE) -> Resource:
    """Remove a version; its disk goes with the next `aib gc` when nothing else refers to it. Returns what was removed.

    Raises `InputError` when it is not there, `UsageError` while a living run is publishing it.
    """
    try:
        arm_ids.parse_version(version)
    except InvalidResourceId as error:
        raise UsageError(str(error)) from error
    wanted = _gallery_id(gallery, scope).child("images", definition).child("versions", version)
    found = _existing(store, wanted, f"`aib gallery show {gallery}` shows what is there")

    def is_not_being_published(resource: Resource) -> bool:
        return resource.properties.get("provisioningState") != galleries.CREATING or galleries.is_stale(store, resource)

    if not store.delete(found.id, only_if=is_not_being_published):
        raise UsageError(f"{found.id} is being published by a run", hint="wait for the run's end, or `aib cancel` it")
    return found


def _view(store: Store, gallery: Resource) -> GalleryView:
    definitions = store.list(arm_ids.IMAGE_DEFINITION, under=gallery.id)
    return GalleryView(gallery, tuple((d, tuple(galleries.versions(store, arm_ids.parse(d.id)))) for d in definitions))


def _gallery_id(name: str, scope: Scope) -> ArmId:
    try:
        return arm_ids.parse_gallery(arm_ids.gallery_id(name, scope))
    except InvalidResourceId as error:
        raise UsageError(str(error)) from error


def _existing(store: Store, wanted: ArmId, hint: str) -> Resource:
    found = store.get(str(wanted))
    if found is None:
        raise InputError(f"there is no {wanted}", hint=hint)
    return found
