"""The communicator for Windows guests: WinRS (commands over WS-Management), on pywinrm's protocol layer."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from winrm.protocol import Protocol

from hypervisor.deadline import Deadline
from hypervisor.errors import AibError, DeadlineExceeded
from provisioners.communicators.base import CommandResult, CommunicatorError, ConnectionLost, OutputCallback
from provisioners.communicators.clixml import ClixmlFilter
from provisioners.communicators.winrm_requests import interrupt
from provisioners.communicators.winrm_transfers import EchoTransfers, StdinTransfers, Transfers, UploadWay
from provisioners.communicators.winrm_wire import AnswerLost, Endpoint, InterruptedWait, NothingYet, Wire, WsmanFault

CODE_PAGE = 65001
CHUNK = 80 * 1024
"""Bytes of one Send: in Base64 they fit the smallest envelope that services are set up for (150 KiB)."""
ANSWER_SECONDS = 120.0
"""For a request that needs no waiting (Create, Command, Send, Delete)."""
QUOTA_SECONDS = 60.0
GOODBYE_SECONDS = 5.0
CTRL_C_SECONDS = 0.5
POLL_SECONDS = 1.0
FRESH_SECONDS = 1.0
PROBE_SECONDS = 2.0

UNKNOWN_SHELL = 2150858843
TOO_MANY_SHELLS = 0x803381A5
TOO_MANY_OPERATIONS = 0x803381A6
BUSY = 170
_ENDED_BY_SHUTDOWN = {UNKNOWN_SHELL, 995, 1115, 0x800703E3, 0x8007045B}
"""Faults of a Receive that say: the command is gone, not because it ended."""


class NoFreeShell(DeadlineExceeded):
    """The service has no room for another command; `said` is how it put that."""

    def __init__(self, message: str, fault: WsmanFault | NothingYet) -> None:
        self.said = fault.message if isinstance(fault, WsmanFault) else "it is busy"
        super().__init__(f"{message}; the last answer: {self.said}")


class WinRMCommunicator:
    """Commands of a Windows guest. All run in one remote shell until `release`, which is made anew when the guest lost
    it, or says that it has served enough commands."""

    def __init__(self, endpoint: Endpoint, *, upload: UploadWay = "stdin") -> None:
        self._endpoint = endpoint
        self._wire = Wire(endpoint)
        self._shell: str | None = None
        self._orphan: str | None = None
        """A shell that was lost with its connection; the guest may still have it."""
        self._open = True
        self._transfers: Transfers = EchoTransfers(self) if upload == "packer" else StdinTransfers(self)

    def run(
        self,
        command: str,
        *,
        deadline: Deadline,
        output: OutputCallback | None = None,
        stdin: bytes = b"",
        interrupted: Callable[[], bool] | None = None,
    ) -> CommandResult:
        """See `Communicator.run`. The command line goes to cmd.exe; a Windows guest knows no signals."""
        return self.stream(command, _pieces(stdin), deadline=deadline, output=output, interrupted=interrupted)

    def stream(
        self,
        command: str,
        stdin: Iterable[bytes],
        *,
        deadline: Deadline,
        output: OutputCallback | None = None,
        interrupted: Callable[[], bool] | None = None,
    ) -> CommandResult:
        """`run` with a standard input that comes in pieces, one message each; keep them under an envelope's size."""
        watch = _Watch(interrupted)
        try:
            shell, started = self._start(command, deadline, interrupted)
        except AnswerLost:  # of the command, which may run: it is lost like one that was cut off later
            return CommandResult(None, connection_lost=True)
        try:
            self._send(shell, started, stdin, deadline, interrupted)
            code = self._receive(shell, started, output, deadline, watch)
        except InterruptedWait:  # the caller knows that the guest rebooted
            self._lose()
            return CommandResult(None, connection_lost=True)
        except ConnectionLost:
            self._lose(self._shell)
            return CommandResult(None, connection_lost=True)
        except BaseException:
            self._end(shell, started)
            raise
        self._forget(shell, started)
        return CommandResult(code)

    def _start(self, command: str, deadline: Deadline, interrupted: Callable[[], bool] | None) -> tuple[str, str]:
        """Open a shell where there is none, and start the command. `AnswerLost` when it may run, any other
        `ConnectionLost` when nothing was started."""
        doing = "starting a command in the guest"
        if not self._open:
            deadline.check(doing)
            raise ConnectionLost(f"the connection to the guest is gone, so this did not start: {command[:80]}")
        patience = deadline.limited(QUOTA_SECONDS, f"the {QUOTA_SECONDS:.0f} s for a free shell in the guest")
        limit = deadline.limited(ANSWER_SECONDS, "the time for an answer of the guest's WinRM service")

        def start(protocol: Protocol) -> str:
            # A pipe, not a console, is standard input: it is the kind that has an end.
            return str(protocol.run_command(str(self._shell), command, console_mode_stdin=False))

        refused: WsmanFault | NothingYet | None = None
        while True:
            try:
                self._shell = self._shell or self._opened(limit, doing, interrupted)
                return self._shell, self._wire.call(start, limit, doing, interrupted, once=True)
            except (WsmanFault, NothingYet) as fault:
                self._renew_shell(fault, patience)
                refused = fault
            except DeadlineExceeded as error:
                if refused is not None:
                    raise NoFreeShell(error.message, refused) from error
                raise
            except InterruptedWait as error:
                self._lose()
                raise ConnectionLost("the guest rebooted before the command was started") from error
            except ConnectionLost:
                self._lose(self._shell)
                raise

    def _opened(self, limit: Deadline, doing: str, interrupted: Callable[[], bool] | None) -> str:
        try:
            return self._wire.call(_open_shell, limit, doing, interrupted)
        except AnswerLost as error:
            raise ConnectionLost(error.message, hint=error.hint) from error

    def _renew_shell(self, fault: WsmanFault | NothingYet, patience: Deadline) -> None:
        """What to do about a refused start: another shell, after a moment; raises when that will not help."""
        code = fault.code if isinstance(fault, WsmanFault) else BUSY
        if code not in {UNKNOWN_SHELL, TOO_MANY_OPERATIONS, TOO_MANY_SHELLS, BUSY}:
            if code in _ENDED_BY_SHUTDOWN:
                raise ConnectionLost("the guest is shutting down")
            assert isinstance(fault, WsmanFault)
            raise fault
        if code == TOO_MANY_OPERATIONS:
            self.release()
        self._shell = None
        if code != UNKNOWN_SHELL:
            try:
                patience.pause(POLL_SECONDS, "waiting for the guest's WinRM service to accept another command")
            except DeadlineExceeded as error:
                raise NoFreeShell(error.message, fault) from error

    def _send(
        self,
        shell: str,
        command: str,
        stdin: Iterable[bytes],
        deadline: Deadline,
        interrupted: Callable[[], bool] | None,
    ) -> None:
        """Give the command its input, then the end of it. One that ended, or does not read, refuses: that is its own
        affair, and what it did is in its output."""
        for piece, last in _marked(stdin):
            limit = deadline.limited(ANSWER_SECONDS, "the time for the guest to take the input of a command")
            while True:
                try:
                    self._wire.call(
                        lambda protocol, piece=piece, last=last: protocol.send_command_input(  # type: ignore[misc]
                            shell, command, piece, end=last
                        ),
                        limit,
                        "sending the input of a command to the guest",
                        interrupted,
                        once=True,
                    )
                    break
                except WsmanFault as fault:
                    if fault.code == UNKNOWN_SHELL or fault.code != BUSY:
                        return
                    limit.pause(POLL_SECONDS, "sending the input of a command to the guest")
                except NothingYet as error:
                    raise CommunicatorError("a command in the guest does not take its input") from error

    def _receive(
        self, shell: str, command: str, output: OutputCallback | None, deadline: Deadline, watch: _Watch
    ) -> int:
        """Pass on what the command prints as it prints it; its exit code when it ended."""
        doing = "waiting for a command in the guest"
        errors = ClixmlFilter()
        while True:
            watch.look()
            try:
                stdout, stderr, code, done = self._wire.call(
                    lambda protocol: protocol.get_command_output_raw(shell, command),
                    deadline,
                    doing,
                    watch.interrupted,
                    once=True,
                )
            except NothingYet:
                continue
            except WsmanFault as fault:
                if fault.code in _ENDED_BY_SHUTDOWN:
                    self._shell = None
                    raise ConnectionLost("the guest's shell is gone") from fault
                raise
            stderr = errors.feed(stderr) + (errors.flush() if done else b"")
            if output is not None:
                if stdout:
                    output("stdout", stdout)
                if stderr:
                    output("stderr", stderr)
            if done:
                return code & 0xFFFFFFFF
            deadline.check(doing)

    def _forget(self, shell: str, command: str) -> None:
        """Let the service free what it keeps of a command that ended; whether it did is of no interest."""
        limit = Deadline.after(GOODBYE_SECONDS, "the time for a goodbye")
        with suppress(AibError, NothingYet):
            self._wire.call(lambda protocol: protocol.cleanup_command(shell, command), limit, "ending a command")

    def _end(self, shell: str, command: str) -> None:
        """Stop a command: ctrl-c, a moment for its cleanup, terminate, and away with the shell; all within 5 s."""
        limit = Deadline.after(GOODBYE_SECONDS, "the time for ending a command in the guest")
        self._wire.drop()
        self._shell = None
        doing = "ending a command in the guest"
        with suppress(AibError, NothingYet):
            self._wire.call(lambda protocol: interrupt(protocol, shell, command), limit, doing)
            limit.pause(CTRL_C_SECONDS, doing)
        with suppress(AibError, NothingYet):
            self._wire.call(lambda protocol: protocol.cleanup_command(shell, command), limit, doing)
        self._delete(shell, limit)

    def _delete(self, shell: str, limit: Deadline) -> None:
        with suppress(AibError, NothingYet):
            self._wire.call(lambda protocol: protocol.close_shell(shell, close_session=False), limit, "closing a shell")

    def release(self) -> None:
        """End the remote shell, and with it whatever its commands left running: Packer does so after each command, here
        it is done after each customizer."""
        shell, self._shell = self._shell, None
        if shell is not None and self._open:
            self._delete(shell, Deadline.after(GOODBYE_SECONDS, "the time for closing a shell"))

    def sibling(self) -> WinRMCommunicator:
        """Another communicator for the same guest, to ask something while a command runs."""
        return WinRMCommunicator(self._endpoint)

    def exchange(self, action: Callable[[Protocol], int], deadline: Deadline, doing: str) -> int:
        """One request beside commands (the transfers ask for the service's limits)."""
        return self._wire.call(action, deadline.limited(ANSWER_SECONDS, "the time for an answer"), doing)

    def upload(self, source: Path | bytes, destination: str, *, mode: int | None = None, deadline: Deadline) -> None:
        """See `Communicator.upload`; Windows has no mode bits. The guest compares the SHA-256 before it replaces."""
        self._transfers.upload(source, destination, deadline)

    def download(self, source: str, destination: Path, *, deadline: Deadline) -> None:
        """See `Communicator.download`; the SHA-256 is compared."""
        self._transfers.download(source, destination, deadline)

    def alive(self) -> bool:
        """Whether the guest took commands when last asked, and its listener still accepts connections."""
        if self._open and time.monotonic() - self._wire.last_answer > FRESH_SECONDS:
            try:
                socket.create_connection((self._endpoint.host, self._endpoint.port), timeout=PROBE_SECONDS).close()
            except OSError:
                self._lose(self._shell)
        return self._open

    def _lose(self, orphan: str | None = None) -> None:
        self._open = False
        self._shell = None
        self._orphan = orphan or self._orphan
        self._wire.drop()

    def close(self) -> None:
        """Delete the shell and close the connection; safe to call twice. A shell whose connection was lost is deleted
        over another one where the guest still answers, and its command with it; that takes 5 s at most."""
        self.release()
        orphan, self._orphan = self._orphan, None
        if orphan is not None:
            self._delete(orphan, Deadline.after(GOODBYE_SECONDS, "the time for closing a shell"))
        self._lose()


class _Watch:
    """The caller's `interrupted`, asked once a second also while output flows."""

    def __init__(self, interrupted: Callable[[], bool] | None) -> None:
        self._ask = interrupted
        self._next = time.monotonic() + POLL_SECONDS
        self.interrupted = interrupted

    def look(self) -> None:
        if self._ask is None or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + POLL_SECONDS
        if self._ask():
            raise InterruptedWait("waiting for a command in the guest")


def _open_shell(protocol: Protocol) -> str:
    return str(protocol.open_shell(codepage=CODE_PAGE))


def _pieces(data: bytes) -> Iterator[bytes]:
    view = memoryview(data)
    for start in range(0, len(view), CHUNK):
        yield bytes(view[start : start + CHUNK])


def _marked(pieces: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Each piece, and whether it is the last; one empty piece when there is none."""
    held: bytes | None = None
    for piece in pieces:
        if held is not None:
            yield held, False
        held = piece
    yield held or b"", True
