"""Lists in pages: `{"value": [...], "nextLink": "..."}`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from orchestrator.service.entra import origin
from orchestrator.service.envelope import ArmError

SKIP = "$skipToken"
T = TypeVar("T")


def page(
    request: Request, items: Sequence[T], size: int, form: Callable[[T], Any], *, key: Callable[[T], str]
) -> Response:
    """One page of `items`, which are in the order of `key`: from the first whose key is at least the page's token.

    Only what is on the page is turned into its `form`. What is made or removed between two pages shifts none of them.
    """
    query = parse_qsl(request.url.query, keep_blank_values=True)
    tokens = [value for name, value in query if name.lower() == SKIP.lower()]
    tops = [value for name, value in query if name.lower() == "$top"]
    if tops:
        if not (tops[-1].isascii() and tops[-1].isdigit() and int(tops[-1][:9]) > 0):
            raise ArmError(400, "InvalidQueryParameter", "The value of $top must be a positive number.")
        size = min(size, int(tops[-1][:9]))
    start = next((n for n, item in enumerate(items) if key(item) >= tokens[-1]), len(items)) if tokens else 0
    body: dict[str, Any] = {"value": [form(item) for item in items[start : start + size]]}
    if start + size < len(items) and not tops:
        rest = [(name, value) for name, value in query if name.lower() != SKIP.lower()]
        following = urlencode([*rest, (SKIP, key(items[start + size]))])
        body["nextLink"] = f"{origin(request)}{request.url.path}?{following}"
    return JSONResponse(body)
