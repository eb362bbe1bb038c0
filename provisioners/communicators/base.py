"""The small seam to a guest: one contract suite runs over every implementation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from hypervisor.deadline import Deadline
from hypervisor.errors import BuildError

Stream = Literal["stdout", "stderr"]
OutputCallback = Callable[[Stream, bytes], None]
"""Called with raw bytes as they arrive, in the order of arrival within one stream."""


class CommunicatorError(BuildError):
    """The guest could not be reached, refused us, or a transfer failed."""


class ConnectionLost(CommunicatorError):
    """An established connection went away."""


class GuestGone(CommunicatorError):
    """The machine itself is off: waiting for it is pointless."""


class HostKeyMismatch(CommunicatorError):
    """Whoever answers is not the guest that was started: its host key is another one."""


class AuthenticationRefused(CommunicatorError):
    """The guest does not take the key of the build."""


@dataclass(frozen=True, slots=True)
class CommandResult:
    """How a remote command ended.

    `exit_code` is None when the guest sent no exit status: then either `signal` names the signal (without SIG)
    that ended the command, or the connection went away (`connection_lost`), or the remote shell was killed.
    """

    exit_code: int | None
    signal: str = ""
    connection_lost: bool = False


class Communicator(Protocol):
    """One authenticated connection to a guest."""

    def run(
        self,
        command: str,
        *,
        deadline: Deadline,
        output: OutputCallback | None = None,
        stdin: bytes = b"",
        interrupted: Callable[[], bool] | None = None,
    ) -> CommandResult:
        """Run `command` in the login user's default shell, without a terminal; stdin is `stdin`, then end-of-file.

        Never raises for a failing command or a lost connection: that is in the result. Raises `DeadlineExceeded`
        or `Cancelled` after having asked the guest to end the command, and `ConnectionLost` only when the command
        could not be started at all. `interrupted` is polled at least once a second: when it returns true, waiting
        ends with `connection_lost=True` (the hypervisor saw the guest reboot without a goodbye).
        """
        ...

    def upload(self, source: Path | bytes, destination: str, *, mode: int | None = None, deadline: Deadline) -> None:
        """Write a file or bytes to the full guest path `destination`, replacing it.

        Raises `CommunicatorError` when the parent folder is missing or not writable; never leaves a half file
        under the final name unnoticed (size is checked).
        """
        ...

    def download(self, source: str, destination: Path, *, deadline: Deadline) -> None:
        """Copy the guest file `source` to `destination`; raises `CommunicatorError` when it is not there."""
        ...

    def alive(self) -> bool:
        """Whether the connection still stands (no traffic is promised)."""
        ...

    def close(self) -> None:
        """Close the connection; safe to call twice."""
        ...
