"""Waiting for a guest's WinRM service and logging in."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

from hypervisor.deadline import Deadline
from hypervisor.errors import AibError, DeadlineExceeded
from provisioners.communicators.base import (
    AuthenticationRefused,
    CommunicatorError,
    ConnectionLost,
    GuestGone,
    HostKeyMismatch,
)
from provisioners.communicators.winrm import NoFreeShell, WinRMCommunicator
from provisioners.communicators.winrm_tls import PinnedCertificate
from provisioners.communicators.winrm_transfers import UploadWay
from provisioners.communicators.winrm_wire import Auth, Endpoint

PATIENCE_SECONDS = 60.0
"""For so long a refused login, or a strange certificate, is tried again: the account may be made after the listener."""
ATTEMPT_SECONDS = 30.0
"""For one login; a listener that accepts and says nothing is asked anew after it."""
PAUSE_SECONDS = 1.0
SILENT = "none: something accepts connections there, and says nothing"
GREETING = "echo WinRM connected."


def connect(
    host: str,
    port: int,
    *,
    user: str,
    password: str,
    tls: PinnedCertificate | Literal["any"] | None,
    deadline: Deadline,
    auth: Auth | None = None,
    abort: Callable[[], str] | None = None,
    upload: UploadWay = "stdin",
    patience: float = PATIENCE_SECONDS,
) -> WinRMCommunicator:
    """Wait until the guest's WinRM service runs a command for `user`.

    `tls` None is HTTP, with NTLM and encrypted messages unless `auth` says `basic`; over HTTPS the login is `basic`
    unless it says otherwise. `abort` is polled and returns a text when waiting has become pointless. Raises
    `HostKeyMismatch`, `AuthenticationRefused`, `GuestGone`, `CommunicatorError` for a certificate that is not valid,
    and `DeadlineExceeded` (with what happened last) or `Cancelled`.
    """
    endpoint = Endpoint(host, port, user, password, tls, auth or ("basic" if tls else "ntlm"))
    if isinstance(tls, PinnedCertificate):
        tls.check()
    doing = f"waiting for the guest's WinRM service ({host}:{port})"
    last = ""
    first_refusal: float | None = None
    while True:
        if abort is not None and (why := abort()):
            raise GuestGone(f"{why} while {doing}")
        try:
            return _greeted(WinRMCommunicator(endpoint, upload=upload), deadline, abort)
        except (AuthenticationRefused, HostKeyMismatch) as error:
            first_refusal = first_refusal or time.monotonic()
            if time.monotonic() - first_refusal >= patience:
                raise
            last = error.message
        except CommunicatorError as error:
            last = error.message
        except DeadlineExceeded as error:
            if isinstance(error, NoFreeShell):
                last = error.said
            if deadline.over:
                message = f"{deadline.what} is used up while {doing}{_after(last or SILENT)}"
                raise DeadlineExceeded(message, hint=_HINT) from error
            last = last if isinstance(error, NoFreeShell) else error.message
        try:
            deadline.pause(PAUSE_SECONDS, doing)
        except DeadlineExceeded as error:
            raise DeadlineExceeded(error.message + _after(last), hint=_HINT) from error


_HINT = "is WinRM set up in the image (winrm quickconfig), and does its firewall let it through?"


def _after(last: str) -> str:
    return f"; the last answer: {last}" if last else ""


def _greeted(communicator: WinRMCommunicator, deadline: Deadline, abort: Callable[[], str] | None) -> WinRMCommunicator:
    limit = deadline.limited(ATTEMPT_SECONDS, f"the {ATTEMPT_SECONDS:.0f} s for an answer of the guest")
    try:
        result = communicator.run(
            GREETING, deadline=limit, interrupted=(lambda: bool(abort())) if abort is not None else None
        )
        if result.connection_lost:
            raise ConnectionLost("the connection was lost at the first command")
    except AibError:
        communicator.close()
        raise
    return communicator
