"""The communicator for Linux guests: SSH over paramiko."""

from __future__ import annotations

import selectors
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import paramiko

from hypervisor.deadline import Deadline
from provisioners.communicators.base import CommandResult, CommunicatorError, ConnectionLost, OutputCallback, Stream
from provisioners.communicators.sftp import SftpTransfers
from provisioners.communicators.ssh_guard import GONE, POLL_SECONDS, guarded
from provisioners.communicators.ssh_transport import GuestTransport, Pulse

CHUNK = 64 * 1024
STALL_SECONDS = 120.0
"""An exchange that needs an answer (opening a channel, a chunk of a file) and gets none for so long is lost."""
PULSE_LIMIT_SECONDS = 180.0
"""A guest that owes an answer for so long is gone: a reset without a hypervisor event, a network that was cut."""
SETTLE_SECONDS = 10.0
"""A closed channel without exit status: how long the transport may take to follow (2.7 s seen under load)."""
TERM_GRACE_SECONDS = 1.0


class SshCommunicator:
    """One authenticated SSH connection; one channel per command, one SFTP session for all transfers."""

    def __init__(self, transport: GuestTransport, *, settle: float = SETTLE_SECONDS) -> None:
        self._transport = transport
        self._settle = settle
        self._pulse = Pulse(transport)
        self._pulse.start()
        self._sftp = SftpTransfers(transport, stall=STALL_SECONDS)
        self._lock = threading.Lock()

    def run(
        self,
        command: str,
        *,
        deadline: Deadline,
        output: OutputCallback | None = None,
        stdin: bytes = b"",
        interrupted: Callable[[], bool] | None = None,
    ) -> CommandResult:
        """See `Communicator.run`. Exit status, signal, killed shell and lost connection are told apart."""
        channel = self._start(command, deadline, interrupted)
        try:
            talk = _Conversation(channel, output, stdin)
            lost = self._follow(talk, deadline, interrupted)
            return self._result(channel, deadline, lost, interrupted)
        except BaseException:
            self._end(channel)
            raise
        finally:
            with suppress(*GONE, OSError):  # the connection may end between paramiko's look at it and its goodbye
                channel.close()

    def _start(self, command: str, deadline: Deadline, interrupted: Callable[[], bool] | None) -> paramiko.Channel:
        doing = "starting a command in the guest"
        if not self._transport.is_active():
            deadline.check(doing)
            raise ConnectionLost(f"the connection to the guest is gone, so this did not start: {_short(command)}")
        with guarded(self._cut, deadline, doing, stall=STALL_SECONDS, interrupted=interrupted):
            try:
                channel = self._transport.open_session(timeout=STALL_SECONDS)
                channel.exec_command(command)
            except paramiko.ChannelException as error:
                raise CommunicatorError(
                    f"the guest's SSH server refused another session ({error.text})",
                    hint="MaxSessions in /etc/ssh/sshd_config must allow at least 4",
                ) from error
        return channel

    def _follow(self, talk: _Conversation, deadline: Deadline, interrupted: Callable[[], bool] | None) -> bool:
        """Move data until both streams ended; true when the guest is known to be gone without a goodbye."""
        with selectors.DefaultSelector() as selector:
            selector.register(talk.channel.fileno(), selectors.EVENT_READ)
            polled = time.monotonic()
            while True:
                moved = talk.move()
                if talk.ended:
                    return False
                deadline.check("waiting for a command in the guest")
                if time.monotonic() - polled >= POLL_SECONDS:
                    polled = time.monotonic()
                    if (interrupted is not None and interrupted()) or self._pulse.unanswered() > PULSE_LIMIT_SECONDS:
                        return True
                if not moved:
                    # Sending waits for the guest's window, which wakes nobody: look again soon.
                    selector.select(POLL_SECONDS if talk.all_sent else POLL_SECONDS / 10)

    def _result(
        self, channel: paramiko.Channel, deadline: Deadline, lost: bool, interrupted: Callable[[], bool] | None
    ) -> CommandResult:
        """What ended the command. Without an exit status, a transport that soon follows its channel means a reboot."""
        started = time.monotonic()
        while not lost and channel.exit_status_ready() is False:
            deadline.pause(POLL_SECONDS / 10, "waiting for the exit status of a command in the guest")
            lost = self._gone(interrupted) or not self._transport.is_active()
        code = channel.exit_status if channel.exit_status >= 0 else None
        while not lost and code is None and time.monotonic() - started < self._settle:
            if self._gone(interrupted) or not self._transport.is_active():
                lost = True
                break
            deadline.pause(POLL_SECONDS, "waiting for the end of a command in the guest")
        signal = "" if code is not None else self._transport.exit_signals.pop(channel.get_id(), "")
        if lost:
            self._cut()
        return CommandResult(code, signal, connection_lost=lost or not self._transport.is_active())

    def _gone(self, interrupted: Callable[[], bool] | None) -> bool:
        return (interrupted is not None and interrupted()) or self._pulse.unanswered() > PULSE_LIMIT_SECONDS

    def _end(self, channel: paramiko.Channel) -> None:
        """Ask the guest to end the command and all of its process group: TERM, a moment, KILL."""
        for signal in ("TERM", "KILL"):
            if channel.closed or not self._transport.is_active():
                return
            self._transport.send_signal(channel, signal)
            limit = time.monotonic() + TERM_GRACE_SECONDS
            while signal == "TERM" and not channel.exit_status_ready() and time.monotonic() < limit:
                channel.status_event.wait(POLL_SECONDS)

    def upload(self, source: Path | bytes, destination: str, *, mode: int | None = None, deadline: Deadline) -> None:
        """See `Communicator.upload`: over SFTP, with the permissions of the login user."""
        self._sftp.upload(source, destination, mode=mode, deadline=deadline, diagnose=self._free_space)

    def download(self, source: str, destination: Path, *, deadline: Deadline) -> None:
        """See `Communicator.download`: over SFTP, with the permissions of the login user."""
        self._sftp.download(source, destination, deadline=deadline)

    def _free_space(self, folder: str, deadline: Deadline) -> str:
        """What `df` says about `folder`: an SFTP server says only "Failure" when the disk is full."""
        from shlex import quote

        said = bytearray()

        def keep(stream: Stream, data: bytes) -> None:
            if stream == "stdout" and len(said) < CHUNK:
                said.extend(data)

        limit = deadline.limited(30, "asking for the free space")
        self.run(f"df -Pk -- {quote(folder)}", deadline=limit, output=keep)
        fields = said.decode(errors="replace").splitlines()[-1:]
        columns = fields[0].split() if fields else []
        if len(columns) < 4 or not columns[3].isdigit():
            return ""
        return "no space left on the guest's disk" if int(columns[3]) < 64 else f"{columns[3]} KiB are free"

    def alive(self) -> bool:
        """Whether the connection still stands; a guest that owes an answer for long does not count."""
        return bool(self._transport.is_active()) and self._pulse.unanswered() <= PULSE_LIMIT_SECONDS

    def _cut(self) -> None:
        """Close without asking anybody: used where the guest does not answer."""
        self._pulse.stop()
        self._transport.close()

    def close(self) -> None:
        """Close the connection; safe to call twice."""
        with self._lock:
            self._pulse.stop()
            self._sftp.close()
            self._transport.close()


class _Conversation:
    """Moves bytes between one channel, the callback and stdin without ever blocking or keeping what it read."""

    def __init__(self, channel: paramiko.Channel, output: OutputCallback | None, stdin: bytes) -> None:
        self.channel = channel
        self._output = output
        self._left = memoryview(stdin)
        self._eof_sent = False
        channel.settimeout(0.0)

    @property
    def all_sent(self) -> bool:
        """Whether stdin was given and closed."""
        return self._eof_sent

    @property
    def ended(self) -> bool:
        """Whether both streams ended and everything that came was delivered."""
        over = self.channel.closed or self.channel.eof_received
        return bool(over) and not self.channel.recv_ready() and not self.channel.recv_stderr_ready()

    def move(self) -> bool:
        """Move what can be moved now; true when anything was."""
        moved = self._send()
        if self.channel.recv_ready():
            moved |= self._deliver("stdout", self.channel.recv(CHUNK))
        if self.channel.recv_stderr_ready():
            moved |= self._deliver("stderr", self.channel.recv_stderr(CHUNK))
        return moved

    def _deliver(self, stream: Stream, data: bytes) -> bool:
        if data and self._output is not None:
            self._output(stream, data)
        return bool(data)

    def _send(self) -> bool:
        if self._eof_sent:
            return False
        try:
            if self._left and self.channel.send_ready():
                self._left = self._left[self.channel.send(self._left[:CHUNK].tobytes()) :]
                return True
            if not self._left:
                self._eof_sent = True
                self.channel.shutdown_write()
        except (*GONE, OSError):
            self._eof_sent = True  # the command does not read on, or is gone: its exit status tells the rest
        return False


def _short(command: str) -> str:
    return command if len(command) <= 80 else command[:77] + "..."
