"""The area of runOutputs: what the distributors of a template made."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from orchestrator.record import arm_ids
from orchestrator.record.resources import Resource, resource_key
from orchestrator.record.run_outputs import rest_form, run_outputs
from orchestrator.service import blobs
from orchestrator.service.context import Context
from orchestrator.service.entra import origin
from orchestrator.service.envelope import resource_not_found
from orchestrator.service.paging import page
from orchestrator.service.paths import ArmRoute
from orchestrator.service.templates.area import TEMPLATE, find


def routes(context: Context) -> list[BaseRoute]:
    """List and read."""

    def form(request: Request, output: Resource) -> dict[str, Any]:
        """A VHD of the store is downloaded from the blob endpoint, by a SAS made for whoever asks."""
        shown = rest_form(output)
        if "artifactUri" in shown["properties"]:
            address = blobs.of(context).address(origin(request), str(shown["properties"]["artifactUri"]))
            shown["properties"]["artifactUri"] = address
        return shown

    def listed(request: Request) -> Response:
        template = find(context, request)
        found, size = run_outputs(context.store, template.id), context.settings.page_size
        return page(request, found, size, lambda each: form(request, each), key=lambda each: resource_key(each.id))

    def one(request: Request) -> Response:
        template, name = find(context, request), request.path_params["output"]
        found = context.store.get(arm_ids.run_output_id(template.id, name))
        if found is None:
            group = arm_ids.parse(template.id).scope.resource_group
            raise resource_not_found(arm_ids.RUN_OUTPUT, f"{template.name}/{name}", group)
        return JSONResponse(form(request, found))

    return [
        ArmRoute(f"{TEMPLATE}/runOutputs", listed, methods=["GET"]),
        ArmRoute(f"{TEMPLATE}/runOutputs/{{output}}", one, methods=["GET"]),
    ]
