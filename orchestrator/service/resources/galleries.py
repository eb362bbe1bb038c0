"""Galleries and image definitions: the same records that `aib gallery` makes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast

from orchestrator.record import arm_ids, galleries
from orchestrator.record.arm_ids import InvalidResourceId
from orchestrator.record.resources import Resource
from orchestrator.service.context import Context
from orchestrator.service.envelope import ArmError
from orchestrator.service.resources.kind import Kind, Put, bad_request, build, member

_FIXED = ("osType", "osState", "hyperVGeneration", "identifier", "architecture")


class Gallery(Kind):
    """Microsoft.Compute/galleries."""

    tracked = True

    def own_properties(self, put: Put) -> dict[str, Any]:
        """What was sent and the unique name."""
        try:
            gallery_id = arm_ids.parse_gallery(put.target.id)
        except InvalidResourceId as error:
            raise bad_request("InvalidParameter", f"{error}.", "galleryName") from None
        return {**put.properties, **galleries.gallery(gallery_id, "x").properties}

    def may_delete(self, context: Context, resource: Resource) -> None:
        """Only an empty one."""
        _only_empty(context, resource, arm_ids.IMAGE_DEFINITION)


class ImageDefinition(Kind):
    """Microsoft.Compute/galleries/images."""

    tracked = True

    def make(self, put: Put) -> Resource:
        """A new one with all that cannot change later, or the same with another description."""
        try:
            wanted, _ = arm_ids.parse_gallery_target(put.target.id)
        except InvalidResourceId as error:
            raise bad_request("InvalidParameter", f"{error}.", "galleryImageName") from None
        asked = put.properties
        if put.existing is not None:
            _unchanged(asked, put.existing)
            asked = {**{key: put.existing.properties[key] for key in _FIXED if key in put.existing.properties}, **asked}
        made = galleries.image_definition(
            wanted,
            "x",
            os=cast("Literal['linux', 'windows']", _one_of(asked, "osType", ("Linux", "Windows")).lower()),
            generation=cast("Literal['V1', 'V2']", _one_of(asked, "hyperVGeneration", ("V1", "V2"), "V1")),
            **self._identifier(put, asked),
        )
        state = _one_of(asked, "osState", ("Generalized", "Specialized"))
        properties = {**asked, **made.properties, "osState": state}
        properties["identifier"] = {**dict(asked["identifier"]), **made.properties["identifier"]}
        properties.setdefault("architecture", "x64")
        return build(put, properties, tracked=True)

    def may_delete(self, context: Context, resource: Resource) -> None:
        """Only one without versions."""
        _only_empty(context, resource, arm_ids.IMAGE_VERSION)

    @staticmethod
    def _identifier(put: Put, asked: Mapping[str, Any]) -> dict[str, str]:
        given = asked.get("identifier")
        found: dict[str, str] = {}
        for key in ("publisher", "offer", "sku"):
            value = member(given, key) if isinstance(given, Mapping) else None
            if not isinstance(value, str) or not value:
                name = f"galleryImage.properties.identifier.{key}"
                raise bad_request("InvalidParameter", f"Required parameter '{name}' is missing (null).", name)
            found[key] = value
        for other in put.context.store.list(arm_ids.IMAGE_DEFINITION, under=put.target.owner.id):
            same = all(member(other.properties, "identifier", key) == value for key, value in found.items())
            if same and not arm_ids.same(other.id, put.target.id):
                raise ArmError(
                    409,
                    "Conflict",
                    f"The gallery image definition '{other.name}' has the same publisher, offer and sku; they must be "
                    "unique in a gallery.",
                    target="identifier",
                )
        return found


def _unchanged(asked: Mapping[str, Any], existing: Resource) -> None:
    for key in _FIXED:
        had = existing.properties.get(key)
        if key not in asked or had is None:
            continue
        changed = (
            any(had.get(part) != asked[key].get(part) for part in ("publisher", "offer", "sku"))
            if isinstance(had, Mapping) and isinstance(asked[key], Mapping)
            else str(had).lower() != str(asked[key]).lower()
        )
        if changed:
            name = f"galleryImage.properties.{key}"
            raise ArmError(409, "PropertyChangeNotAllowed", f"Changing property '{name}' is not allowed.", target=name)


def _one_of(asked: Mapping[str, Any], key: str, allowed: tuple[str, ...], default: str = "") -> str:
    value = asked.get(key, default)
    for known in allowed:
        if str(value).lower() == known.lower():
            return known
    name = f"galleryImage.properties.{key}"
    if value in ("", None):
        raise bad_request("InvalidParameter", f"Required parameter '{name}' is missing (null).", name)
    raise bad_request("InvalidParameter", f"'{name}' must be {' or '.join(allowed)}, not '{str(value)[:40]}'.", name)


def _only_empty(context: Context, resource: Resource, kind: str) -> None:
    if context.store.list(kind, under=resource.id):
        raise ArmError(
            409,
            "CannotDeleteResource",
            "Cannot delete resource while nested resources exist. Some existing nested resource IDs include: "
            f"'{context.store.list(kind, under=resource.id)[0].id}'. Please delete all nested resources before "
            "deleting this resource.",
        )
