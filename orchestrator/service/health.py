"""The area of the server itself: is it there, what is it, and (of a throw-away one) forget everything."""

from __future__ import annotations

import os
from importlib.metadata import version

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from orchestrator.service.context import Context


def routes(context: Context) -> list[BaseRoute]:
    """`/_aib/health`, which needs no token."""
    settings = context.settings

    def health(_: Request) -> Response:
        return JSONResponse(
            {
                "status": "ok",
                "version": version("aib"),
                "pid": os.getpid(),
                "inMemory": settings.in_memory,
                "scripted": settings.scripted,
                "subscription": settings.subscriptions[0],
            }
        )

    return [Route("/_aib/health", health, methods=["GET"])]
