"""The area of operations: the two addresses that a client polls, the same for all providers."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from orchestrator.service.context import Context
from orchestrator.service.envelope import ArmError
from orchestrator.service.operations import Operation
from orchestrator.service.paths import ArmRoute

_PLACE = "/subscriptions/{subscription}/providers/{provider}/locations/{location}"


def routes(context: Context) -> list[BaseRoute]:
    """`.../operations/{id}` (Azure-AsyncOperation) and `.../operationResults/{id}` (Location)."""

    def found(request: Request) -> Operation:
        operation = context.operations.get(request.path_params["operation"])
        subscription = context.subscription(request)
        if operation is None or operation.subscription.lower() != subscription.lower():
            raise ArmError(404, "OperationNotFound", f"There is no operation '{request.path_params['operation']}'.")
        return operation

    def status(request: Request) -> Response:
        return context.operations.status_response(found(request))

    def result(request: Request) -> Response:
        return context.operations.result_response(request, found(request))

    return [
        ArmRoute(f"{_PLACE}/operations/{{operation}}", status, methods=["GET"]),
        ArmRoute(f"{_PLACE}/operationResults/{{operation}}", result, methods=["GET"]),
    ]
