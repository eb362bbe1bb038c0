"""Where the server of an AIB_HOME answers: told in `serve/endpoint.json` for as long as its lock is held."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from hypervisor.errors import HostError, InputError
from orchestrator.record import files, locks

PORT = 8443
SUBSCRIPTION = "00000000-0000-0000-0000-000000000000"
ANY_SECRET = "aib"  # noqa: S105 -- what clients say to a server that asks for no token
CLIENT = "aib"
_ASKERS_SECONDS = 0.5
"""Who asks whether a server runs holds its lock for a moment."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A listening server. `url` has no slash at its end; `ca` and `bundle` are absolute paths, "" with plain HTTP."""

    url: str
    ca: str
    bundle: str
    subscription: str
    tenant: str
    token: str = ""
    in_memory: bool = False

    @property
    def secret(self) -> str:
        """The client secret that gets a token."""
        return self.token or ANY_SECRET


def write_secret(path: Path) -> None:
    """A new token in a new file (mode 0600)."""
    files.publish(path, secrets.token_urlsafe(32).encode() + b"\n")


class ServeFolder:
    """`AIB_HOME/serve` (mode 0700): certificates, the key that signs tokens, and where the server answers."""

    def __init__(self, home: Path) -> None:
        self.path = home.expanduser().absolute() / "serve"

    @property
    def _told(self) -> Path:
        return self.path / "endpoint.json"

    @property
    def az(self) -> Path:
        """The configuration folder of `aib az`."""
        return self.path / "az"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Be the one server of this home; `HostError` when there is one already."""
        with files.translating("creating", self.path):
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._take(fd)
            try:
                yield
            finally:
                self._told.unlink(missing_ok=True)
        finally:
            os.close(fd)

    def _take(self, fd: int) -> None:
        try:
            locks.lock(fd, self.path / "lock", exclusive=True, seconds=_ASKERS_SECONDS)
        except HostError:
            known = self._read()
            raise HostError(
                f"a server of {self.path.parent} is running already" + (f" at {known.url}" if known else ""),
                hint="use it, or end it first; another AIB_HOME has a server of its own",
            ) from None

    def tell(self, endpoint: Endpoint) -> None:
        """Say where the server answers; the file holds its token, so it is private."""
        files.publish_json(self._told, asdict(endpoint))

    def running(self) -> Endpoint:
        """The server of this home; `InputError` when none is running."""
        known = self._read() if self._alive() else None
        if known is None:
            raise InputError(
                f"no server is running for {self.path.parent}", hint="start one in another terminal: aib serve"
            )
        return known

    def _alive(self) -> bool:
        try:
            fd = os.open(self.path / "lock", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            return not locks.try_lock(fd, exclusive=False)
        finally:
            os.close(fd)

    def _read(self) -> Endpoint | None:
        try:
            told = files.read_json(self._told)
        except HostError:
            return None
        known = {field.name for field in fields(Endpoint)}
        return Endpoint(**told) if told is not None and set(told) == known else None
