"""Running the application: uvicorn on our own socket, with our certificate, until it is asked to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import logging.handlers
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from hypervisor.errors import HostError
from orchestrator.service.host.certificates import Certificates

GRACE_SECONDS = 5
"""What requests under way get at the end; a browser that follows a run would never leave."""
IDLE_SECONDS = 60
_LOG_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Served:
    """What is served: the application, the socket it listens on, its certificate (None: HTTP), and a log file."""

    app: ASGIApp
    listener: socket.socket
    certificates: Certificates | None
    log: Path

    def _config(self) -> uvicorn.Config:
        made = self.certificates
        return uvicorn.Config(
            self.app,
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
            timeout_keep_alive=IDLE_SECONDS,
            ssl_certfile=made.chain if made else None,
            ssl_keyfile=made.key if made else None,
        )


class _Server(uvicorn.Server):
    """uvicorn's server, which tells when it listens and leaves the signals of the process alone."""

    def __init__(self, served: Served, ready: Callable[[], None]) -> None:
        super().__init__(served._config())
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn does; but clients that wait for nothing are cut off at once: TLS would wait for their goodbye."""
        kept = list(self.server_state.connections)
        _abort(connection for connection in kept if _is_idle(connection))
        await super().shutdown(sockets)
        _abort(kept)
        await asyncio.sleep(0)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _is_idle(connection: Any) -> bool:
    cycle = getattr(connection, "cycle", None)
    return cycle is None or bool(cycle.response_complete)


def _abort(connections: Iterable[Any]) -> None:
    for connection in connections:
        if (transport := getattr(connection, "transport", None)) is not None:
            transport.abort()


def serve(served: Served, ready: Callable[[], None]) -> None:
    """Serve until SIGINT, SIGTERM or SIGHUP; a second signal does not wait for requests. For the main thread.

    Raises `HostError` when the application does not start.
    """
    server = _Server(served, ready)

    def stop(_number: int, _frame: object) -> None:
        server.force_exit = server.should_exit
        server.should_exit = True

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        _run(server, served)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def serving(served: Served) -> Iterator[None]:
    """Serve from a thread for the time of the block; raises `HostError` when the application does not start."""
    ready, failed = threading.Event(), []
    server = _Server(served, ready.set)

    def run() -> None:
        try:
            _run(server, served)
        except HostError as error:
            failed.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=run, name="serve", daemon=True)
    thread.start()
    ready.wait()
    if failed:
        thread.join()
        raise failed[0]
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()


def _run(server: uvicorn.Server, served: Served) -> None:
    with _logging(served.log), contextlib.closing(served.listener), contextlib.suppress(SystemExit):
        server.run(sockets=[served.listener])  # leaves by SystemExit when the application does not start
    if not server.started:
        raise HostError("the server did not start", hint=f"the reason is at the end of {served.log}")


@contextlib.contextmanager
def _logging(path: Path) -> Iterator[None]:
    """uvicorn's own words go to a file (mode 0600) of bounded size: they may hold tracebacks, never to a terminal."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=_LOG_BYTES, backupCount=1)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    loggers = [logging.getLogger(name) for name in ("uvicorn.error", "asyncio")]
    for logger in loggers:
        logger.addHandler(handler)
        logger.propagate = False
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
            logger.propagate = True
        handler.close()
