"""The area of the server itself: is it there, what is it; and, of a throw-away one, forget everything."""

from __future__ import annotations

import os
from importlib.metadata import version

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from hypervisor.deadline import Deadline
from orchestrator.build.scripted import Scripts
from orchestrator.service.context import Context
from orchestrator.service.envelope import ArmError

RESET_SECONDS = 30.0


def routes(context: Context) -> list[BaseRoute]:
    """`/_aib/health` and `/_aib/reset`."""
    settings, release = context.settings, version("aib")

    def health(_: Request) -> Response:
        return JSONResponse(
            {
                "status": "ok",
                "version": release,
                "pid": os.getpid(),
                "inMemory": settings.in_memory,
                "scripted": settings.scripted,
                "subscription": settings.subscriptions[0],
            }
        )

    def reset(_: Request) -> Response:
        """End all runs, forget all resources and scripts; a store that is to be kept is never emptied in this way."""
        if not settings.in_memory:
            raise ArmError(409, "NotInMemory", "Only a server that was started with --in-memory can be reset.")
        living = [run for run in context.store.runs() if run.alive()]
        for run in living:
            context.runs.ask_to_stop(run.id)
        limit = Deadline.after(RESET_SECONDS, "the time in which all runs must end")
        limit.wait_until(lambda: not any(run.alive() for run in living), "ending the runs", interval=0.02)
        for resource in reversed(context.store.list()):
            context.store.delete(resource.id)
        Scripts(settings.home).clear()
        return Response(status_code=204)

    return [
        Route("/_aib/health", health, methods=["GET"]),
        Route("/_aib/reset", reset, methods=["POST"]),
    ]
