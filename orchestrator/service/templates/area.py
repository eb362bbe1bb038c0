"""The area of imageTemplates: Microsoft.VirtualMachineImages, request by request (facts: arm-and-guest 2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from orchestrator.record import arm_ids
from orchestrator.record.resources import Resource, resource_key
from orchestrator.service import bodies
from orchestrator.service.context import Context
from orchestrator.service.envelope import resource_not_found
from orchestrator.service.paging import page
from orchestrator.service.paths import ArmRoute
from orchestrator.service.resources import owners
from orchestrator.service.templates import patch, submit, versions
from orchestrator.service.templates.form import template_form
from orchestrator.service.templates.owner import Templates

GROUP = f"/subscriptions/{{subscription}}/resourceGroups/{{group}}/providers/{versions.PROVIDER}"
TEMPLATE = f"{GROUP}/imageTemplates/{{name}}"


def routes(context: Context) -> list[BaseRoute]:
    """Create, read, list, change, remove, run, cancel; and what operations there are."""
    area = _Area(context)
    owners.register(arm_ids.TEMPLATE, Templates())
    return [
        ArmRoute(TEMPLATE, area.get, methods=["GET"]),
        ArmRoute(TEMPLATE, area.put, methods=["PUT"]),
        ArmRoute(TEMPLATE, area.patch, methods=["PATCH"]),
        ArmRoute(TEMPLATE, area.delete, methods=["DELETE"]),
        ArmRoute(f"{TEMPLATE}/run", area.run, methods=["POST"]),
        ArmRoute(f"{TEMPLATE}/cancel", area.cancel, methods=["POST"]),
        ArmRoute(f"{GROUP}/imageTemplates", area.list_group, methods=["GET"]),
        ArmRoute(
            f"/subscriptions/{{subscription}}/providers/{versions.PROVIDER}/imageTemplates",
            area.list_subscription,
            methods=["GET"],
        ),
        ArmRoute(f"/providers/{versions.PROVIDER}/operations", area.operations, methods=["GET"]),
    ]


def on_start(context: Context) -> None:
    """What the last server left: templates in the making, runs that died, runs that were to be cancelled."""
    submit.end_interrupted(context)
    context.runs.adopt()


def on_stop(context: Context) -> None:
    """Runs go on without us."""
    context.runs.close()


def find(context: Context, request: Request, kind: str = "imageTemplates", since: str = "") -> Resource:
    """The template of the path, with the truth about its run; `ArmError` 404.

    `kind` is what is asked for, `since` the first api-version that has it.
    """
    versions.check(request.state.api_version, kind, since=since)
    scope, name = context.scope(request), request.path_params["name"]
    found = context.store.get(arm_ids.template_id(name, scope))
    if found is None:
        raise resource_not_found(arm_ids.TEMPLATE, name, scope.resource_group)
    return context.runs.fresh(found)


class _Area:
    def __init__(self, context: Context) -> None:
        self._context = context

    def get(self, request: Request) -> Response:
        return JSONResponse(template_form(find(self._context, request), request.state.api_version))

    def put(self, request: Request) -> Response:
        body = bodies.read_object(request)
        version = versions.check(request.state.api_version, location=str(body.get("location", "")))
        scope = self._context.scope(request)
        asked = submit.Request(self._context, scope, request.path_params["name"], version, request.state.caller.name)
        done = submit.put(asked, body)
        form, status = template_form(done.resource, version), 201 if done.new else 200
        if done.operation is None:
            return JSONResponse(form, status)
        return self._context.operations.accepted(request, done.operation, status=status, body=form, location=False)

    def patch(self, request: Request) -> Response:
        body = bodies.read_object(request)
        template = find(self._context, request)
        version = request.state.api_version
        changed = patch.change(self._context, template, body, version, request.state.caller.name)
        operation = self._context.operations.begin("Update", changed.id, **versions.place(changed, version))
        ended = self._context.operations.end(operation)
        return self._context.operations.accepted(request, ended, body=template_form(changed, version))

    def delete(self, request: Request) -> Response:
        version = versions.check(request.state.api_version)
        scope, name = self._context.scope(request), request.path_params["name"]
        found = self._context.store.get(arm_ids.template_id(name, scope))
        if found is None:
            return Response(status_code=204)
        submit.remove(self._context, found, version)
        operation = self._context.operations.begin("Delete", found.id, **versions.place(found, version))
        ended = self._context.operations.end(operation)
        return self._context.operations.accepted(request, ended, status_url=False)

    def run(self, request: Request) -> Response:
        template = find(self._context, request)
        operation = self._context.runs.start(template, request.state.api_version, request.state.caller.name)
        return self._context.operations.accepted(request, operation)

    def cancel(self, request: Request) -> Response:
        template = find(self._context, request, "imageTemplates/cancel", versions.CANCEL)
        operation = self._context.runs.cancel(template, request.state.api_version)
        return self._context.operations.accepted(request, operation)

    def list_group(self, request: Request) -> Response:
        return self._list(request, str(self._context.scope(request)))

    def list_subscription(self, request: Request) -> Response:
        return self._list(request, f"/subscriptions/{self._context.subscription(request)}")

    def _list(self, request: Request, under: str) -> Response:
        version = versions.check(request.state.api_version)
        found = self._context.store.list(arm_ids.TEMPLATE, under=under)
        form: Callable[[Resource], Any] = lambda each: template_form(self._context.runs.fresh(each), version)  # noqa: E731
        return page(request, found, self._context.settings.page_size, form, key=lambda each: resource_key(each.id))

    def operations(self, request: Request) -> Response:
        versions.check(request.state.api_version, kind="operations")
        return JSONResponse({"value": [_operation(*each) for each in _OPERATIONS]})


_OPERATIONS = (
    ("operations/read", "Operations", "Get Operations", "Get all operations of the provider"),
    ("imageTemplates/read", "Image Template", "Get Image Template", "Get an image template"),
    ("imageTemplates/write", "Image Template", "Create or Update Image Template", "Create or update an image template"),
    ("imageTemplates/delete", "Image Template", "Delete Image Template", "Delete an image template"),
    ("imageTemplates/run/action", "Image Template", "Run Image Template", "Build the image of an image template"),
    ("imageTemplates/cancel/action", "Image Template", "Cancel Image Build", "Cancel a running build"),
    ("imageTemplates/runOutputs/read", "Run Output", "Get Run Output", "Get or list run outputs"),
    ("imageTemplates/triggers/read", "Trigger", "Get Trigger", "Get or list the triggers of an image template"),
    ("imageTemplates/triggers/write", "Trigger", "Create Trigger", "Create a trigger of an image template"),
    ("imageTemplates/triggers/delete", "Trigger", "Delete Trigger", "Delete a trigger of an image template"),
    ("locations/operations/read", "Operation", "Get Operation Status", "Get the status of an asynchronous operation"),
)


def _operation(name: str, resource: str, operation: str, description: str) -> dict[str, Any]:
    display = {
        "provider": "Microsoft Virtual Machine Image Builder",
        "resource": resource,
        "operation": operation,
        "description": description,
    }
    return {"name": f"{versions.PROVIDER}/{name}", "isDataAction": False, "display": display}
