"""`aib serve --requests`: one line for each request, to see what a client asks."""

from __future__ import annotations

import time
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send


def showing(app: ASGIApp, show: Callable[[str], None]) -> ASGIApp:
    """`app`, with a line for each of its answers: time, method, path, status, milliseconds. No query: it may sign."""

    async def shown(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        begun, asked = time.perf_counter(), f"{scope['method']} {scope['path']!r}"

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                spent = (time.perf_counter() - begun) * 1000
                show(f"{time.strftime('%H:%M:%S')} {asked} -> {message['status']} {spent:.0f} ms")
            await send(message)

        await app(scope, receive, sending)

    return shown
