"""The one door to the network: `download` a file, `read` a small text.

Limits of time, size and redirects, retries with backoff under the caller's deadline, checksums, typed errors that hold
no secret. Proxies come from the environment, never for loopback.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

from hypervisor.deadline import Deadline
from orchestrator.plan import http_errors as errors
from orchestrator.plan.http_errors import FetchError, redact_url
from orchestrator.plan.http_transfer import CHUNK, Limits, Progress, Request, chunks, opened
from orchestrator.plan.resume import Part

__all__ = ["Downloaded", "Limits", "Progress", "download", "read"]

T = TypeVar("T")

_TRY_AGAIN = (errors.ConnectionRefused, errors.Unreachable, errors.Truncated, errors.TooSlow)
_TRY_AGAIN_STATUS = {408, 425, 429, 500, 502, 503, 504}
_SMALL = Limits(size=4 << 20)
_FILE = Limits()


@dataclass(frozen=True, slots=True)
class Downloaded:
    """What came: its size in bytes and its digests in lower-case hex, by algorithm."""

    size: int
    digests: Mapping[str, str]

    @property
    def sha256(self) -> str:
        """SHA-256 in lower-case hex."""
        return self.digests["sha256"]


def download(
    url: str,
    target: Path,
    *,
    deadline: Deadline,
    limits: Limits = _FILE,
    headers: Mapping[str, str] | None = None,
    expected: Mapping[str, str] | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Downloaded:
    """Fetch `url` to `target`, which appears whole, checked and synced, or not at all; one caller per target at a time.

    Bytes go to `<target>.part`. `expected` maps algorithms (sha256, sha512) to hex digests. With `resume`, a part left
    by an earlier failed call is continued where the server still has the same file; else a failed part is removed.
    Raises a `FetchError`, `ChecksumMismatch`, `HostError` (no space), or as the deadline says.
    """
    request = _request(url, deadline, limits, headers, progress)
    wanted = {name: value.strip().lower() for name, value in (expected or {}).items()}
    part = Part(target, url, keep=resume)
    with part.opened() as file:
        _with_retries(request, deadline, lambda: _transfer(request, part))
        done = _digests(file, {"sha256", *wanted}, deadline)
        for name, value in wanted.items():
            if done.digests[name] != value:
                part.restart()
                raise errors.ChecksumMismatch(url, name, value, done.digests[name])
        part.publish()
    return done


def read(url: str, *, deadline: Deadline, limits: Limits = _SMALL, headers: Mapping[str, str] | None = None) -> bytes:
    """Fetch a small file (a list of checksums) into memory; raises as `download` does."""
    request = _request(url, deadline, limits, headers, None)

    def once() -> bytes:
        with opened(request, {}) as response:
            return b"".join(chunks(response, request, 0))

    return _with_retries(request, deadline, once)


def _request(
    url: str, deadline: Deadline, limits: Limits, headers: Mapping[str, str] | None, progress: Progress | None
) -> Request:
    whole = deadline.limited(limits.total, f"the {limits.total:g} s for one file")
    return Request(url, whole, limits, dict(headers or {}), progress)


def _transfer(request: Request, part: Part) -> None:
    """One attempt, continuing what an earlier one brought."""
    with opened(request, part.ask_for_the_rest()) as response:
        if response.status_code == 416:
            if response.headers.get("Content-Range", "") == f"bytes */{part.size()}":
                return  # everything had come already
            part.restart()
            raise errors.Truncated(request.url, "the part that came earlier does not fit")
        offset = part.begin(response.status_code, response.headers)
        for data in chunks(response, request, offset):
            part.write(data)


def _with_retries(request: Request, outer: Deadline, once: Callable[[], T]) -> T:
    """Call `once` until it works, backing off; gives up at once on what a second try cannot mend."""
    for attempt in range(1, request.limits.attempts):
        outer.check(f"fetching {redact_url(request.url)}")
        try:
            return once()
        except FetchError as error:
            outer.check(f"fetching {redact_url(request.url)}")
            again = isinstance(error, _TRY_AGAIN) or (
                isinstance(error, errors.BadStatus) and error.status in _TRY_AGAIN_STATUS
            )
            jitter = random.uniform(0.8, 1.2)  # noqa: S311 -- spreads retries, guards nothing
            pause = request.limits.backoff * 2 ** (attempt - 1) * jitter
            if not again or request.deadline.remaining() <= pause:
                raise
            outer.pause(pause, f"waiting to fetch {redact_url(request.url)} again")
    return once()


def _digests(file: IO[bytes], algorithms: set[str], deadline: Deadline) -> Downloaded:
    """Hash the finished part: it may have come in several attempts, or in several calls."""
    hashes = {name: hashlib.new(name) for name in sorted(algorithms)}
    size = 0
    file.seek(0)
    while data := file.read(CHUNK):
        size += len(data)
        for digest in hashes.values():
            digest.update(data)
        deadline.check("computing checksums")
    return Downloaded(size, {name: digest.hexdigest() for name, digest in hashes.items()})
