"""The area of the OpenAPI document: `/_aib/openapi.json`, made from the routes that the server really has.

`?api-version=` chooses the version whose fields describe the body of an image template.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from orchestrator.service.context import Context
from orchestrator.service.openapi_schemas import ERROR, template_schemas
from orchestrator.service.paths import ARM
from orchestrator.template.schema.tables import tables

NOT_DESCRIBED = re.compile(r"/$|/ui(/|$)|/adfs/")
"""A browser's pages, and the second way to sign in."""
_PARAMETER = re.compile(r"{([^}]+)}")
_WITH_BODY = frozenset({"PUT", "POST", "PATCH"})
_TEMPLATE = re.compile(r"/providers/microsoft\.virtualmachineimages/imagetemplates/{[^}]+}$", re.IGNORECASE)
_GUID = "00000000-0000-0000-0000-000000000000"
_REF = {"$ref": "#/components/schemas/Error"}
_JSON = "application/json"


def routes(_: Context) -> list[BaseRoute]:
    """`/_aib/openapi.json`, which needs no token."""
    made: dict[str, Response] = {}

    def document(request: Request) -> Response:
        known = tables().versions
        asked = request.query_params.get("api-version", "")
        chosen = asked if asked in known else known[-1]
        if chosen not in made:
            described = [route for route in request.app.routes if isinstance(route, Route)]
            made[chosen] = JSONResponse(describe(described, chosen))
        return made[chosen]

    return [Route("/_aib/openapi.json", document, methods=["GET"])]


def describe(routes: Sequence[Route], api_version: str) -> dict[str, Any]:
    """The OpenAPI 3.1 document of `routes`, with the image template's fields of `api_version`."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        if not NOT_DESCRIBED.match(route.path_format):
            entry = paths.setdefault(route.path_format, {})
            for method in sorted(route.methods or ()):
                entry.setdefault(method.lower(), _operation(route, method, api_version))
    _number_doubles(paths)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "aib serve",
            "version": version("aib"),
            "description": "What this server answers of Azure Resource Manager. Paths of ARM are matched in any case; "
            f"image templates are described as of api-version {api_version}.",
        },
        "paths": paths,
        "components": {
            "schemas": {"Error": ERROR, **template_schemas(api_version)},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route, method: str, api_version: str) -> dict[str, Any]:
    arm = route.path_format.split("/")[1].lower() in ARM
    names = _PARAMETER.findall(route.path_format)
    parameters = [_path_parameter(name) for name in names]
    if arm:
        parameters.append(
            {
                "name": "api-version", "in": "query", "required": True,
                "schema": {"type": "string", "examples": [api_version]}, "example": api_version,
            }
        )  # fmt: skip
    described: dict[str, Any] = {
        "operationId": _name(method, route.path_format),
        "summary": _summary(route, method),
        "parameters": parameters,
        "responses": {
            "2XX": {"description": "Done, accepted, or under way (`Azure-AsyncOperation`, `Location`)."},
            "3XX": {"description": "Elsewhere, or not changed."},
            "default": {"description": "Refused, as ARM words it.", "content": {_JSON: {"schema": _REF}}},
        },
    }
    if not arm or method == "HEAD":
        described["responses"]["default"] = {"description": "Refused."}
    if arm:
        described["security"] = [{"token": []}]
    if method in _WITH_BODY and (body := _body(route.path_format, method, arm=arm)):
        described["requestBody"] = body
    return described


def _path_parameter(name: str) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string", "minLength": 1}
    if name in ("subscription", "tenant"):
        return {"name": name, "in": "path", "required": True, "schema": schema, "example": _GUID}
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _body(path: str, method: str, *, arm: bool) -> dict[str, Any] | None:
    if not arm:
        form = {"type": "object", "additionalProperties": {"type": "string"}}
        return {"content": {"application/x-www-form-urlencoded": {"schema": form}}} if "oauth2" in path else None
    if method == "PUT" and _TEMPLATE.search(path):
        schema: dict[str, Any] = {"$ref": "#/components/schemas/ImageTemplate"}
    else:
        schema = {"type": "object"}
    return {"required": method in ("PUT", "PATCH"), "content": {_JSON: {"schema": schema}}}


def _summary(route: Route, method: str) -> str:
    words = (getattr(route.endpoint, "__doc__", None) or "").strip().splitlines()
    if words:
        return words[0]
    return f"{method} {_last(route.path_format)}"


def _last(path: str) -> str:
    """What the path is of: its last segment that is no parameter."""
    fixed = [segment for segment in path.split("/") if segment and not segment.startswith("{")]
    return fixed[-1] if fixed else "everything"


def _name(method: str, path: str) -> str:
    """`getImagetemplatesTemplate`: unique enough; doubles are numbered."""
    after = path.rpartition("/providers/")[2] if "/providers/" in path else path
    words = re.findall(r"[A-Za-z0-9]+", after)
    return method.lower() + "".join(word[:1].upper() + word[1:] for word in words)


def _number_doubles(paths: dict[str, dict[str, Any]]) -> None:
    seen: dict[str, int] = {}
    for operation in _operations(paths.values()):
        name = operation["operationId"]
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1:
            operation["operationId"] = f"{name}{seen[name]}"


def _operations(entries: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for entry in entries:
        yield from entry.values()
