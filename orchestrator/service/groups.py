"""The area of resource groups: create, change, find, list, and delete with all that is inside."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from orchestrator.record import arm_ids
from orchestrator.record.arm_ids import DEFAULT_SCOPE, Scope
from orchestrator.record.resources import Resource, resource_key
from orchestrator.service import azure, bodies, odata
from orchestrator.service.context import GROUP, Context
from orchestrator.service.envelope import ArmError
from orchestrator.service.operations import Operation
from orchestrator.service.paging import page
from orchestrator.service.paths import ArmRoute
from orchestrator.service.resources import emptying
from orchestrator.service.resources.kind import bad_request, tags_of

_NAME = re.compile(r"[-\w._()]{1,90}")
_PLACE = "/subscriptions/{subscription}/resourceGroups"
_OPERATION = "DeleteGroup"
_GROUP_ID = re.compile(r"(/subscriptions/[^/]+/resourcegroups/([^/]+))/", re.IGNORECASE)


def routes(context: Context) -> list[BaseRoute]:
    """Resource groups, and the lists of what is in a group or a subscription."""
    area = _Area(context)
    return [
        ArmRoute(_PLACE, area.listed, methods=["GET"]),
        ArmRoute(f"{_PLACE}/{{group}}", area.get, methods=["GET"]),
        ArmRoute(f"{_PLACE}/{{group}}", area.exists, methods=["HEAD"]),
        ArmRoute(f"{_PLACE}/{{group}}", area.put, methods=["PUT"]),
        ArmRoute(f"{_PLACE}/{{group}}", area.patch, methods=["PATCH"]),
        ArmRoute(f"{_PLACE}/{{group}}", area.delete, methods=["DELETE"]),
    ]


def on_start(context: Context) -> None:
    """Go on with what a stopped server was deleting."""
    for operation in context.operations.pending():
        if operation.kind == _OPERATION:
            _start(context, operation)


def form(context: Context, scope: Scope) -> dict[str, Any]:
    """A group in ARM's form; `ArmError` 404 when there is none."""
    known = context.known_group(scope)
    made = context.store.get(str(known))
    group = made or Resource(str(known), GROUP, known.resource_group, context.settings.location)
    properties = {"provisioningState": "Succeeded", **group.properties}
    return {**group.to_json(), "properties": properties}


def everyone(context: Context, subscription: str) -> list[Resource]:
    """The groups of a subscription, those included that nobody made but the command line filled."""
    found: dict[str, Resource] = {}
    for resource in context.store.list(under=f"/subscriptions/{subscription}"):
        if resource.type == GROUP:
            found[resource_key(resource.id)] = resource
        elif match := _GROUP_ID.match(resource.id):
            implied = Resource(match[1], GROUP, match[2], context.settings.location)
            found.setdefault(resource_key(match[1]), implied)
    default = Scope(subscription, DEFAULT_SCOPE.resource_group)
    if subscription == context.settings.subscriptions[0]:
        implied = Resource(str(default), GROUP, default.resource_group, context.settings.location)
        found.setdefault(resource_key(str(default)), implied)
    return [found[key] for key in sorted(found)]


def create(context: Context, scope: Scope, body: Mapping[str, Any]) -> tuple[Resource, bool]:
    """Make or change a group: (it, whether it is new). Raises `ArmError`."""
    name = scope.resource_group
    if not _NAME.fullmatch(name) or name.endswith("."):
        raise bad_request(
            "InvalidResourceGroup",
            f"The provided resource group name '{name[:100]}' is not valid: at most 90 letters, digits, '-', '.', '(', "
            "')' or '_', and no '.' at the end.",
        )
    location, new = body.get("location"), False
    if not isinstance(location, str) or not location:
        raise bad_request("LocationRequired", "The location property is required for this definition.", "location")
    region = arm_ids.region(location)
    if region not in azure.regions():
        raise bad_request(
            "LocationNotAvailableForResourceGroup",
            f"The provided location '{location[:60]}' is not available for resource group. List of available "
            f"regions is '{','.join(azure.regions())}'.",
        )
    managed_by = body.get("managedBy")

    def change(existing: Resource | None) -> Resource:
        nonlocal new
        new = existing is None
        if existing is not None and existing.location != region:
            raise ArmError(
                409,
                "InvalidResourceGroupLocation",
                f"Invalid resource group location '{region}'. The Resource group already exists in location "
                f"'{existing.location}'.",
            )
        spelled = existing.name if existing else name
        group = Resource(str(replace(scope, resource_group=spelled)), GROUP, spelled, region, tags_of(body, existing))
        extra = {"managedBy": managed_by} if isinstance(managed_by, str) else {}
        return replace(group, properties={"provisioningState": "Succeeded"}, extra=extra)

    return context.store.upsert(str(scope), change), new


class _Area:
    def __init__(self, context: Context) -> None:
        self._context = context

    def listed(self, request: Request) -> Response:
        wanted = odata.equalities(request.query_params.get("$filter", ""), ("tagname", "tagvalue"))
        groups = everyone(self._context, self._context.subscription(request))
        if tag := wanted.get("tagname"):
            value = wanted.get("tagvalue")
            groups = [each for each in groups if tag in each.tags and value in (None, each.tags[tag])]
        subscription = self._context.subscription(request)
        return page(
            request,
            groups,
            self._context.settings.page_size,
            lambda each: form(self._context, Scope(subscription, each.name)),
            key=lambda each: resource_key(each.id),
        )

    def get(self, request: Request) -> Response:
        return JSONResponse(form(self._context, self._context.scope(request)))

    def exists(self, request: Request) -> Response:
        self._context.scope(request)
        return Response(status_code=204)

    def put(self, request: Request) -> Response:
        scope = Scope(self._context.subscription(request), request.path_params["group"])
        made, new = create(self._context, scope, bodies.read_object(request))
        return JSONResponse(form(self._context, Scope(scope.subscription, made.name)), 201 if new else 200)

    def patch(self, request: Request) -> Response:
        scope = self._context.scope(request)
        now = form(self._context, scope)
        body = {**now, "tags": bodies.read_object(request).get("tags", now["tags"])}
        create(self._context, scope, body)
        return JSONResponse(form(self._context, scope))

    def delete(self, request: Request) -> Response:
        scope = self._context.scope(request)
        operation = self._context.operations.begin(
            _OPERATION,
            str(scope),
            subscription=scope.subscription,
            provider="Microsoft.Resources",
            location=form(self._context, scope)["location"],
            api_version=request.state.api_version,
        )
        if self._context.store.get(str(scope)) is not None:
            self._context.store.update(
                str(scope), lambda group: replace(group, properties={"provisioningState": "Deleting"})
            )
        _start(self._context, operation)
        return self._context.operations.accepted(request, operation)


def _start(context: Context, operation: Operation) -> None:
    def work() -> None:
        try:
            emptying.empty(context, operation.target)
        except ArmError:
            group = context.store.get(operation.target)
            if group is not None:  # it is still there, with what could not be removed
                context.store.put(replace(group, properties={"provisioningState": "Succeeded"}))
            raise
        context.store.delete(operation.target)

    context.operations.start(operation, work)
