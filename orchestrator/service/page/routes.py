"""The web page: runs, one run with its live log, downloads. Server-rendered; nothing comes from another address."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path

import jinja2
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from hypervisor.errors import InputError, UsageError
from orchestrator.build.control import ask
from orchestrator.record.runs import RunFolder
from orchestrator.record.store import Store
from orchestrator.service.page.shown import downloadable, newest_runs, run_shown
from orchestrator.service.page.tail import follow, log_end
from orchestrator.verbs.runs import find_run

HERE = Path(__file__).parent / "html"
ASSETS = {"page.css": "text/css", "live.js": "text/javascript"}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Page:
    """The page over one store. `routes` go into the server's table."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pages = jinja2.Environment(
            loader=jinja2.FileSystemLoader(HERE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
        )

    @property
    def routes(self) -> list[Route]:
        """All paths of the page, below /ui."""
        return [
            Route("/", self._start, methods=["GET"]),
            Route("/ui", self._runs, methods=["GET"]),
            Route("/ui/assets/{name}", self._asset, methods=["GET"]),
            Route("/ui/runs/{run}", self._run, methods=["GET"]),
            Route("/ui/runs/{run}/live", self._live, methods=["GET"]),
            Route("/ui/runs/{run}/screen.png", self._screen, methods=["GET"]),
            Route("/ui/runs/{run}/files/{path:path}", self._file, methods=["GET"]),
        ]

    def _render(self, name: str, status: int = 200, **values: object) -> Response:
        return HTMLResponse(self._pages.get_template(name).render(**values), status, headers=HEADERS)

    def _missing(self, what: str) -> Response:
        return self._render("missing.html", 404, what=what)

    def _folder(self, request: Request) -> RunFolder | None:
        try:
            return find_run(self._store, request.path_params["run"])
        except UsageError:
            return None

    async def _start(self, _: Request) -> Response:
        return RedirectResponse("/ui")

    def _runs(self, _: Request) -> Response:
        runs, total = newest_runs(self._store)
        return self._render("runs.html", runs=runs, total=total)

    def _run(self, request: Request) -> Response:
        folder = self._folder(request)
        if folder is None:
            return self._missing(f"There is no run {request.path_params['run']}.")
        # The log first: what it lacks then comes by the live stream, while a step shown too late comes again anyway.
        end = log_end(folder.customization_log)
        return self._render("run.html", log=end, run=run_shown(folder))

    async def _live(self, request: Request) -> Response:
        folder = self._folder(request)
        asked = request.headers.get("last-event-id") or request.query_params.get("from", "0")
        if folder is None or not asked.isdecimal():
            return self._missing("There is nothing to follow here.")
        template = self._pages.get_template("state.html")

        def fragment() -> str:
            return template.render(run=run_shown(folder))

        events: AsyncIterator[bytes] = follow(folder, int(asked), fragment=fragment, gone=request.is_disconnected)
        return StreamingResponse(events, media_type="text/event-stream", headers=HEADERS)

    def _screen(self, request: Request) -> Response:
        """What the build VM shows at this moment."""
        folder = self._folder(request)
        try:
            png = ask(folder.path, {"do": "screenshot"}).get("png", "") if folder else ""
        except InputError:
            png = ""
        if not png:
            return self._missing("There is no build VM to look at now.")
        return Response(base64.b64decode(png), media_type="image/png", headers=HEADERS)

    def _file(self, request: Request) -> Response:
        folder, path = self._folder(request), request.path_params["path"]
        found = downloadable(folder, path) if folder else None
        if found is None:
            return self._missing(f"There is no file {path}.")
        kind = "text/plain; charset=utf-8" if found.suffix in (".log", ".json") else "application/octet-stream"
        name = None if found.suffix in (".log", ".json") else found.name
        return FileResponse(found, media_type=kind, filename=name, headers=HEADERS)

    def _asset(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in ASSETS:
            return self._missing(f"There is no {name}.")
        return FileResponse(HERE / name, media_type=ASSETS[name], headers={**HEADERS, "Cache-Control": "max-age=60"})
