"""Waiting for a guest's SSH server and logging in, authenticated both ways."""

from __future__ import annotations

import io
import socket
import time
from collections.abc import Callable
from typing import Self

import paramiko

from hypervisor.deadline import Deadline
from provisioners.communicators.base import AuthenticationRefused, CommunicatorError, GuestGone, HostKeyMismatch
from provisioners.communicators.ssh import SETTLE_SECONDS, SshCommunicator
from provisioners.communicators.ssh_guard import guarded
from provisioners.communicators.ssh_transport import KEEPALIVE_SECONDS, GuestTransport

PATIENCE_SECONDS = 60.0
"""For so long a refused key or a strange host key is tried again: sshd may be up before cloud-init has ended."""
HANDSHAKE_SECONDS = 60.0
PROBE_SECONDS, PROBE_SHARE = 2.0, 0.1
"""A new connection after so many seconds, or after this share of the time waited so far. Not oftener: a user-mode
network keeps each one that stayed silent and delivers it later, and sshd then works through all of them."""
REFUSED_SECONDS = 0.25
CONNECT_SECONDS = 5.0
POLL_SECONDS = 0.05
PENDING = 5


def connect(
    host: str,
    port: int,
    user: str,
    key: paramiko.PKey | str,
    host_key: str,
    *,
    deadline: Deadline,
    abort: Callable[[], str] | None = None,
    patience: float = PATIENCE_SECONDS,
    settle: float = SETTLE_SECONDS,
) -> SshCommunicator:
    """Wait until the guest's SSH server answers, check its host key, log in with `key` (a PKey or an OpenSSH PEM).

    `host_key` is the one public key that is accepted ("ssh-ed25519 AAAA..."). `abort` is polled and returns a text
    when waiting has become pointless (the machine is off). Raises `HostKeyMismatch`, `AuthenticationRefused`,
    `GuestGone`, and `DeadlineExceeded` or `Cancelled` when the time is over.
    """
    private = load_key(key) if isinstance(key, str) else key
    first_refusal: float | None = None
    while True:
        sock = wait_for_banner(host, port, deadline, abort)
        try:
            return _login(sock, user, private, host_key=host_key, deadline=deadline, settle=settle)
        except (AuthenticationRefused, HostKeyMismatch):
            first_refusal = first_refusal or time.monotonic()
            if time.monotonic() - first_refusal >= patience:
                raise
        except CommunicatorError:
            pass  # it closed the connection in the middle of the handshake: still starting, or already going down
        deadline.pause(0.5, "logging in to the guest")


def load_key(pem: str) -> paramiko.PKey:
    """An ed25519 private key in OpenSSH's format as paramiko wants it."""
    return paramiko.Ed25519Key(file_obj=io.StringIO(pem))


def _login(
    sock: socket.socket, user: str, key: paramiko.PKey, *, host_key: str, deadline: Deadline, settle: float
) -> SshCommunicator:
    transport = GuestTransport(sock)
    kind = host_key.split(maxsplit=1)[0]
    if kind != "ssh-rsa":  # RSA keys are offered under other names
        transport.get_security_options().key_types = (kind,)
    try:
        with guarded(transport.close, deadline, "logging in to the guest", stall=HANDSHAKE_SECONDS):
            _handshake(transport, user, key, host_key)
        transport.set_keepalive(int(KEEPALIVE_SECONDS))
        return SshCommunicator(transport, settle=settle)
    except BaseException:
        transport.close()
        raise


def _handshake(transport: GuestTransport, user: str, key: paramiko.PKey, host_key: str) -> None:
    kind, expected = host_key.split()[:2]
    try:
        transport.start_client(timeout=HANDSHAKE_SECONDS)
    except paramiko.ssh_exception.IncompatiblePeer as error:
        raise HostKeyMismatch(f"the guest has no host key of type {kind}, which it was given: {error}") from error
    seen = transport.get_remote_server_key()
    if seen.get_base64() != expected:
        raise HostKeyMismatch(
            f"the guest's host key is {seen.get_name()} {seen.fingerprint}, not the one it was given",
            hint="another machine answers on this port, or the image's cloud-init did not take the seed",
        )
    try:
        transport.auth_publickey(user, key)
    except paramiko.AuthenticationException as error:
        raise AuthenticationRefused(
            f"the guest refused the build's key for the user {user}",
            hint="the source image must run cloud-init (NoCloud) at its first boot and allow publickey logins",
        ) from error


def wait_for_banner(host: str, port: int, deadline: Deadline, abort: Callable[[], str] | None = None) -> socket.socket:
    """A fresh TCP connection on which an SSH server has said who it is (its banner is still unread).

    A user-mode network accepts TCP before the guest listens, and a connection that was opened too early may stay
    silent for ever: so a new one is opened now and then while a few older ones are still being watched.
    """
    doing = f"waiting for the guest's SSH server ({host}:{port})"
    with _Probes(host, port) as probes:
        while True:
            deadline.check(doing)
            if abort is not None and (why := abort()):
                raise GuestGone(f"{why} while {doing}")
            if (sock := probes.look()) is not None:
                return sock
            deadline.pause(POLL_SECONDS, doing)


class _Probes:
    """The connections that are being watched, oldest first."""

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._pending: list[socket.socket] = []
        self._started = self._next = time.monotonic()

    def look(self) -> socket.socket | None:
        """The connection with a banner, if there is one now; opens and drops others as time goes."""
        if time.monotonic() >= self._next:
            waited = time.monotonic() - self._started
            self._next = time.monotonic() + max(PROBE_SECONDS, waited * PROBE_SHARE)
            self._open()
        for sock in reversed(self._pending):
            answer = _peek(sock)
            if answer:
                self._pending.remove(sock)
                sock.setblocking(True)
                return sock
            if answer is None:  # nobody listens there yet: ask again soon
                self._drop(sock)
                self._next = min(self._next, time.monotonic() + REFUSED_SECONDS)
        return None

    def _open(self) -> None:
        try:
            sock = socket.create_connection(self._address, timeout=CONNECT_SECONDS)
        except OSError:
            self._next = time.monotonic() + REFUSED_SECONDS
            return
        # SSH asks small questions: held back for the answer to the one before, each would take 40 ms more.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        self._pending.append(sock)
        if len(self._pending) > PENDING:
            self._drop(self._pending[0])

    def _drop(self, sock: socket.socket) -> None:
        self._pending.remove(sock)
        sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for sock in self._pending:
            sock.close()
        self._pending.clear()


def _peek(sock: socket.socket) -> bool | None:
    """Whether the banner is there; None when the connection ended."""
    try:
        data = sock.recv(4096, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return None
    if not data:
        return None
    return data.startswith(b"SSH-") or b"\nSSH-" in data
