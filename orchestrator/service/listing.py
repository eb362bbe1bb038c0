"""The area of `az resource list`: what is in a group or a subscription, in short."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from orchestrator.record import arm_ids
from orchestrator.record.resources import Resource, resource_key
from orchestrator.service import odata
from orchestrator.service.context import Context
from orchestrator.service.paging import page
from orchestrator.service.paths import ArmRoute
from orchestrator.service.resources import engine

_KNOWN = ("resourcetype", "name", "location", "tagname", "tagvalue", "resourcegroup")


def routes(context: Context) -> list[BaseRoute]:
    """`.../resources` of a subscription and of a group."""

    def of_subscription(request: Request) -> Response:
        return listed(request, f"/subscriptions/{context.subscription(request)}")

    def of_group(request: Request) -> Response:
        return listed(request, str(context.scope(request)))

    def listed(request: Request, scope: str) -> Response:
        wanted = odata.equalities(request.query_params.get("$filter", ""), _KNOWN)
        found = [each for each in engine.tracked(context, scope) if _fits(each, wanted)]
        return page(request, found, context.settings.page_size, _short, key=lambda each: resource_key(each.id))

    place = "/subscriptions/{subscription}"
    return [
        ArmRoute(f"{place}/resources", of_subscription, methods=["GET"]),
        ArmRoute(f"{place}/resourceGroups/{{group}}/resources", of_group, methods=["GET"]),
    ]


def _fits(resource: Resource, wanted: dict[str, str]) -> bool:
    group = resource.id.split("/")[4] if resource.id.count("/") > 4 else ""
    own = {
        "resourcetype": resource.type,
        "name": resource.name,
        "location": arm_ids.region(resource.location),
        "resourcegroup": group,
    }
    if any(key in own and own[key].lower() != value.lower() for key, value in wanted.items()):
        return False
    if tag := wanted.get("tagname"):
        return tag in resource.tags and wanted.get("tagvalue") in (None, resource.tags[tag])
    return True


def _short(resource: Resource) -> dict[str, Any]:
    form = resource.to_json()
    del form["properties"]
    form.pop("systemData", None)
    names = resource.id.rpartition("/providers/")[2].split("/")[2::2]
    return {**form, "name": "/".join(names)}
