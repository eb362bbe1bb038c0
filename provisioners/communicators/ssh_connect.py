"""Waiting for a guest's SSH server and logging in, authenticated both ways."""

from __future__ import annotations

import io
import selectors
import socket
import time
from collections.abc import Callable

import paramiko

from hypervisor.deadline import Deadline
from provisioners.communicators.base import AuthenticationRefused, CommunicatorError, GuestGone, HostKeyMismatch
from provisioners.communicators.ssh import SETTLE_SECONDS, SshCommunicator
from provisioners.communicators.ssh_guard import guarded
from provisioners.communicators.ssh_transport import KEEPALIVE_SECONDS, GuestTransport

PATIENCE_SECONDS = 60.0
"""For so long a refused key or a strange host key is tried again: sshd may be up before cloud-init has ended."""
HANDSHAKE_SECONDS = 60.0
FIRST_INTERVAL, LAST_INTERVAL, PENDING = 1.0, 4.0, 4


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
    silent for ever: so new ones are opened while a few older ones are still being watched.
    """
    doing = f"waiting for the guest's SSH server ({host}:{port})"
    pending: list[socket.socket] = []
    interval, opened = FIRST_INTERVAL, -LAST_INTERVAL
    with selectors.DefaultSelector() as selector:
        try:
            while True:
                deadline.check(doing)
                if abort is not None and (why := abort()):
                    raise GuestGone(f"{why} while {doing}")
                if time.monotonic() - opened >= interval:
                    opened, interval = time.monotonic(), min(interval * 1.1, LAST_INTERVAL)
                    if (sock := _open(host, port)) is not None:
                        pending.append(sock)
                        selector.register(sock, selectors.EVENT_READ)
                    if len(pending) > PENDING:
                        _drop(pending, pending[0], selector)
                if not pending:
                    deadline.pause(min(0.1, deadline.remaining()), doing)
                for event, _ in selector.select(0.1) if pending else ():
                    sock = next(s for s in pending if s is event.fileobj)
                    answer = _peek(sock)
                    if answer is None:
                        _drop(pending, sock, selector)
                        opened = time.monotonic() - interval + 0.25  # refused: ask again soon
                    elif answer:
                        pending.remove(sock)
                        selector.unregister(sock)
                        sock.setblocking(True)
                        return sock
                    else:
                        deadline.pause(0.02, doing)  # it says something, but not yet that
        finally:
            for left in pending:
                left.close()


def _open(host: str, port: int) -> socket.socket | None:
    try:
        sock = socket.create_connection((host, port), timeout=5)
    except OSError:
        return None
    sock.setblocking(False)
    return sock


def _drop(pending: list[socket.socket], sock: socket.socket, selector: selectors.BaseSelector) -> None:
    selector.unregister(sock)
    pending.remove(sock)
    sock.close()


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
