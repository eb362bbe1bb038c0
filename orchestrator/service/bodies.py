"""Reading what clients send: JSON within limits. The front door has read and bounded the bytes already."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from starlette.requests import Request

from orchestrator.service.envelope import ArmError


def raw(request: Request) -> bytes:
    """The body's bytes, which `FrontDoor` has read; empty when there was none."""
    body: bytes = request.state.body
    return body


def read_object(request: Request) -> dict[str, Any]:
    """The body as a JSON object; raises `ArmError` 400 for everything else."""
    value = loads(raw(request))
    if not isinstance(value, dict):
        raise invalid("a JSON object is expected")
    return value


def loads(data: bytes) -> Any:
    """Strict JSON in UTF-8 (a BOM is passed over); raises `ArmError` 400 and says where it is wrong."""
    if not data.strip():
        raise invalid("the body is empty")
    try:
        value = json.loads(data.decode("utf-8-sig"), parse_constant=_no_constant)
        json.dumps(value, ensure_ascii=False).encode()  # a lone surrogate can be read, but written nowhere
    except RecursionError:
        raise invalid("it is nested too deeply") from None
    except ValueError as error:
        raise invalid(str(error)) from None
    return value


def invalid(why: str) -> ArmError:
    """400 InvalidRequestContent, as ARM says it."""
    return ArmError(
        400, "InvalidRequestContent", f"The request content was invalid and could not be deserialized: '{why}'."
    )


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
