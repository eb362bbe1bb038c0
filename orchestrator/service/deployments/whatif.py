"""What a deployment would change: each resource of the template beside what is there now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.record.resources import resource_key
from orchestrator.service.deployments.planned import GROUPS, Plan, Planned
from orchestrator.service.deployments.world import ServerWorld
from orchestrator.service.envelope import ArmError
from orchestrator.service.resources import engine

_NOT_COMPARED = ("apiVersion", "id", "name", "type")
DEEPEST = 40


def changes(world: ServerWorld, plan: Plan, mode: str, *, payloads: bool = True) -> list[dict[str, Any]]:
    """The changes in the form of the what-if operation; without `payloads` only which resources they are of."""
    found = [_change(world, planned, payloads=payloads) for planned in plan.everything() if not planned.is_nested]
    named = {resource_key(each["resourceId"]) for each in found}
    if plan.scope.resource_group:
        kind = "Delete" if mode == "Complete" else "Ignore"
        for resource in engine.tracked(world.context, plan.level):
            key = resource_key(resource.id)
            if key not in named and not any(key.startswith(f"{each}/") for each in named):
                before = {"before": engine.shown(world.context, resource, world.origin)} if payloads else {}
                found.append({"resourceId": resource.id, "changeType": kind, **before})
    return sorted(found, key=lambda each: resource_key(each["resourceId"]))


def _change(world: ServerWorld, planned: Planned, *, payloads: bool) -> dict[str, Any]:
    after = {
        "apiVersion": planned.api_version,
        "id": planned.id,
        "name": planned.name.rpartition("/")[2],
        "type": planned.kind,
        **{key: value for key, value in (planned.preview or {}).items() if key not in _NOT_COMPARED},
    }
    before = _now(world, planned)
    if before is None:
        change: dict[str, Any] = {"resourceId": planned.id, "changeType": "Create"}
        return {**change, "after": after} if payloads else change
    delta = list(_delta(before, after, "", 0))
    change = {"resourceId": planned.id, "changeType": "Modify" if delta else "NoChange"}
    return {**change, "before": before, "after": after, "delta": delta} if payloads else change


def _now(world: ServerWorld, planned: Planned) -> Mapping[str, Any] | None:
    try:
        return world.resource(planned.id)
    except ArmError:
        return None


def _delta(before: Mapping[str, Any], after: Mapping[str, Any], path: str, depth: int) -> Iterator[dict[str, Any]]:
    """What `after` says otherwise; what only the server added is no change."""
    for key, value in after.items():
        if not path and key in _NOT_COMPARED:
            continue
        here = f"{path}.{key}" if path else key
        if key not in before:
            yield {"path": here, "propertyChangeType": "Create", "after": value}
        elif isinstance(value, Mapping) and isinstance(before[key], Mapping) and depth < DEEPEST:
            yield from _delta(before[key], value, here, depth + 1)
        elif not _alike(before[key], value, here):
            yield {"path": here, "propertyChangeType": "Modify", "before": before[key], "after": value}


def _alike(before: Any, after: Any, path: str) -> bool:
    if path == "location":
        return str(before).replace(" ", "").lower() == str(after).replace(" ", "").lower()
    return bool(before == after)


def previews_for_all(kind: str) -> bool:
    """What-if shows the bodies of all resources but groups."""
    return kind.lower() != GROUPS
