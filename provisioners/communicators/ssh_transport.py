"""What paramiko leaves out and a build needs: the signal that ended a command, sending one, and a pulse."""

from __future__ import annotations

import logging
import threading
import time
from socket import socket

import paramiko
from paramiko.common import MSG_CHANNEL_REQUEST, cMSG_CHANNEL_REQUEST
from paramiko.message import Message

# paramiko logs tracebacks of every lost connection; ours are typed errors, told once, by whoever catches them.
_PARAMIKO_LOG = logging.getLogger("paramiko")
_PARAMIKO_LOG.addHandler(logging.NullHandler())
_PARAMIKO_LOG.propagate = False

KEEPALIVE_SECONDS = 15.0


def _channel_request(channel: paramiko.Channel, message: Message) -> None:
    """Keep `exit-signal` (RFC 4254, 6.10), which paramiko drops, then let paramiko handle the request as ever."""
    start = message.packet.tell()
    if message.get_text() == "exit-signal":
        message.get_boolean()
        transport = channel.get_transport()
        if isinstance(transport, GuestTransport):
            transport.exit_signals[channel.get_id()] = message.get_text()
    message.packet.seek(start)
    channel._handle_request(message)  # type: ignore[attr-defined]  # paramiko has no public hook for requests


class GuestTransport(paramiko.Transport):
    """A transport that remembers by channel id which signal ended a command."""

    _channel_handler_table = {  # noqa: RUF012 - overrides paramiko's own class attribute
        **paramiko.Transport._channel_handler_table,  # type: ignore[attr-defined]  # see _channel_request
        MSG_CHANNEL_REQUEST: _channel_request,
    }

    def __init__(self, sock: socket) -> None:
        super().__init__(sock)
        self.exit_signals: dict[int, str] = {}

    def send_signal(self, channel: paramiko.Channel, name: str) -> None:
        """Ask the server to signal the command of `channel` (RFC 4254, 6.9): OpenSSH from 7.9 on does."""
        message = Message()
        message.add_byte(cMSG_CHANNEL_REQUEST)
        message.add_int(channel.remote_chanid)
        message.add_string("signal")
        message.add_boolean(False)
        message.add_string(name)
        try:
            self._send_user_message(message)  # type: ignore[attr-defined]  # paramiko cannot send this one
        except (EOFError, OSError, paramiko.SSHException):
            return  # the connection is gone, and the command with it


class Pulse(threading.Thread):
    """Asks the guest every 15 s for an answer, so that a guest which went away without a goodbye is noticed.

    A user-mode network keeps the TCP connection open whatever becomes of the guest: only a missing answer tells.
    """

    def __init__(self, transport: GuestTransport, interval: float = KEEPALIVE_SECONDS) -> None:
        super().__init__(name="ssh-pulse", daemon=True)
        self._transport = transport
        self._interval = interval
        self._ended = threading.Event()
        self._asked_at: float | None = None

    def run(self) -> None:
        """Ask, wait for the answer (a refusal is one), sleep; until stopped or the transport ends."""
        while not self._ended.wait(self._interval) and self._transport.is_active():
            self._asked_at = time.monotonic()
            try:
                self._transport.global_request("keepalive@openssh.com", wait=True)
            except (EOFError, OSError, paramiko.SSHException):
                return
            if self._transport.is_active():
                self._asked_at = None

    def unanswered(self) -> float:
        """For how many seconds the guest has owed us an answer."""
        asked = self._asked_at
        return 0.0 if asked is None else time.monotonic() - asked

    def stop(self) -> None:
        """End the thread; it does not wait."""
        self._ended.set()
