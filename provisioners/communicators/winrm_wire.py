"""Requests to a WS-Management service: pywinrm's protocol layer, made interruptible, and its errors made ours."""

from __future__ import annotations

import binascii
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

import requests
import urllib3
from winrm.exceptions import (
    InvalidCredentialsError,
    WinRMError,
    WinRMOperationTimeoutError,
    WinRMTransportError,
    WSManFaultError,
)
from winrm.protocol import Protocol

from hypervisor.deadline import Deadline
from provisioners.communicators.base import AuthenticationRefused, CommunicatorError, ConnectionLost, HostKeyMismatch
from provisioners.communicators.winrm_tls import PinnedAdapter, PinnedCertificate

OPERATION_SECONDS = 10
"""The service answers a Receive after so long even when there is nothing."""
READ_SECONDS = 40
"""A guest that owes an answer for so much longer is gone."""
POLL_SECONDS = 0.1

NOT_SENT = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)
Answer = TypeVar("Answer")
Auth = Literal["basic", "ntlm"]


class NothingYet(Exception):
    """A Receive (or Send) ended without anything to say; ask again."""


class InterruptedWait(Exception):
    """The caller's own knowledge ended the wait."""


class AnswerLost(ConnectionLost):
    """The request was sent, and no answer came: whether it was done is not known."""


class ClosedMeanwhile(AnswerLost):
    """The connection was closed before a byte of the answer came."""


class NoMessage(CommunicatorError):
    """The service took a request for none (HTTP 400): it did nothing."""


class WsmanFault(CommunicatorError):
    """The service refused a request; `code` is Windows' own number (0: none was given)."""

    def __init__(self, reason: str, code: int) -> None:
        super().__init__(f"the guest's WinRM service refused: {reason} (0x{code:08X})" if code else reason)
        self.code = code


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where and as whom. `tls` None is plain HTTP, where `ntlm` encrypts the messages; `any` takes whatever
    certificate it is shown: only for a guest that is reached over this host's loopback."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    tls: PinnedCertificate | Literal["any"] | None = None
    auth: Auth = "ntlm"

    @property
    def url(self) -> str:
        """The address of the service."""
        return f"{'http' if self.tls is None else 'https'}://{self.host}:{self.port}/wsman"

    def protocol(self, *, operation: int = OPERATION_SECONDS, read: int = READ_SECONDS) -> Protocol:
        """A new protocol object with its own connection, which is made at its first request."""
        encrypted = self.tls is None and self.auth == "ntlm"
        protocol = Protocol(
            self.url,
            transport=self.auth,
            username=self.user,
            password=self.password,
            server_cert_validation="ignore",  # the adapter below looks at the certificate
            message_encryption="always" if encrypted else "never",
            operation_timeout_sec=operation,
            read_timeout_sec=read,
            proxy=None,
        )
        if isinstance(self.tls, PinnedCertificate):
            self.tls.check()
            protocol.transport.build_session().mount("https://", PinnedAdapter(self.tls.sha256))
        return protocol


class Wire:
    """One connection. Each request runs in a thread, so that a deadline or an interruption ends the wait at once; the
    connection is then given up with it, and the next request makes a new one."""

    def __init__(self, endpoint: Endpoint, *, operation: int = OPERATION_SECONDS, read: int = READ_SECONDS) -> None:
        self._endpoint = endpoint
        self._times = {"operation": operation, "read": read}
        self._protocol: Protocol | None = None
        self._trusted = False
        self.last_answer = 0.0
        """On the monotonic clock: when the guest answered last."""

    def call(
        self,
        action: Callable[[Protocol], Answer],
        deadline: Deadline,
        doing: str,
        interrupted: Callable[[], bool] | None = None,
        *,
        once: bool = False,
    ) -> Answer:
        """Do one exchange; one that must not be done twice is sent `once`, unless it was refused unread.

        Raises what `translated` makes of failures, `InterruptedWait`, and as the deadline says.
        """
        deadline.check(doing)
        try:
            answer = self._once(action, deadline, doing, interrupted)
        except (AuthenticationRefused, ClosedMeanwhile, NoMessage) as error:
            # The service may close a connection that is idle, just when the next request is on its way; and NTLM
            # belongs to a connection, so that a new one needs a new login, and a message that was encrypted for the
            # old one is no message to it (HTTP 400).
            self.drop()
            if not self._trusted or (once and isinstance(error, ClosedMeanwhile)):
                raise
            answer = self._once(action, deadline, doing, interrupted)
        except (WsmanFault, NothingYet):
            self._answered()
            raise
        except BaseException:
            self.drop()
            raise
        self._answered()
        return answer

    def _answered(self) -> None:
        self._trusted = True
        self.last_answer = time.monotonic()

    def _once(
        self,
        action: Callable[[Protocol], Answer],
        deadline: Deadline,
        doing: str,
        interrupted: Callable[[], bool] | None,
    ) -> Answer:
        if self._protocol is None:
            self._protocol = self._endpoint.protocol(**self._times)
        exchange = _Exchange(action, self._protocol)
        while not exchange.done.wait(POLL_SECONDS):
            deadline.check(doing)
            if interrupted is not None and interrupted():
                raise InterruptedWait(doing)
        if exchange.error is not None:
            raise translated(exchange.error, self._endpoint, doing) from exchange.error
        return exchange.answers[0]

    def drop(self) -> None:
        """Close the connection; a request that is under way ends by itself."""
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            with suppress(OSError):
                protocol.transport.close_session()


class _Exchange(Generic[Answer]):
    """One request in a thread of its own."""

    def __init__(self, action: Callable[[Protocol], Answer], protocol: Protocol) -> None:
        self.done = threading.Event()
        self.answers: list[Answer] = []
        self.error: Exception | None = None
        self._action = action
        self._protocol = protocol
        threading.Thread(target=self._run, daemon=True, name="winrm").start()

    def _run(self) -> None:
        try:
            self.answers.append(self._action(self._protocol))
        except Exception as error:  # noqa: BLE001 - carried to the thread that waits, which judges it
            self.error = error
        finally:
            self.done.set()


_NONSENSE = (ET.ParseError, StopIteration, AssertionError, binascii.Error, UnicodeDecodeError, KeyError, ValueError)


def translated(error: Exception, endpoint: Endpoint, doing: str) -> Exception:
    """What a failed exchange means; an error that is none of the guest's comes back as it is."""
    where = f"the guest's WinRM service ({endpoint.host}:{endpoint.port})"
    match error:
        case WinRMOperationTimeoutError():
            return NothingYet(doing)
        case WSManFaultError():
            # Some quotas are told by an MSFT_WmiError instead of a WSManFault.
            return WsmanFault(error.reason.strip(), error.wsman_fault_code or error.wmierror_code or 0)
        case InvalidCredentialsError():
            return AuthenticationRefused(
                f"{where} refused the user {endpoint.user} or its password",
                hint="a wrong password, a disabled account, or a listener that does not allow "
                f"{endpoint.auth} logins; a local account needs LocalAccountTokenFilterPolicy=1",
            )
        case requests.exceptions.SSLError():
            return _tls_trouble(error, endpoint, where)
        case requests.exceptions.ConnectionError() if isinstance(_cause(error), NOT_SENT):
            return ConnectionLost(f"{where} is not reachable: {_innermost(error)}")
        case requests.exceptions.Timeout():
            return AnswerLost(f"{where} accepted the connection and did not answer while {doing}")
        case requests.exceptions.ConnectionError() if "closed connection without" in _innermost(error):
            return ClosedMeanwhile(f"{where} closed the connection while {doing}")
        case requests.exceptions.RequestException() | OSError():
            return AnswerLost(f"{where} broke off while {doing}: {_innermost(error)}")
        case WinRMTransportError():
            kind = NoMessage if error.code == 400 else CommunicatorError
            return kind(
                f"{where} answered HTTP {error.code} and no WS-Management message",
                hint="does another program listen on this port?",
            )
    if isinstance(error, (*_NONSENSE, WinRMError)):
        return CommunicatorError(f"{where} gave an answer that makes no sense while {doing}: {error!r}")
    return error


def _tls_trouble(error: Exception, endpoint: Endpoint, where: str) -> CommunicatorError:
    text = _innermost(error)
    if isinstance(endpoint.tls, PinnedCertificate) and "ingerprint" in text:
        return HostKeyMismatch(
            f"{where} shows another certificate than the one it was given",
            hint="another machine answers on this port, or the listener was set up anew",
        )
    if "EOF" in text or "reset" in text:  # a forwarded port with nobody behind it
        return ConnectionLost(f"{where} closed the connection in the TLS handshake")
    return CommunicatorError(f"{where} and this host could not agree on TLS: {text}", hint="is it an HTTP listener?")


def _cause(error: BaseException) -> object:
    """What urllib3 says of it."""
    inner = error.args[0] if error.args else None
    return getattr(inner, "reason", inner)


def _innermost(error: BaseException) -> str:
    """The text of the error that started it: requests wraps urllib3, which wraps the system's."""
    while True:
        inner = next((arg for arg in error.args if isinstance(arg, BaseException)), None)
        inner = inner or getattr(error, "reason", None) or error.__cause__ or error.__context__
        if not isinstance(inner, BaseException) or inner is error:
            return str(error) or type(error).__name__
        error = inner
