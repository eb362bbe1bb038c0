"""One attempt to fetch: follow redirects ourselves, stream the body within limits, name what went wrong."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urljoin, urlsplit

import requests
import requests.utils
from urllib3.exceptions import HTTPError as TransportError
from urllib3.exceptions import IncompleteRead, NameResolutionError, NewConnectionError, ReadTimeoutError

from hypervisor.deadline import Deadline
from orchestrator.plan import http_errors as errors
from orchestrator.plan import http_guard
from orchestrator.plan.http_errors import FetchError, redact_url
from orchestrator.plan.interruptible import abandonable, shut_down_on_cancel

CHUNK = 256 << 10
_REDIRECTS = {301, 302, 303, 307, 308}
_QUOTED = 300
"""Bytes of a refusal's body that are worth showing (Azure puts its error code there)."""

Progress = Callable[[int, int | None], None]
"""(bytes so far, total where the server said it)."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much and how long. Sizes in bytes, times in seconds; `silence` is the longest wait for the next byte."""

    size: int = 64 << 20
    redirects: int = 5
    connect: float = 10.0
    silence: float = 20.0
    total: float = 600.0
    attempts: int = 4
    backoff: float = 0.5
    public_only: bool = False
    """Speak to no address of this machine or of a private network, whatever a name or a redirect leads to."""


@dataclass(frozen=True, slots=True)
class Request:
    """One thing to fetch. `headers` (credentials) go to the first host only; `deadline` includes `limits.total`."""

    url: str
    deadline: Deadline
    limits: Limits = field(default_factory=Limits)
    headers: Mapping[str, str] = field(default_factory=dict)
    progress: Progress | None = None

    def check(self) -> None:
        """Raise `TooSlow` when the time for this file is over, or as the caller's deadline says."""
        if self.deadline.token.cancelled:
            self.deadline.check(f"fetching {redact_url(self.url)}")
        if self.deadline.over:
            raise errors.TooSlow(self.url, f"{self.deadline.what} is used up", hint="Is the server overloaded?")


class _Session(requests.Session):
    """Sends one request and leaves redirects to us: requests would read a redirect's whole body, however long."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        """None: nothing to follow."""


@contextmanager
def opened(request: Request, headers: Mapping[str, str]) -> Iterator[requests.Response]:
    """The final answer (200; 206 and 416 only when a range was asked for), its body not yet read."""
    url, sent = request.url, {**request.headers, **headers}
    with _Session() as session:
        # Not from the environment: ~/.netrc would send passwords that nobody mapped. Proxies are chosen below.
        session.trust_env = False
        if request.limits.public_only:
            http_guard.guard(session)
        for _ in range(request.limits.redirects + 1):
            request.check()
            _check_address(url)
            response = _send(session, url, sent, request)
            try:
                if response.status_code not in _REDIRECTS:
                    _check_status(response, url, request, ranged="Range" in headers)
                    with shut_down_on_cancel(response.raw, request.deadline.token):
                        yield response
                    return
                following = _following(url, response.headers.get("Location", ""))
                _check_redirect(url, following)
                if _host(following) != _host(url):
                    sent = dict(headers)
                url = following
            finally:
                response.close()
    raise errors.BadRedirect(request.url, f"more than {request.limits.redirects} redirects (last to {redact_url(url)})")


def _check_address(url: str) -> None:
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 80) > 0
    except ValueError:
        good = False
    if not good:
        raise errors.BadAddress(url, "this is not an http(s) address")


def _host(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.rpartition("@")[2].lower()


def _following(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError as error:
        raise errors.BadRedirect(url, f"it redirects to {redact_url(location)}, which is no address") from error


def _check_redirect(url: str, following: str) -> None:
    try:
        _check_address(following)
    except errors.BadAddress as error:
        raise errors.BadRedirect(url, f"it redirects to {error.url}, which is no http(s) address") from error
    if url.lower().startswith("https:") and not following.lower().startswith("https:"):
        raise errors.BadRedirect(url, f"it redirects from https to {redact_url(following)}")


def _send(session: requests.Session, url: str, headers: Mapping[str, str], request: Request) -> requests.Response:
    left = max(0.05, request.deadline.remaining())
    limits = request.limits
    proxies = _proxies(url)

    def send() -> requests.Response:
        if limits.public_only:
            http_guard.check_public(url, proxied=bool(proxies))
        return session.get(
            url,
            headers={"Accept-Encoding": "identity", "User-Agent": "aib", **headers},
            stream=True,
            allow_redirects=False,
            timeout=(min(limits.connect, left), min(limits.silence, left)),
            proxies=proxies,
            verify=_trusted(),
        )

    with translated(url, request):
        return abandonable(send, request.check)


def _proxies(url: str) -> dict[str, str]:
    host = (urlsplit(url).hostname or "").lower()
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost" or host.endswith(".localhost")
    return {} if loopback else dict(requests.utils.get_environ_proxies(url))


def _trusted() -> str | bool:
    """The file of certificate authorities that the environment names, else the ones that requests brings."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        if os.environ.get(name):
            return os.environ[name]
    return True


def _check_status(response: requests.Response, url: str, request: Request, *, ranged: bool) -> None:
    status = response.status_code
    if status == 200 or (ranged and status in {206, 416}):
        return
    said = _said(response, request)
    answer = f"the server answered {status} {response.reason or ''}".rstrip() + (f" ({said})" if said else "")
    if status in {404, 410}:
        raise errors.NotFound(url, answer, hint="Check the address; a private blob also answers so.")
    if status in {401, 403}:
        raise errors.NotAuthorized(url, answer, hint="It needs a valid SAS token or a credential that may read it.")
    raise errors.BadStatus(url, answer, status=status)


def _said(response: requests.Response, request: Request) -> str:
    code = response.headers.get("x-ms-error-code", "")
    if code or "text/plain" not in response.headers.get("Content-Type", ""):
        return code
    with translated(response.url, request):
        body: bytes = response.raw.read1(_QUOTED, decode_content=True)
    return redact_url(" ".join(body.decode("utf-8", "replace").split()))


def chunks(response: requests.Response, request: Request, offset: int) -> Iterator[bytes]:
    """The body as it comes, within the limits of size and time. `offset` bytes came before."""
    announced = response.headers.get("Content-Length", "")
    total = offset + int(announced) if announced.isdigit() else None
    encoded = response.headers.get("Content-Encoding", "identity") != "identity"
    _check_size(request, total or 0)
    done = offset
    while True:
        request.check()
        with translated(request.url, request):
            # read1: whatever is there. `iter_content` waits for a full chunk, so a trickle would outlast every limit.
            data: bytes = response.raw.read1(CHUNK, decode_content=True)
        if not data:
            if request.deadline.token.cancelled:
                request.check()  # the cancel ended the connection: this is not the end of the body
            break
        done += len(data)
        _check_size(request, done)
        if request.progress:
            request.progress(done, total)
        yield data
    if total is not None and not encoded and done < total:
        raise errors.Truncated(request.url, f"the connection ended after {done} of {total} bytes")


def _check_size(request: Request, size: int) -> None:
    if size > request.limits.size:
        raise errors.TooLarge(request.url, f"it is larger than the limit of {request.limits.size} bytes")


@contextmanager
def translated(url: str, request: Request) -> Iterator[None]:
    """Turn what requests and urllib3 raise into our errors."""
    try:
        yield
    except http_guard.PeerRefused as error:
        raise http_guard.refused(url, error.address) from error
    except (requests.RequestException, TransportError, UnicodeError) as error:
        if request.deadline.over:
            request.check()  # what is left of the time is the socket's limit too, and may be noticed there first
        raise _named(url, error, request.limits) from error


def _named(url: str, error: Exception, limits: Limits) -> FetchError:
    causes = list(_causes(error))

    def has(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    host = urlsplit(url).netloc.rpartition("@")[2]
    if has(requests.exceptions.SSLError):
        hint = "For a certificate authority of your own, name its file in REQUESTS_CA_BUNDLE."
        return errors.TlsFailed(url, f"TLS with {host} failed: {_innermost(causes)}", hint=hint)
    if has(NameResolutionError):
        return errors.UnknownHost(
            url,
            f"the name {host} does not resolve",
            hint="Is the network up? `--offline` uses what was fetched before.",
        )
    if has(ConnectionRefusedError):
        return errors.ConnectionRefused(
            url, f"{host} refused the connection", hint="Does the server run, on this port?"
        )
    if has(requests.ConnectTimeout):
        return errors.TooSlow(url, f"{host} did not accept the connection within {limits.connect:g} s")
    if has(requests.ReadTimeout, ReadTimeoutError, TimeoutError):
        return errors.TooSlow(url, f"{host} sent nothing for {limits.silence:g} s")
    if has(IncompleteRead):
        return errors.Truncated(url, "the connection ended before everything had come")
    if has(
        requests.exceptions.InvalidURL,
        requests.exceptions.InvalidSchema,
        requests.exceptions.MissingSchema,
        UnicodeError,
    ):
        return errors.BadAddress(url, "this is not an http(s) address")
    if has(NewConnectionError, requests.ConnectionError, TransportError):
        return errors.Unreachable(url, f"the connection to {host} failed: {_innermost(causes)}")
    return errors.Unreachable(url, _innermost(causes))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and everything it was made of: chained, or carried as `reason` or first argument as urllib3 does."""
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        current = waiting.pop()
        if not isinstance(current, BaseException) or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        waiting += [current.__cause__, current.__context__, getattr(current, "reason", None), *current.args]


def _innermost(causes: list[BaseException]) -> str:
    system = [c for c in causes if isinstance(c, OSError) and c.strerror]
    return str(system[-1].strerror) if system else f"{type(causes[-1]).__name__}: {causes[-1]}"
