"""The worker's control socket: what must be done live (cancel, status, screenshot) goes through it.

An abstract Unix socket: no path to overflow, to be left behind or to be raced for. It has no permissions of its own,
so the worker checks the peer's user id.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypervisor.errors import AibError, InputError

LONGEST_REQUEST = 4096
PATIENCE = 10.0
"""Seconds a client may take to send a request, and we to answer one."""

Handler = Callable[[Mapping[str, Any]], Mapping[str, Any]]


def _address(run_folder: Path) -> str:
    """The socket's name for a run: derived, so that nothing need be recorded."""
    return "\0aib-" + hashlib.sha256(os.fsencode(run_folder.resolve())).hexdigest()[:32]


def _peer_is_us(connection: socket.socket) -> bool:
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    return uid in (os.getuid(), 0)


def _answer(connection: socket.socket, handlers: Mapping[str, Handler]) -> None:
    with connection:
        connection.settimeout(PATIENCE)
        if not _peer_is_us(connection):
            return
        try:
            request = json.loads(connection.makefile("rb").readline(LONGEST_REQUEST))
            handler = handlers.get(request.get("do", ""))
            reply = handler(request) if handler else {"error": f"unknown request {request.get('do')!r}"}
        except AibError as error:
            reply = {"error": error.message}
        except (ValueError, AttributeError):
            reply = {"error": "not a request: one JSON object on one line is expected"}
        except OSError:
            return
        try:
            connection.sendall(json.dumps(reply).encode() + b"\n")
        except OSError:
            return  # the client has gone; what it asked for was done


@contextmanager
def serve(run_folder: Path, handlers: Mapping[str, Handler]) -> Iterator[None]:
    """Answer requests for the run in a thread until the block ends."""
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.bind(_address(run_folder))
    server.listen(8)

    def loop() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=_answer, args=(connection, handlers), daemon=True).start()

    thread = threading.Thread(target=loop, name="control", daemon=True)
    thread.start()
    try:
        yield
    finally:
        # close() alone does not wake a thread that is blocked in accept().
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join()


def ask(run_folder: Path, request: Mapping[str, Any]) -> dict[str, Any]:
    """Send one request to the worker of a run and return its answer; raises `InputError` when no worker listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(PATIENCE)
        try:
            client.connect(_address(run_folder))
            client.sendall(json.dumps(request).encode() + b"\n")
            answer = json.loads(client.makefile("rb").readline())
        except (OSError, ValueError) as error:
            raise InputError(f"run {run_folder.name} does not answer: it is not running ({error})") from error
    if not isinstance(answer, dict):
        raise InputError(f"run {run_folder.name} gave an answer that is not an object")
    return answer
