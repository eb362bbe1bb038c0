"""The area of Microsoft Graph: as much as `az role assignment` asks to find out whose principal an id is.

Whoever signs in under a name is a service principal of that name here; the principals of identities are there too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from orchestrator.service import bodies
from orchestrator.service.context import Context
from orchestrator.service.entra import BadToken, object_id

IDENTITY = "Microsoft.ManagedIdentity/userAssignedIdentities"
LONGEST = 64 * 1024
_WANTED = re.compile(
    r"servicePrincipalNames/any\(c:\s*c eq '([^']*)'\)|(?:appId|displayName|id) eq '([^']*)'", re.IGNORECASE
)


def routes(context: Context) -> list[BaseRoute]:
    """`/v1.0/servicePrincipals`, `directoryObjects/getByIds`; there are no users and no groups."""

    def principals(request: Request) -> Any:
        """Service principals that a filter names."""
        found = _WANTED.search(request.query_params.get("$filter", ""))
        wanted = (found[1] or found[2]) if found else ""
        known = [
            each for each in _identities(context) if wanted.lower() in (each["id"], each["appId"], each["displayName"])
        ]
        return {"value": known or ([_principal(wanted, wanted, object_id(wanted))] if wanted else [])}

    def nothing(_: Request) -> Any:
        """Users and groups: none."""
        return {"value": []}

    async def by_ids(request: Request) -> Response:
        """What the ids of principals belong to."""
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > LONGEST:
                raise bodies.invalid("it is too long")
        asked = bodies.loads(body)
        given = asked.get("ids") if isinstance(asked, dict) else None
        ids = {each.lower() for each in given if isinstance(each, str)} if isinstance(given, list) else set()
        known = await run_in_threadpool(lambda: [each for each in _identities(context) if each["id"] in ids])
        return JSONResponse({"value": known})

    def guarded(answer: Callable[[Request], Any]) -> Callable[[Request], Response]:
        def handler(request: Request) -> Response:
            return _refusal(context, request) or JSONResponse(answer(request))

        handler.__doc__ = answer.__doc__
        return handler

    async def guarded_by_ids(request: Request) -> Response:
        return _refusal(context, request) or await by_ids(request)

    guarded_by_ids.__doc__ = by_ids.__doc__
    return [
        Route("/v1.0/servicePrincipals", guarded(principals), methods=["GET"]),
        Route("/v1.0/users", guarded(nothing), methods=["GET"]),
        Route("/v1.0/groups", guarded(nothing), methods=["GET"]),
        Route("/v1.0/directoryObjects/getByIds", guarded_by_ids, methods=["POST"]),
    ]


def _refusal(context: Context, request: Request) -> Response | None:
    """401 without a token of this server."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    try:
        if scheme.lower() != "bearer":
            raise BadToken("the 'Authorization' header is missing or is no bearer token")
        context.entra.caller(token.strip())
    except BadToken as error:
        return JSONResponse({"error": {"code": "InvalidAuthenticationToken", "message": f"{error}."}}, 401)
    return None


def _identities(context: Context) -> Iterator[dict[str, Any]]:
    for each in context.store.list(IDENTITY):
        yield _principal(each.name, str(each.properties.get("clientId")), str(each.properties.get("principalId")))


def _principal(name: str, app_id: str, principal_id: str) -> dict[str, Any]:
    return {
        "@odata.type": "#microsoft.graph.servicePrincipal",
        "id": principal_id,
        "appId": app_id,
        "displayName": name,
        "servicePrincipalNames": [app_id],
        "servicePrincipalType": "ManagedIdentity" if app_id != name else "Application",
    }
