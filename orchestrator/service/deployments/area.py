"""The area of deployments, to a resource group and to a subscription: validate, create, what-if, watch, cancel."""

from __future__ import annotations

import re
from typing import Any
from weakref import WeakKeyDictionary

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from orchestrator.record.resources import Resource, resource_key
from orchestrator.service import bodies, odata
from orchestrator.service.context import Context
from orchestrator.service.deployments import whatif
from orchestrator.service.deployments.at_work import KIND, AtWork
from orchestrator.service.deployments.record import RUNNING, interrupt
from orchestrator.service.deployments.request import Requested, requested
from orchestrator.service.entra import origin
from orchestrator.service.envelope import ArmError
from orchestrator.service.operations import Operations
from orchestrator.service.paging import page
from orchestrator.service.paths import ArmRoute
from orchestrator.service.resources.engine import DEPLOYMENT

_IN_GROUP = "/subscriptions/{subscription}/resourceGroups/{group}"
_IN_SUBSCRIPTION = "/subscriptions/{subscription}"
_AT_WORK: WeakKeyDictionary[Operations, AtWork] = WeakKeyDictionary()
"""The deployments of each server in this process."""
_NAME = re.compile(r"[-\w._()]{1,64}")


def routes(context: Context) -> list[BaseRoute]:
    """Deployments; operations are also below the old path that az still asks (`arm-and-guest` 4)."""
    area = _Area(context)
    found: list[BaseRoute] = []
    for scope in (_IN_GROUP, _IN_SUBSCRIPTION):
        every = f"{scope}/providers/Microsoft.Resources/deployments"
        one = f"{every}/{{deployment}}"
        found += [
            ArmRoute(every, area.listed, methods=["GET"]),
            ArmRoute(one, area.get, methods=["GET"]),
            ArmRoute(one, area.exists, methods=["HEAD"]),
            ArmRoute(one, area.put, methods=["PUT"]),
            ArmRoute(one, area.delete, methods=["DELETE"]),
            ArmRoute(f"{one}/validate", area.validate, methods=["POST"]),
            ArmRoute(f"{one}/whatIf", area.what_if, methods=["POST"]),
            ArmRoute(f"{one}/cancel", area.cancel, methods=["POST"]),
            ArmRoute(f"{one}/exportTemplate", area.export, methods=["POST"]),
            ArmRoute(f"{one}/operationStatuses/{{operation}}", area.status, methods=["GET"]),
        ]
        for place in (one, f"{scope}/deployments/{{deployment}}"):
            found += [
                ArmRoute(f"{place}/operations", area.operations, methods=["GET"]),
                ArmRoute(f"{place}/operations/{{operation}}", area.operation, methods=["GET"]),
            ]
    return found


def on_start(context: Context) -> None:
    """What ran when the server stopped has failed: half of it may be there, and nobody goes on with it."""
    for operation in context.operations.pending():
        if operation.kind == KIND:
            interrupt(context.store, operation.target)
            found = context.store.get(operation.target)
            error = found.properties.get("error") if found else None
            message = str(error["message"]) if error else "The deployment is gone."
            context.operations.end(operation, "Failed", ArmError(400, "DeploymentFailed", message))
    for resource in context.store.list(DEPLOYMENT):  # nested ones have no operation of their own
        if resource.properties.get("provisioningState") in RUNNING:
            interrupt(context.store, resource.id)


def on_stop(context: Context) -> None:
    """Deployments end before their next resource; what runs is waited for."""
    work = _AT_WORK.pop(context.operations, None)
    if work is not None:
        work.close()


def form(resource: Resource) -> dict[str, Any]:
    """A deployment in ARM's form."""
    shown = resource.to_json()
    shown["properties"] = {key: value for key, value in shown["properties"].items() if key != "aib"}
    if not resource.location:
        del shown["location"]
    if not resource.tags:
        del shown["tags"]
    return shown


class _Area:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._work = _AT_WORK[context.operations] = AtWork(context)

    def listed(self, request: Request) -> Response:
        wanted = odata.equalities(request.query_params.get("$filter", ""), ("provisioningstate",))
        level, state = self._level(request), wanted.get("provisioningstate", "").lower()
        found = [
            each
            for each in self._context.store.list(DEPLOYMENT, under=level)
            if each.id.rpartition("/providers/")[0].lower() == level.lower()
            and state in ("", str(each.properties["provisioningState"]).lower())
        ]
        return page(request, found, self._context.settings.page_size, form, key=lambda each: resource_key(each.id))

    def get(self, request: Request) -> Response:
        return JSONResponse(form(self._found(request)))

    def exists(self, request: Request) -> Response:
        self._found(request)
        return Response(status_code=204)

    def put(self, request: Request) -> Response:
        asked = self._asked(request)
        resource, operation, new = self._work.begin(asked)
        query = f"?api-version={request.state.api_version}"
        headers = {
            "Azure-AsyncOperation": f"{origin(request)}{asked.id}/operationStatuses/{operation.id}{query}",
            "Retry-After": str(self._context.settings.retry_after),
        }
        return JSONResponse(form(resource), 201 if new else 200, headers)

    def validate(self, request: Request) -> Response:
        asked = self._asked(request)
        plan = self._work.plan(asked)
        record = self._work.record(asked, plan)
        record.state = "Succeeded"
        shown = form(record.resource())
        shown["properties"].pop("outputResources")
        shown["properties"]["validatedResources"] = [{"id": each.id} for each in plan.everything()]
        return JSONResponse(shown)

    def what_if(self, request: Request) -> Response:
        asked = self._asked(request)
        plan = self._work.plan(asked, previews=whatif.previews_for_all)
        full = asked.result_format.lower() != "resourceidonly"
        found = whatif.changes(asked.world, plan, asked.body.mode, payloads=full)
        return JSONResponse({"status": "Succeeded", "properties": {"changes": found}})

    def cancel(self, request: Request) -> Response:
        found = self._found(request)
        if not self._work.cancel(found.id):
            state = found.properties.get("provisioningState")
            message = f"The deployment '{found.name}' is not running: its provisioning state is '{state}'."
            raise ArmError(409, "DeploymentNotRunning", message)
        return Response(status_code=204)

    def delete(self, request: Request) -> Response:
        found = self._context.store.get(self._id(request))
        if found is None:
            return Response(status_code=204)
        if self._work.is_active(found.id):
            raise ArmError(409, "DeploymentActive", f"The deployment '{found.name}' is still running: cancel it first.")
        self._context.store.delete(found.id)
        return Response(status_code=204)

    def export(self, request: Request) -> Response:
        found = self._found(request)
        if found.properties["provisioningState"] in RUNNING:
            raise ArmError(409, "DeploymentActive", f"The deployment '{found.name}' is still running.")
        template = found.properties.get("aib", {}).get("template")
        if template is None:
            raise ArmError(404, "TemplateNotKept", f"The template of '{found.name}' was too large to be kept.")
        return JSONResponse({"template": template})

    def status(self, request: Request) -> Response:
        operation = self._context.operations.get(request.path_params["operation"])
        if operation is None or operation.target.lower() != self._id(request).lower():
            raise ArmError(404, "OperationNotFound", "There is no such operation of the deployment.")
        body: dict[str, Any] = {"status": operation.status if operation.done else "Running"}
        if operation.done:
            return JSONResponse({**body, "error": dict(operation.error)} if operation.error else body)
        return JSONResponse(body, headers={"Retry-After": str(self._context.settings.retry_after)})

    def operations(self, request: Request) -> Response:
        found = self._found(request).properties.get("aib", {}).get("operations", [])
        return page(request, found, self._context.settings.page_size, dict, key=lambda each: str(each["operationId"]))

    def operation(self, request: Request) -> Response:
        wanted = request.path_params["operation"].lower()
        for each in self._found(request).properties.get("aib", {}).get("operations", []):
            if each["operationId"].lower() == wanted:
                return JSONResponse(each)
        raise ArmError(404, "DeploymentOperationNotFound", f"There is no operation '{wanted[:60]}' of the deployment.")

    def _asked(self, request: Request) -> Requested:
        return requested(self._context, request, self._level(request), self._name(request), bodies.raw(request))

    def _level(self, request: Request) -> str:
        if "group" in request.path_params:
            return str(self._context.scope(request))
        return f"/subscriptions/{self._context.subscription(request)}"

    def _name(self, request: Request) -> str:
        name: str = request.path_params["deployment"]
        if not _NAME.fullmatch(name):
            raise ArmError(
                400,
                "InvalidDeploymentName",
                f"The deployment name '{name[:100]}' is not valid: at most 64 letters, digits, or any of '-._()'.",
            )
        return name

    def _id(self, request: Request) -> str:
        return f"{self._level(request)}/providers/{DEPLOYMENT}/{self._name(request)}"

    def _found(self, request: Request) -> Resource:
        found = self._context.store.get(self._id(request))
        if found is None:
            raise ArmError(404, "DeploymentNotFound", f"Deployment '{self._name(request)}' could not be found.")
        return found
