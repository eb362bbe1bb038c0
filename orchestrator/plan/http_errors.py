"""What can go wrong when something is fetched: every cause has its class, all are wrong inputs (exit code 4)."""

from __future__ import annotations

import re

from hypervisor.errors import InputError

_SECRET_PARAMETER = re.compile(
    r"(?i)\b(sig|signature|x-amz-signature|access_token|token|code|key|password|accountkey|sharedaccesskey)(=|%3d)[^&\s'\"<>]+"
)
_USER_INFO = re.compile(r"(?i)(\b[a-z][a-z0-9+.-]*://)[^/@\s'\"]+@")
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}")


def redact_url(text: str) -> str:
    """`text` (a URL, or a message that holds some) without signatures, passwords and tokens."""
    text = _SECRET_PARAMETER.sub(r"\1\2<redacted>", text)
    text = _USER_INFO.sub(r"\1<redacted>@", text)
    return _BEARER.sub(r"\1 <redacted>", text)


class FetchError(InputError):
    """A URI could not be fetched; `url` and the message are redacted."""

    def __init__(self, url: str, problem: str, *, hint: str = "") -> None:
        self.url = redact_url(url)
        self.problem = redact_url(problem)
        super().__init__(f"cannot fetch {self.url}: {self.problem}", hint=redact_url(hint))


class NotFound(FetchError):
    """404 or 410: nothing is there."""


class NotAuthorized(FetchError):
    """401 or 403: the server wants other credentials."""


class BadStatus(FetchError):
    """The server answered with another status than 200; `status` holds it."""

    def __init__(self, url: str, problem: str, *, status: int, hint: str = "") -> None:
        super().__init__(url, problem, hint=hint)
        self.status = status


class ConnectionRefused(FetchError):
    """Nothing listens there."""


class UnknownHost(FetchError):
    """The name does not resolve."""


class TlsFailed(FetchError):
    """The server's certificate or its TLS is not acceptable."""


class Unreachable(FetchError):
    """The connection could not be made or broke for another reason."""


class TooSlow(FetchError):
    """No byte came for too long, or the whole took too long."""


class TooLarge(FetchError):
    """More bytes than the limit."""


class Truncated(FetchError):
    """The connection ended before everything had come."""


class BadRedirect(FetchError):
    """Too many redirects, or one that leads where we do not follow."""


class BadAddress(FetchError):
    """Not an http(s) URL with a host."""


class ChecksumMismatch(InputError):
    """What was fetched is not what was expected."""

    def __init__(self, what: str, algorithm: str, expected: str, actual: str, *, hint: str = "") -> None:
        super().__init__(
            f"wrong checksum of {redact_url(what)}\n  expected {algorithm} {expected}\n  found    {algorithm} {actual}",
            hint=hint or "The file changed, or the checksum belongs to another one.",
        )
        self.expected, self.actual = expected, actual
