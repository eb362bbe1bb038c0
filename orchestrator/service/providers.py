"""The area of resource providers: which there are, their types and api-versions, and registering them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from orchestrator.record.resources import Resource
from orchestrator.service import azure
from orchestrator.service.context import Context
from orchestrator.service.envelope import ArmError
from orchestrator.service.paths import ArmRoute
from orchestrator.template.schema import tables

REGISTRATION = "Microsoft.Resources/providers"
_PLACE = "/subscriptions/{subscription}/providers"
_WITHOUT_REGION = frozenset({"operations", "locations", "locations/operations"})


def routes(context: Context) -> list[BaseRoute]:
    """`/providers` of a subscription and of the tenant."""
    area = _Area(context)
    return [
        ArmRoute(_PLACE, area.listed, methods=["GET"]),
        ArmRoute(f"{_PLACE}/{{namespace}}", area.get, methods=["GET"]),
        ArmRoute(f"{_PLACE}/{{namespace}}/register", area.register, methods=["POST"]),
        ArmRoute(f"{_PLACE}/{{namespace}}/unregister", area.unregister, methods=["POST"]),
        ArmRoute("/providers", area.of_tenant, methods=["GET"]),
        ArmRoute("/providers/{namespace}", area.one_of_tenant, methods=["GET"]),
        ArmRoute("/providers/{namespace}/operations", area.operations, methods=["GET"]),
    ]


def form(context: Context, subscription: str, namespace: str) -> dict[str, Any]:
    """A provider in ARM's form; `ArmError` 404. Every one is registered until a client unregisters it."""
    known = azure.namespace_of(namespace)
    types = azure.providers().get(known)
    if types is None:
        raise ArmError(404, "InvalidResourceNamespace", f"The resource namespace '{namespace[:100]}' is invalid.")
    kept = context.store.get(f"/subscriptions/{subscription}/providers/{known}") if subscription else None
    state = str(kept.properties.get("registrationState")) if kept is not None else "Registered"
    return {
        "id": f"/subscriptions/{subscription}/providers/{known}" if subscription else f"/providers/{known}",
        "namespace": known,
        "registrationPolicy": "RegistrationRequired",
        "registrationState": state,
        "resourceTypes": [_type(known, kind, versions) for kind, versions in types.items()],
    }


def type_form(namespace: str, kind: str) -> dict[str, Any] | None:
    """One resource type as its provider lists it, or None."""
    known = azure.namespace_of(namespace)
    for name, versions in azure.providers().get(known, {}).items():
        if name.lower() == kind.lower():
            return _type(known, name, versions)
    return None


def _type(namespace: str, kind: str, versions: tuple[str, ...]) -> dict[str, Any]:
    regions = [name for name in azure.regions() if namespace != azure.IMAGE_BUILDER or name in tables.regions()]
    placed = kind not in _WITHOUT_REGION and namespace not in ("Microsoft.Resources", "Microsoft.Authorization")
    return {
        "resourceType": kind,
        "locations": [azure.regions()[name][0] for name in regions] if placed else [],
        "apiVersions": list(versions),
        "capabilities": "SupportsTags, SupportsLocation" if placed else "None",
    }


class _Area:
    def __init__(self, context: Context) -> None:
        self._context = context

    def listed(self, request: Request) -> Response:
        subscription = self._context.subscription(request)
        return JSONResponse({"value": [form(self._context, subscription, each) for each in azure.providers()]})

    def get(self, request: Request) -> Response:
        subscription = self._context.subscription(request)
        return JSONResponse(form(self._context, subscription, request.path_params["namespace"]))

    def register(self, request: Request) -> Response:
        return self._set(request, "Registered")

    def unregister(self, request: Request) -> Response:
        return self._set(request, "Unregistered")

    def of_tenant(self, _: Request) -> Response:
        return JSONResponse({"value": [form(self._context, "", each) for each in azure.providers()]})

    def one_of_tenant(self, request: Request) -> Response:
        return JSONResponse(form(self._context, "", request.path_params["namespace"]))

    def operations(self, request: Request) -> Response:
        """What can be done with each type; `az provider operation` and the SDK's `operations.list`."""
        namespace = form(self._context, "", request.path_params["namespace"])["namespace"]
        found = []
        for kind in azure.providers()[namespace]:
            if kind in _WITHOUT_REGION:
                continue
            found += [_operation(namespace, kind, verb) for verb in ("read", "write", "delete")]
        return JSONResponse({"value": found})

    def _set(self, request: Request, state: str) -> Response:
        subscription = self._context.subscription(request)
        shown = form(self._context, subscription, request.path_params["namespace"])
        namespace = shown["namespace"]
        record = Resource(shown["id"], REGISTRATION, namespace)
        self._context.store.put(replace(record, properties={"registrationState": state}))
        return JSONResponse(form(self._context, subscription, namespace))


def _operation(namespace: str, kind: str, verb: str) -> dict[str, Any]:
    return {
        "name": f"{namespace}/{kind}/{verb}",
        "isDataAction": False,
        "display": {"provider": namespace, "resource": kind, "operation": f"{verb} {kind}", "description": ""},
        "origin": "user,system",
    }
