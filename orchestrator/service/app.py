"""The server: areas put together behind one front door.

An area is a module with `routes(context: Context) -> list[BaseRoute]`; name it in `AREAS`, the most general last. A
handler is an ordinary function (it runs in a thread, so it may wait for the store) or a coroutine. It:

- is routed by `ArmRoute(path, handler, methods=[...])`, in any case of letters, with `{subscription}` and `{group}`;
- asks `context.scope(request)` (or `.subscription`) first, which refuses what is not there with ARM's 404;
- reads JSON by `bodies.read_object(request)`; finds `request.state.caller`, `.api_version`, `.body`;
- raises `ArmError`; an `AibError` becomes 400 or 503, anything else a 500 with its traceback in a file;
- lists by `paging.page`, and answers what takes time by `context.operations` (see there).

State is the store's (`context.store`): an area keeps `Resource`s, and nothing of its own between requests.
`on_start` functions of areas are called once, before the first request.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import AsyncIterator, Callable, Iterable

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import BaseRoute

from orchestrator.record.store import Store
from orchestrator.service.context import Context
from orchestrator.service.entra import Entra
from orchestrator.service.operations import Operations
from orchestrator.service.paths import FrontDoor, refuse_unrouted
from orchestrator.service.runs.runner import DetachedRunner, Runner, ScriptedRunner
from orchestrator.service.runs.runs import Runs
from orchestrator.service.settings import Settings

AREAS = (
    "health", "ui", "openapi", "scripts", "polls", "templates.area", "templates.outputs", "templates.triggers",
    "blobs", "subscriptions", "groups", "listing", "providers", "compute", "graph", "deployments.area",
    "resources.area",
)  # fmt: skip
"""Modules of `orchestrator.service`, in the order in which their routes are tried."""


def make_context(settings: Settings) -> Context:
    """What the areas of a server share; raises `HostError` when the home cannot be used."""
    store = Store(settings.home)
    operations = Operations(settings.home / "service" / "operations", settings.retry_after)
    entra = Entra(settings.secret, settings.token_key or settings.home / "service" / "entra.pem")
    runner: Runner = ScriptedRunner(store) if settings.scripted else DetachedRunner()
    runs = Runs(settings, store, operations, runner)
    operations.judge = runs.judge
    return Context(settings, store, entra, operations, runs)


def create_app(settings: Settings, more: Callable[[Context], Iterable[BaseRoute]] = lambda _: ()) -> Starlette:
    """The ASGI application of one server, with `more` routes before those of the areas.

    A home may have one server at a time: whoever listens sees to that.
    """
    context = make_context(settings)
    modules = [importlib.import_module(f"orchestrator.service.{name}") for name in AREAS]
    routes: list[BaseRoute] = [*context.entra.routes, *more(context)]
    for module in modules:
        routes += module.routes(context)
    starting: list[Callable[[Context], None]] = [m.on_start for m in modules if hasattr(m, "on_start")]
    stopping: list[Callable[[Context], None]] = [m.on_stop for m in modules if hasattr(m, "on_stop")]

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        for start in starting:
            await run_in_threadpool(start, context)
        try:
            yield
        finally:
            for stop in stopping:
                await run_in_threadpool(stop, context)
            await run_in_threadpool(context.operations.close)

    app = Starlette(
        routes=routes,
        middleware=[Middleware(FrontDoor, context)],
        exception_handlers={HTTPException: refuse_unrouted},  # type: ignore[dict-item]
        lifespan=lifespan,
    )
    app.state.context = context
    return app
