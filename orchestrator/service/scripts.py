"""The area of scripted runs: what a test of a client wants to happen (`aib serve --scripted`, the pytest plugin).

PUT /_aib/scripts/{template} ("*": every other) with a script; GET /_aib/scripts; DELETE /_aib/scripts.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from hypervisor.errors import AibError
from orchestrator.build.scripted import Script, Scripts
from orchestrator.service import bodies
from orchestrator.service.context import Context
from orchestrator.service.envelope import ArmError

LONGEST_SCRIPT = 1 << 20


def routes(context: Context) -> list[BaseRoute]:
    """The routes; none where runs are real."""
    if not context.settings.scripted:
        return []
    scripts = Scripts(context.settings.home)

    def shown(_: Request) -> Response:
        return JSONResponse(scripts.all())

    def clear(_: Request) -> Response:
        scripts.clear()
        return Response(status_code=204)

    async def put(request: Request) -> Response:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > LONGEST_SCRIPT:
                raise ArmError(413, "RequestContentTooLarge", f"A script has at most {LONGEST_SCRIPT} bytes.")
        value = bodies.loads(body)
        if not isinstance(value, dict):
            raise bodies.invalid("a JSON object is expected")
        try:
            script = Script.from_json(value)
        except AibError as error:
            raise ArmError(400, "InvalidScript", " ".join(filter(None, (error.message, error.hint)))) from None
        scripts.put(request.path_params["template"], script)
        return JSONResponse(script.to_json())

    return [
        Route("/_aib/scripts", shown, methods=["GET"]),
        Route("/_aib/scripts", clear, methods=["DELETE"]),
        Route("/_aib/scripts/{template}", put, methods=["PUT"]),
    ]
