"""The area of the web page. Where others reach the server, a browser asks for its token (as the password)."""

from __future__ import annotations

import base64
import hmac

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from orchestrator.service.context import Context
from orchestrator.service.page.routes import Page

CHALLENGE = {"WWW-Authenticate": 'Basic realm="aib: any name, the token as password", charset="UTF-8"'}


class _Guarded(Route):
    """A route that only those see who know the secret."""

    def __init__(self, route: Route, secret: str) -> None:
        super().__init__(route.path, route.endpoint, methods=["GET"])
        self._secret = secret.encode()

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or ask who it is."""
        if hmac.compare_digest(_password(Headers(scope=scope)), self._secret):
            await super().handle(scope, receive, send)
        else:
            await PlainTextResponse("The token of this server is needed.\n", 401, CHALLENGE)(scope, receive, send)


def _password(headers: Headers) -> bytes:
    scheme, _, given = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return b""
    try:
        return base64.b64decode(given, validate=True).partition(b":")[2]
    except ValueError:
        return b""


def routes(context: Context) -> list[BaseRoute]:
    """The page's routes."""
    page, secret = Page(context.store).routes, context.settings.secret
    return [_Guarded(route, secret) for route in page] if secret else [*page]
