"""What a type of resources does with what clients put: the generic behaviour, which special types refine."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.record import arm_ids
from orchestrator.record.resources import Resource
from orchestrator.record.run_outputs import without_signatures
from orchestrator.service.context import Context
from orchestrator.service.entra import TENANT
from orchestrator.service.envelope import ArmError
from orchestrator.service.resources.targets import Target

_ENVELOPE = ("identity", "kind", "sku", "plan", "zones", "managedBy", "extendedLocation")
MOST_TAGS = 50
_IDENTITIES = uuid.UUID("6a0f2ad2-4c0e-5f0a-9a33-2f1f3a4c9d10")


@dataclass(frozen=True, slots=True)
class Put:
    """One request to create or replace a resource. `existing` is what is there now; `body` the whole new one."""

    context: Context
    target: Target
    body: Mapping[str, Any]
    existing: Resource | None
    api_version: str

    @property
    def properties(self) -> dict[str, Any]:
        """The properties that were sent; nothing of ours can come in by them."""
        given = self.body.get("properties")
        if given is not None and not isinstance(given, Mapping):
            raise bad_request("InvalidRequestContent", "'properties' must be an object.", "properties")
        return {key: value for key, value in (given or {}).items() if key.lower() not in ("aib", "provisioningstate")}


Work = Callable[[], Resource]
"""What makes a resource in some minutes: called in a thread, returns the finished one."""


class Kind:
    """Resources of any type: kept as they are sent."""

    tracked = False
    """Whether a region is required, as for everything that ARM tracks."""
    always_created = False
    """Whether a PUT answers 201 even when it replaced something (SDK: role definitions know nothing else)."""
    always_ok = False
    """Whether a PUT answers 200 even when it made something (SDK: storage accounts know nothing else)."""
    deleted_body = False
    """Whether DELETE answers with what was removed."""

    def make(self, put: Put) -> Resource:
        """The resource to be kept; raises `ArmError`. Called again when another request came in between."""
        return build(put, {**self.own_properties(put), "provisioningState": "Succeeded"}, tracked=self.tracked)

    def own_properties(self, put: Put) -> dict[str, Any]:
        """The properties to be kept."""
        return put.properties

    def work(self, put: Put) -> Work | None:
        """Looks at a request before the store is asked to change: what has to be done in a thread, or None."""
        return None

    def may_delete(self, context: Context, resource: Resource) -> None:
        """Raises `ArmError` where the service would refuse to delete it."""

    def shown(self, context: Context, resource: Resource, origin: str, expand: str = "") -> dict[str, Any]:
        """The resource as the service shows it. `origin`: how the client reaches the server."""
        return shown(resource)

    def action(self, context: Context, resource: Resource, name: str, origin: str) -> dict[str, Any] | None:
        """What POST .../`name` (lower case) answers; None where there is no such action."""
        return None


def build(put: Put, properties: Mapping[str, Any], *, tracked: bool = False, location: str = "") -> Resource:
    """The resource of a request with these properties; checks region, tags and the rest of the envelope."""
    body, existing, target = put.body, put.existing, put.target
    given = body.get("location")
    if given is not None and not isinstance(given, str):
        raise bad_request("InvalidRequestContent", "'location' must be a string.", "location")
    wanted = arm_ids.region(given or (existing.location if existing else "") or location)
    if tracked and not wanted:
        raise bad_request("LocationRequired", "The location property is required for this definition.")
    if wanted and not wanted.isalnum():
        raise bad_request(
            "LocationNotAvailableForResourceType",
            f"The provided location '{given}' is not available for resource type '{target.kind}'.",
        )
    if existing and existing.location and wanted != arm_ids.region(existing.location):
        raise ArmError(
            409,
            "InvalidResourceLocation",
            f"The resource '{target.name}' already exists in location '{existing.location}' in resource group "
            f"'{target.group}'. A resource with the same name cannot be created in location '{wanted}'. "
            "Please select a new resource name.",
        )
    extra = {key: body[key] for key in _ENVELOPE if body.get(key) is not None}
    if "identity" in extra:
        extra["identity"] = identity(put, extra["identity"])
    clean = without_signatures(dict(properties))  # who sends an address with a SAS has it; it is not kept
    return Resource(target.id, target.kind, target.name, wanted, tags_of(body, existing), clean, extra)


def tags_of(body: Mapping[str, Any], existing: Resource | None) -> dict[str, str]:
    """The tags of a request; those there are stay where it names none. Raises `ArmError`."""
    tags = body.get("tags")
    if tags is None:
        return dict(existing.tags) if existing and "tags" not in body else {}
    if not isinstance(tags, Mapping) or not all(isinstance(value, str) for value in tags.values()):
        raise bad_request("InvalidTagFormat", "Tags must be an object whose values are strings.", "tags")
    if len(tags) > MOST_TAGS:
        raise bad_request("TagCountLimitExceeded", f"At most {MOST_TAGS} tags are allowed, not {len(tags)}.", "tags")
    for name, value in tags.items():
        if not name.strip() or len(name) > 512 or len(value) > 256 or any(char in name for char in "<>%&\\?/"):
            raise bad_request("InvalidTagName", f"The tag '{name[:60]}' has a name or a value that is not allowed.")
    return dict(tags)


def identity(put: Put, given: Any) -> dict[str, Any]:
    """The identity block with what the service adds: the principals of the identities, or one of its own."""
    if not isinstance(given, Mapping) or not isinstance(given.get("type", ""), str):
        raise bad_request("InvalidRequestContent", "'identity' must be an object with a 'type'.", "identity")
    made: dict[str, Any] = {"type": given.get("type", "None")}
    if "systemassigned" in made["type"].lower():
        made |= {"principalId": principal(put.target.id, "system"), "tenantId": TENANT}
    assigned = given.get("userAssignedIdentities")
    if assigned is None:
        return made
    if not isinstance(assigned, Mapping):
        raise bad_request("InvalidRequestContent", "'userAssignedIdentities' must be an object.", "identity")
    made["userAssignedIdentities"] = {}
    for resource_id in assigned:
        found = put.context.store.get(resource_id)
        facts = found.properties if found is not None else {}
        made["userAssignedIdentities"][resource_id] = {
            key: facts[key] for key in ("principalId", "clientId") if key in facts
        }
    return made


def principal(resource_id: str, what: str) -> str:
    """A GUID that belongs to the resource: its principal, its client id."""
    return str(uuid.uuid5(_IDENTITIES, f"{resource_id.lower()} {what}"))


def shown(resource: Resource) -> dict[str, Any]:
    """The resource in ARM's form, without what only aib needs."""
    form = resource.to_json()
    form["properties"] = {key: value for key, value in form["properties"].items() if key != "aib"}
    if not resource.location:
        del form["location"]
    if not resource.tags and not resource.location:
        del form["tags"]
    return form


def bad_request(code: str, message: str, target: str = "") -> ArmError:
    """400."""
    return ArmError(400, code, message, target=target)


def member(value: Mapping[str, Any], *path: str) -> Any:
    """The member at `path` of a tree of objects; None where there is none or something else stands in between."""
    found: Any = value
    for key in path:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found
