"""The area of all resources without routes of their own: GET, HEAD, PUT, PATCH, DELETE, lists, actions, by id."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from orchestrator.record.resources import Resource, resource_key
from orchestrator.service import bodies
from orchestrator.service.context import Context
from orchestrator.service.entra import origin
from orchestrator.service.envelope import ArmError
from orchestrator.service.paging import page
from orchestrator.service.paths import ArmRoute
from orchestrator.service.resources import engine, roles, targets
from orchestrator.service.resources.storage import check_name
from orchestrator.service.resources.targets import Target


def routes(context: Context) -> list[BaseRoute]:
    """The catch-all below `/subscriptions` and `/providers`: it comes after every other area."""
    area = _Area(context)
    methods = ["GET", "HEAD", "PUT", "PATCH", "DELETE", "POST"]
    check = "/subscriptions/{subscription}/providers/Microsoft.Storage/checkNameAvailability"
    return [
        ArmRoute(check, area.check_name, methods=["POST"]),
        ArmRoute("/subscriptions/{path:path}", area.answer, methods=methods),
        ArmRoute("/providers/{path:path}", area.answer, methods=methods),
    ]


class _Area:
    def __init__(self, context: Context) -> None:
        self._context = context

    def answer(self, request: Request) -> Response:
        target = targets.parse(self._context, request.url.path)
        if target.is_resource:
            handlers = {
                "GET": self._get,
                "HEAD": self._head,
                "PUT": self._put,
                "PATCH": self._patch,
                "DELETE": self._delete,
            }
            if request.method in handlers:
                return handlers[request.method](request, target)
        elif request.method == "GET":
            return self._list(request, target)
        elif request.method == "POST" and len(target.names) > 0:
            return self._act(request, target)
        raise ArmError(405, "MethodNotAllowed", "The requested resource does not support this method.")

    def check_name(self, request: Request) -> Response:
        """Whether a storage account's name is free."""
        self._context.subscription(request)
        name = str(bodies.read_object(request).get("name", ""))
        try:
            check_name(name)
        except ArmError as error:
            return JSONResponse({"nameAvailable": False, "reason": "AccountNameInvalid", "message": error.message})
        if any(each.name == name for each in self._context.store.list("Microsoft.Storage/storageAccounts")):
            message = f"The storage account named {name} is already taken."
            return JSONResponse({"nameAvailable": False, "reason": "AlreadyExists", "message": message})
        return JSONResponse({"nameAvailable": True})

    def _get(self, request: Request, target: Target) -> Response:
        return JSONResponse(self._form(request, engine.get(self._context, target)))

    def _head(self, _: Request, target: Target) -> Response:
        engine.get(self._context, target)
        return Response(status_code=204)

    def _put(self, request: Request, target: Target) -> Response:
        return self._write(request, target, bodies.read_object(request))

    def _patch(self, request: Request, target: Target) -> Response:
        existing = engine.get(self._context, target)
        asked = bodies.read_object(request)
        body = merged(engine.shown(self._context, existing, origin(request)), asked)
        if isinstance(asked.get("tags"), Mapping):
            body["tags"] = asked["tags"]  # tags are replaced as a whole
        return self._write(request, target, body)

    def _write(self, request: Request, target: Target, body: Mapping[str, Any]) -> Response:
        version = request.state.api_version
        prepared = engine.prepare(self._context, target, body, version)
        if prepared.work is not None:
            return self._begin(request, prepared)
        resource, new = prepared.store()
        created = (new or prepared.kind.always_created) and not prepared.kind.always_ok and request.method == "PUT"
        return JSONResponse(self._form(request, resource), 201 if created else 200)

    def _begin(self, request: Request, prepared: engine.Prepared) -> Response:
        """201 and an operation; the resource is there when the operation has succeeded."""
        put, work = prepared.put, prepared.work
        target = put.target
        operation = self._context.operations.begin(
            "Create",
            target.id,
            subscription=target.subscription,
            provider=target.namespace,
            location=str(put.body.get("location") or self._context.settings.location),
            api_version=put.api_version,
        )

        def done() -> None:
            assert work is not None  # the caller asked
            work()

        self._context.operations.start(operation, done)
        body = {
            "id": target.id,
            "name": target.name,
            "type": target.kind,
            "location": put.body.get("location", ""),
            "tags": put.body.get("tags") or {},
            "properties": {**put.properties, "provisioningState": "Creating"},
        }
        return self._context.operations.accepted(request, operation, status=201, body=body, location=False)

    def _delete(self, request: Request, target: Target) -> Response:
        removed = engine.delete(self._context, target)
        if removed is None:
            return Response(status_code=204)
        if engine.kind_of(target.kind).deleted_body:
            return JSONResponse(self._form(request, removed))
        return Response(status_code=200)

    def _list(self, request: Request, target: Target) -> Response:
        if target.kind.lower() in (roles.DEFINITION.lower(), roles.ASSIGNMENT.lower()):
            query = request.query_params.get("$filter", "")
            return JSONResponse({"value": roles.listed(self._context, target.kind, target.scope, query)})
        if target.names:
            engine.get(self._context, target.owner)
        found = self._context.store.list(target.kind, under=target.owner.id if target.names else target.scope)
        return page(
            request,
            found,
            self._context.settings.page_size,
            lambda each: self._form(request, each),
            key=lambda each: resource_key(each.id),
        )

    def _act(self, request: Request, target: Target) -> Response:
        owner = target.owner
        resource = engine.get(self._context, owner)
        name = target.types[-1].lower()
        answer = engine.kind_of(owner.kind).action(self._context, resource, name, origin(request))
        if answer is None:
            message = f"The resource type '{owner.kind}' does not support the action '{target.types[-1][:60]}' here."
            raise ArmError(400, "InvalidAction", message)
        return JSONResponse(answer)

    def _form(self, request: Request, resource: Resource) -> dict[str, Any]:
        expand = request.query_params.get("$expand", "")
        return engine.shown(self._context, resource, origin(request), expand)


def merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """`old` with what `new` says, objects merged member by member (JSON merge patch, RFC 7396)."""
    made = dict(old)
    for key, value in new.items():
        before = made.get(key)
        if value is None:
            made.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(before, Mapping):
            made[key] = merged(before, value)
        else:
            made[key] = value
    return made
