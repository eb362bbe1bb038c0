"""Platform images in the store: what they are called, which versions there are, and giving one its name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from orchestrator.plan.version_order import version_key
from orchestrator.record.resources import Resource
from orchestrator.record.store import Store

PLATFORM_TYPE = "aib/platformImages/versions"
_ROOT = "/aib/platformImages"
_SAYS_GENERATION_2 = re.compile(r"gen-?2|-g2\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Urn:
    """`publisher:offer:sku`; the store compares it without regard to case."""

    publisher: str
    offer: str
    sku: str

    def __str__(self) -> str:
        return f"{self.publisher}:{self.offer}:{self.sku}"

    @property
    def versions_id(self) -> str:
        """The id under which the versions lie."""
        return f"{_ROOT}/{self.publisher}/{self.offer}/{self.sku}/versions"

    def version_id(self, version: str) -> str:
        """The id of one version."""
        return f"{self.versions_id}/{version}"


def urn_of(resource: Resource) -> str:
    """`publisher:offer:sku:version` of a platform image version."""
    publisher, offer, sku, _, version = resource.id.split("/")[-5:]
    return f"{publisher}:{offer}:{sku}:{version}"


def facts_of(resource: Resource) -> Mapping[str, Any]:
    """`properties["aib"]` of an image-like resource."""
    facts = resource.properties.get("aib")
    return facts if isinstance(facts, Mapping) else {}


def origin_of(resource: Resource) -> Mapping[str, Any]:
    """Where an image-like resource came from: `type` is import, bootstrap, url or build."""
    origin = facts_of(resource).get("source")
    return origin if isinstance(origin, Mapping) else {}


def stored_version(store: Store, urn: Urn, version: str) -> Resource | None:
    """One stored version whose disk is there."""
    resource = store.get(urn.version_id(version))
    return resource if resource is not None and store.layer(resource.digest) is not None else None


def stored_versions(store: Store, urn: Urn) -> list[Resource]:
    """The stored versions whose disks are there, oldest first; of two equal numbers the one that came later is last."""
    there = [r for r in store.list(PLATFORM_TYPE, under=urn.versions_id) if store.layer(r.digest) is not None]
    return sorted(there, key=lambda r: (version_key(r.name), str(origin_of(r).get("added", ""))))


def stored_with_origin(store: Store, wanted: Mapping[str, str]) -> Resource | None:
    """A stored image, under whatever name, that came from the same place; its disk serves another name too."""
    for resource in store.list(PLATFORM_TYPE):
        origin = origin_of(resource)
        if all(origin.get(key) == value for key, value in wanted.items()) and store.layer(resource.digest) is not None:
            return resource
    return None


def generation_of(urn: Urn) -> Literal["V1", "V2"]:
    """What the SKU's name says."""
    return "V2" if _SAYS_GENERATION_2.search(urn.sku) else "V1"


def register(store: Store, urn: Urn, version: str, aib: Mapping[str, Any], *, generation: str = "") -> Resource:
    """Name an image `urn`:`version`; raises `ResourceExists` when the name is taken.

    An image that boots both ways is booted as `generation` says, else as the SKU's name does, else by BIOS (quicker).
    """
    wanted = generation or generation_of(urn)
    chosen = wanted if wanted in aib["generations"] else aib["generation"]
    properties = {"provisioningState": "Succeeded", "aib": {**aib, "generation": chosen}}
    resource = Resource(urn.version_id(version), PLATFORM_TYPE, version, properties=properties)
    store.create(resource)
    return resource
