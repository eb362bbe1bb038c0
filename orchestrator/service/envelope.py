"""Errors as ARM words them: `raise ArmError(...)` anywhere below a route, and the client gets the envelope.

Until api-version 2020-02-14 the image builder's own errors were flat (`{"code", "message"}`); ARM's never were.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import JSONResponse, Response

from hypervisor.errors import AibError, HostError

ENVELOPE_SINCE = "2021-10-01"
"""The image builder's api-version from which its errors have ARM's envelope (NOTES)."""


class ArmError(Exception):
    """A request that is refused: HTTP status, ARM's code and message, and where (`target`) when that is one place.

    `details` are further errors of the same shape. `provider_version`: the api-version of the image builder when the
    error is its own, which then decides the envelope.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        target: str = "",
        details: Sequence[Mapping[str, Any]] = (),
        headers: Mapping[str, str] | None = None,
        provider_version: str = "",
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.target = target
        self.details = tuple(details)
        self.headers = dict(headers or {})
        self.provider_version = provider_version
        self.additional: Sequence[Mapping[str, Any]] = ()
        """`additionalInfo`, where a template is wrong: the place."""

    def error(self) -> dict[str, Any]:
        """`{"code", "message"}` and, where there is one, `target` and `details`: also for the body of an operation."""
        more: dict[str, Any] = {"target": self.target} if self.target else {}
        if self.details:
            more["details"] = list(self.details)
        if self.additional:
            more["additionalInfo"] = list(self.additional)
        return {"code": self.code, "message": self.message, **more}

    def body(self) -> dict[str, Any]:
        """The body of the answer."""
        flat = self.provider_version and self.provider_version < ENVELOPE_SINCE
        return self.error() if flat else {"error": self.error()}

    def response(self) -> Response:
        """The answer."""
        return JSONResponse(self.body(), self.status, headers=self.headers)


def of_ours(error: AibError) -> ArmError:
    """What a client is told of an error of the tree: 503 where this machine cannot, else 400."""
    message = f"{error.message} ({error.hint})" if error.hint else error.message
    if isinstance(error, HostError):
        return ArmError(503, "ServiceUnavailable", message)
    return ArmError(400, "BadRequest", message)


def subscription_not_found(subscription: str) -> ArmError:
    """404, as ARM says it."""
    return ArmError(404, "SubscriptionNotFound", f"The subscription '{subscription}' could not be found.")


def group_not_found(group: str) -> ArmError:
    """404, as ARM says it."""
    return ArmError(404, "ResourceGroupNotFound", f"Resource group '{group}' could not be found.")


def resource_not_found(type: str, name: str, group: str) -> ArmError:
    """404, as ARM says it; `type` with its provider, `name` as in the path (`parent/child`)."""
    return ArmError(
        404,
        "ResourceNotFound",
        f"The Resource '{type}/{name}' under resource group '{group}' was not found. "
        "For more details please go to https://aka.ms/ARMResourceNotFoundFix",
    )
