"""The area of subscriptions, tenants and regions."""

from __future__ import annotations

import re
import uuid
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from orchestrator.service import azure
from orchestrator.service.context import Context
from orchestrator.service.entra import TENANT
from orchestrator.service.paths import ArmRoute

_SUBSCRIPTION = re.compile(r"/subscriptions/([^/]+)/", re.IGNORECASE)


def routes(context: Context) -> list[BaseRoute]:
    """`/subscriptions`, one, its locations; `/tenants`."""

    def listed(request: Request) -> Response:
        found = [form(each, _tenant(request)) for each in known(context)]
        return JSONResponse({"value": found, "count": {"type": "Total", "value": len(found)}})

    def one(request: Request) -> Response:
        return JSONResponse(form(context.subscription(request), _tenant(request)))

    def tenants(request: Request) -> Response:
        tenant = _tenant(request)
        shown = {
            "id": f"/tenants/{tenant}",
            "tenantId": tenant,
            "tenantType": "AAD",
            "displayName": "aib",
            "defaultDomain": "aib.local",
            "domains": ["aib.local"],
        }
        return JSONResponse({"value": [shown]})

    def locations(request: Request) -> Response:
        subscription = context.subscription(request)
        return JSONResponse({"value": [_location(subscription, name) for name in azure.regions()]})

    return [
        ArmRoute("/subscriptions", listed, methods=["GET"]),
        ArmRoute("/tenants", tenants, methods=["GET"]),
        ArmRoute("/subscriptions/{subscription}", one, methods=["GET"]),
        ArmRoute("/subscriptions/{subscription}/locations", locations, methods=["GET"]),
    ]


def known(context: Context) -> list[str]:
    """The server's subscriptions, and those of which the store holds something."""
    found = {each.lower(): each for each in context.settings.subscriptions}
    for resource in context.store.list():
        match = _SUBSCRIPTION.match(resource.id)
        if match:
            found.setdefault(match[1].lower(), match[1])
    return list(found.values())


def form(subscription: str, tenant: str = TENANT) -> dict[str, Any]:
    """A subscription in ARM's form."""
    return {
        "id": f"/subscriptions/{subscription}",
        "subscriptionId": subscription,
        "tenantId": tenant,
        "displayName": "aib",
        "state": "Enabled",
        "subscriptionPolicies": {
            "locationPlacementId": "Public_2014-09-01",
            "quotaId": "PayAsYouGo_2014-09-01",
            "spendingLimit": "Off",
        },
        "authorizationSource": "RoleBased",
        "managedByTenants": [],
        "tags": {},
    }


def _tenant(request: Request) -> str:
    """The tenant that the client signed in to: it looks for its own among the answers."""
    tenant: str = request.state.caller.tenant
    try:
        return str(uuid.UUID(tenant))
    except ValueError:
        return TENANT


def _location(subscription: str, name: str) -> dict[str, Any]:
    display, group = azure.regions()[name]
    return {
        "id": f"/subscriptions/{subscription}/locations/{name}",
        "name": name,
        "type": "Region",
        "displayName": display,
        "regionalDisplayName": f"({group}) {display}",
        "metadata": {
            "regionType": "Physical",
            "regionCategory": "Recommended",
            "geography": group,
            "geographyGroup": group,
            "longitude": "0",
            "latitude": "0",
            "physicalLocation": "",
            "pairedRegion": [],
        },
    }
