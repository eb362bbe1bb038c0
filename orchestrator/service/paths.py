"""The front door: what every request passes before a route sees it, and how every refusal leaves.

For ARM's paths (`/subscriptions`, `/providers`, `/tenants`) it collapses `//`, asks for a token and an api-version, and
reads the body within limits; handlers find `caller`, `api_version` and `body` in `request.state`. Our own paths
(`/_aib`) need a token where the server has a secret, but for `OPEN`, and are not for the scripts of other web pages.
Everywhere `..`, backslashes, control characters and encoded separators are refused.
"""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import Mapping
from urllib.parse import parse_qsl, quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hypervisor.errors import AibError
from orchestrator.service.context import Context
from orchestrator.service.entra import TENANT, BadToken, Caller
from orchestrator.service.envelope import ArmError, of_ours
from orchestrator.service.faults import report_fault

ARM = frozenset({"subscriptions", "providers", "tenants"})
"""First segments, in lower case, of the paths that are ARM's."""
OURS = "_aib"
OPEN = {("_aib", "health"), ("_aib", "openapi.json")}
LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})
LONGEST_PATH = 2048
KNOWN_SECONDS = 30.0
"""So long a token that was checked is not checked again: a signature costs more than reading a resource."""
MOST_KNOWN = 256
_VERSION = re.compile(r"\d{4}-\d{2}-\d{2}(-[A-Za-z0-9]+)*")
_BAD_SEGMENT = re.compile(r"[\\%\x00-\x1f\x7f-\x9f\ufffd]")
_ENCODED_SEPARATOR = re.compile(rb"%(2f|5c|00)", re.IGNORECASE)
_OURS = ("x-ms-request-id", "x-ms-correlation-request-id")


class ArmRoute(Route):
    """A route whose path is matched without regard to case, as ARM does; path parameters keep the client's spelling."""

    def __init__(self, path: str, endpoint: object, *, methods: list[str]) -> None:
        super().__init__(path, endpoint, methods=methods)  # type: ignore[arg-type]
        self.path_regex = re.compile(self.path_regex.pattern, re.IGNORECASE)
        # Starlette adds HEAD to GET; ARM asks by HEAD in few places, which say so.
        self.methods = {method.upper() for method in methods}


class FrontDoor:
    """The middleware."""

    def __init__(self, app: ASGIApp, context: Context) -> None:
        self._app = app
        self._context = context
        self._settings = context.settings
        self._known: dict[str, tuple[Caller, float]] = {}
        self._hosts = LOOPBACK_NAMES | {host.lower() for host in context.settings.hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, which always gets an answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False
        ids = _ids(Headers(scope=scope))

        async def sending(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                _add_headers(MutableHeaders(scope=message), ids)
            await send(message)

        try:
            receive = await self._enter(scope, receive)
            await self._app(scope, receive, sending)
        except ArmError as error:
            await error.response()(scope, receive, sending)
        except AibError as error:
            await of_ours(error).response()(scope, receive, sending)
        except Exception as error:
            place = report_fault(self._settings.home, error)
            if begun:
                raise
            message = f"aib failed unexpectedly ({type(error).__name__}); please report {place}"
            await ArmError(500, "InternalServerError", message).response()(scope, receive, sending)

    async def _enter(self, scope: Scope, receive: Receive) -> Receive:
        headers = Headers(scope=scope)
        host = headers.get("host", "").lower()
        if re.sub(r":\d+$", "", host) not in self._hosts:
            raise ArmError(400, "InvalidHostName", f"This server is not called '{host[:100]}'.")
        path, raw = scope["path"], scope.get("raw_path") or b""
        if len(path) > LONGEST_PATH or len(raw) > LONGEST_PATH * 3:
            raise ArmError(414, "RequestUriTooLong", f"The path is longer than {LONGEST_PATH} characters.")
        segments = [part for part in path.split("/") if part]
        tricky = any(part.strip(". ") == "" or _BAD_SEGMENT.search(part) for part in segments)
        if tricky or _ENCODED_SEPARATOR.search(raw):
            raise ArmError(400, "InvalidRequestUri", "The path holds a segment that no resource can have.")
        if segments[:1] == [OURS]:
            self._check_ours(headers, scope, tuple(segments))
        if not segments or segments[0].lower() not in ARM:
            return receive
        state = scope.setdefault("state", {})
        state["caller"] = self._caller(headers, scope)
        scope["path"] = "/" + "/".join(segments)
        scope["raw_path"] = quote(scope["path"]).encode()
        state["api_version"] = _api_version(scope)
        state["body"] = body = await self._body(headers, receive)
        return _replayed(body, receive)

    def _check_ours(self, headers: Headers, scope: Scope, segments: tuple[str, ...]) -> None:
        if "origin" in headers and headers["origin"] != _origin(headers, scope):
            raise ArmError(403, "Forbidden", "This is not for other web pages.")
        if self._settings.secret is not None and segments not in OPEN:
            self._caller(headers, scope)

    def _caller(self, headers: Headers, scope: Scope) -> Caller:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        challenge = {"WWW-Authenticate": f'Bearer authorization_uri="{_origin(headers, scope)}/{TENANT}"'}
        if scheme.lower() != "bearer" or not token:
            message = "Authentication failed. The 'Authorization' header is missing or is no bearer token."
            raise ArmError(401, "AuthenticationFailed", message, headers=challenge)
        known = self._known.get(token)
        if known is not None and known[1] > time.monotonic():
            return known[0]
        try:
            caller = self._context.entra.caller(token.strip())
        except BadToken as error:
            raise ArmError(401, "InvalidAuthenticationToken", f"{error}.", headers=challenge) from None
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        self._known[token] = caller, time.monotonic() + KNOWN_SECONDS
        return caller

    async def _body(self, headers: Headers, receive: Receive) -> bytes:
        limit = self._settings.largest_body
        announced = headers.get("content-length", "")
        too_large = ArmError(
            413, "RequestContentTooLarge", f"The request content size exceeds the maximum size of {limit} bytes."
        )
        if announced.isdigit() and int(announced[:20]) > limit:
            raise too_large
        body = b""
        try:
            async with asyncio.timeout(self._settings.body_seconds):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ArmError(400, "InvalidRequestContent", "The client has gone.")
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
                    if len(body) > limit:
                        raise too_large
        except TimeoutError:
            raise ArmError(408, "RequestTimeout", "The request content did not come in time.") from None
        return body


async def refuse_unrouted(_: object, error: Exception) -> object:
    """The handler of Starlette's own 404 and 405."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    if status == 405:
        return ArmError(405, "MethodNotAllowed", "The requested resource does not support this method.").response()
    return ArmError(status, "NotFound", "There is nothing at this path.").response()


def _origin(headers: Headers, scope: Scope) -> str:
    return f"{scope.get('scheme', 'http')}://{headers.get('host', '')}"


def _api_version(scope: Scope) -> str:
    query = parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
    given = [value for name, value in query if name.lower() == "api-version"]
    if not given or not given[-1]:
        message = "The api-version query parameter (?api-version=) is required for all requests."
        raise ArmError(400, "MissingApiVersionParameter", message)
    version: str = given[-1].lower()
    if not _VERSION.fullmatch(version):
        raise ArmError(400, "InvalidApiVersionParameter", f"The api-version '{version[:60]}' is invalid.")
    return version


def _replayed(body: bytes, receive: Receive) -> Receive:
    """`receive` for whoever reads the body again, and then waits for the client to go."""
    sent = False

    async def again() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _ids(headers: Headers) -> Mapping[str, str]:
    made = str(uuid.uuid4())
    given = headers.get("x-ms-correlation-request-id", "")
    ids = {"x-ms-request-id": made, "x-ms-correlation-request-id": given if _is_guid(given) else made}
    client = headers.get("x-ms-client-request-id", "")
    if headers.get("x-ms-return-client-request-id", "").lower() == "true" and _is_guid(client):
        ids["x-ms-client-request-id"] = client
    return ids


def _is_guid(text: str) -> bool:
    return re.fullmatch(r"[0-9A-Fa-f-]{36}", text) is not None


def _add_headers(headers: MutableHeaders, ids: Mapping[str, str]) -> None:
    for name, value in ids.items():
        headers.setdefault(name, value)
    headers.setdefault("Cache-Control", "no-cache")
    headers.setdefault("X-Content-Type-Options", "nosniff")
