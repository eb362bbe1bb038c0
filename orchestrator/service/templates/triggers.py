"""The area of triggers: a template that is run when there is a newer version of its source image (facts: TRIG).

When it is run: `trigger_watch`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from orchestrator.record import arm_ids
from orchestrator.record.resources import Resource, resource_key
from orchestrator.service import bodies
from orchestrator.service.context import Context
from orchestrator.service.envelope import ArmError, resource_not_found
from orchestrator.service.paging import page
from orchestrator.service.paths import ArmRoute
from orchestrator.service.templates import versions
from orchestrator.service.templates.area import TEMPLATE, find
from orchestrator.service.templates.trigger_watch import TRIGGER, newest, status_of, typed, watch
from orchestrator.template.model import PlatformImage, SharedImageTarget, SharedImageVersion, Template
from orchestrator.template.rules.envelope import NAME, NAME_SHAPE

KIND = "SourceImage"
MOST = 100
"""Triggers of one subscription in one region (TRIG)."""


def on_start(context: Context) -> None:
    """Look for what came while no server ran, and watch from now on."""
    watch(context)


def routes(context: Context) -> list[BaseRoute]:
    """List, read, create and delete."""
    area = _Area(context)
    one = f"{TEMPLATE}/triggers/{{trigger}}"
    return [
        ArmRoute(f"{TEMPLATE}/triggers", area.list, methods=["GET"]),
        ArmRoute(one, area.get, methods=["GET"]),
        ArmRoute(one, area.put, methods=["PUT"]),
        ArmRoute(one, area.delete, methods=["DELETE"]),
    ]


class _Area:
    def __init__(self, context: Context) -> None:
        self._context = context

    def list(self, request: Request) -> Response:
        template = find(self._context, request, "imageTemplates/triggers", versions.TRIGGERS)
        found = self._context.store.list(TRIGGER, under=template.id)
        return page(request, found, self._context.settings.page_size, _form, key=lambda each: resource_key(each.id))

    def get(self, request: Request) -> Response:
        template = find(self._context, request, "imageTemplates/triggers", versions.TRIGGERS)
        return JSONResponse(_form(self._found(template, request.path_params["trigger"])))

    def put(self, request: Request) -> Response:
        body = bodies.read_object(request)
        template = find(self._context, request, "imageTemplates/triggers", versions.TRIGGERS)
        version, name = request.state.api_version, request.path_params["trigger"]
        made = self._made(template, name, body, version)
        new = self._context.store.get(made.id) is None
        kept = self._context.store.upsert(made.id, lambda existing: existing or made)
        operation = self._context.operations.begin("Create", kept.id, **versions.place(template, version))
        ended = self._context.operations.end(operation)
        return self._context.operations.accepted(
            request, ended, status=201 if new else 200, body=_form(kept), location=False
        )

    def delete(self, request: Request) -> Response:
        template = find(self._context, request, "imageTemplates/triggers", versions.TRIGGERS)
        trigger_id = f"{template.id}/triggers/{request.path_params['trigger']}"
        if not self._context.store.delete(trigger_id):
            return Response(status_code=204)
        place = versions.place(template, request.state.api_version)
        ended = self._context.operations.end(self._context.operations.begin("Delete", trigger_id, **place))
        return self._context.operations.accepted(request, ended, status_url=False)

    def _found(self, template: Resource, name: str) -> Resource:
        found = self._context.store.get(f"{template.id}/triggers/{name}")
        if found is None:
            group = arm_ids.parse(template.id).scope.resource_group
            raise resource_not_found(TRIGGER, f"{template.name}/{name}", group)
        return found

    def _made(self, template: Resource, name: str, body: Mapping[str, Any], version: str) -> Resource:
        if not NAME.fullmatch(name):
            raise _refused(f"{name!r} is no trigger name: {NAME_SHAPE}", version)
        properties = body.get("properties")
        kind = properties.get("kind") if isinstance(properties, Mapping) else None
        if kind != KIND:
            raise _refused(f"Field 'kind' has a bad value: {str(kind or '')[:60]!r}; there is {KIND}", version)
        store = self._context.store
        others = [each for each in store.list(TRIGGER, under=template.id) if each.name.lower() != name.lower()]
        if others:
            raise _refused(f"the template has a trigger already, {others[0].name}: it can have one", version)
        subscription = f"/subscriptions/{arm_ids.parse(template.id).scope.subscription}"
        region = [each for each in store.list(TRIGGER, under=subscription) if each.location == template.location]
        if len(region) >= MOST:
            raise _refused(f"there are {MOST} triggers in {template.location} already", version)
        asked = typed(store, template)
        _check_template(asked, version)
        return Resource(
            f"{template.id}/triggers/{name}",
            TRIGGER,
            name,
            template.location,
            properties={
                "kind": KIND,
                "provisioningState": "Succeeded",
                "status": status_of("Healthy"),
                "aib": {"seen": newest(store, asked), "failures": 0},
            },
        )


def _check_template(template: Template, version: str) -> None:
    """What a template with a trigger must be like (TRIG)."""
    source, definition = template.source, ""
    if isinstance(source, PlatformImage):
        latest = source.version.lower() == "latest"
    elif isinstance(source, SharedImageVersion):
        definition, _, number = source.image_version_id.rpartition("/versions/")
        latest = number.lower() == "latest"
    else:
        raise _refused("the source is a managed image, which has no versions", version)
    if not latest:
        raise _refused("the version of the source must be 'latest'", version)
    for target in template.distribute:
        if isinstance(target, SharedImageTarget):
            if "/versions/" in target.gallery_image_id.lower():
                raise _refused(f"{target.run_output_name} distributes to an explicit version", version)
            if definition and arm_ids.same(definition, target.gallery_image_id):
                raise _refused(f"{target.run_output_name} distributes to the image definition of the source", version)


def _refused(problem: str, version: str) -> ArmError:
    message = f"Validation failed: 'ImageTemplateTrigger': {problem}."
    return ArmError(400, "ValidationFailed", message, provider_version=version)


def _form(trigger: Resource) -> dict[str, Any]:
    properties = {key: value for key, value in trigger.properties.items() if key != "aib"}
    return {"id": trigger.id, "name": trigger.name, "type": trigger.type, "properties": properties}
