"""What the provisioners of Windows guests share: reaching the guest, knowing its boot, asking it small questions."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Protocol, runtime_checkable

from hypervisor.deadline import Deadline
from hypervisor.errors import BuildError, DeadlineExceeded
from provisioners import windows_payloads
from provisioners.base import Context, Guest, StepError
from provisioners.capture import Capture
from provisioners.communicators.base import Communicator, CommunicatorError, ConnectionLost, GuestGone
from provisioners.reboot import START_LIMIT_SECONDS, BootState, connected, disconnect

TEMP = "c:/Windows/Temp"
ASK_SECONDS = 120.0
"""For an answer of PowerShell: its first start on a cold, emulated machine takes long."""
POLL_SECONDS = 1.0
CONNECTION_LOST = 16001
"""What Packer makes of a WinRM connection that ends under a command (PKR: masterzen/winrm)."""


@runtime_checkable
class Shells(Protocol):
    """A communicator whose commands live in a remote shell."""

    def release(self) -> None:
        """End the shell, and what its commands left running."""
        ...

    def sibling(self) -> Communicator:
        """Another connection, to ask something while a command runs."""
        ...


@contextmanager
def customizer(guest: Guest) -> Iterator[str]:
    """The time of one customizer; gives a name for its files, and ends its remote shell whatever happens."""
    try:
        yield str(uuid.uuid4())
    finally:
        with suppress(BuildError):
            communicator = guest.communicator
            if isinstance(communicator, Shells):
                communicator.release()


def reach(guest: Guest, context: Context, *, limit_seconds: float = START_LIMIT_SECONDS) -> BootState:
    """Which boot the guest is in, over a connection that may have to be made anew.

    An earlier step may have left a restart behind, so a lost connection is tried again for 5 minutes, as Packer does.
    Raises `StepError` when the guest does not come back.
    """
    limit = context.deadline.limited(limit_seconds, f"the {limit_seconds / 60:g} minutes for reaching the guest")
    while True:
        try:
            if not connected(guest):
                guest.reconnect(limit)
            reboots = guest.reboots()
            return BootState(boot_id(guest, limit), reboots)
        except CommunicatorError as error:
            if limit.over or isinstance(error, GuestGone) or not isinstance(error, ConnectionLost):
                context.deadline.check("reaching the guest")
                raise StepError(f"the guest cannot be reached: {error.message}", hint=error.hint) from error
            disconnect(guest)
            context.deadline.pause(POLL_SECONDS, "reaching the guest")
        except DeadlineExceeded as error:
            context.deadline.check("reaching the guest")
            raise StepError(f"the guest does not answer: {error.message}", hint=error.hint) from error


def boot_id(guest: Guest, deadline: Deadline) -> str:
    """When this boot of the guest began, by its own clock; `ConnectionLost` when it does not answer."""
    return ask(guest.communicator, "boot-id.ps1", deadline, guest=guest).strip()


def ask(
    communicator: Communicator, payload: str, deadline: Deadline, *, stdin: bytes = b"", guest: Guest | None = None
) -> str:
    """What a small payload prints; `ConnectionLost` when there is no answer."""
    said = Capture(64 * 1024)
    limit = deadline.limited(ASK_SECONDS, "an answer of the guest")
    counted = guest.reboots() if guest is not None else 0
    interrupted = (lambda: guest.reboots() > counted) if guest is not None else None
    try:
        result = communicator.run(
            windows_payloads.command(payload), deadline=limit, output=said, stdin=stdin, interrupted=interrupted
        )
    except DeadlineExceeded as error:
        deadline.check()
        raise ConnectionLost(f"the guest did not answer within {ASK_SECONDS:.0f} s") from error
    if result.connection_lost:
        raise ConnectionLost("the guest went away while it was asked something")
    if result.exit_code != 0:
        raise CommunicatorError(
            f"the guest's PowerShell ended with {result.exit_code}: {said.error_text.strip()[-300:]}",
            hint="aib needs PowerShell 5.1 in the guest, as the service does",
        )
    return said.text


def remove_files(guest: Guest, paths: list[str], deadline: Deadline) -> None:
    """Delete files of ours, best effort: it is of no consequence when one stays."""
    names = " ".join('"{}"'.format(path.replace("/", "\\")) for path in paths)
    with suppress(BuildError, DeadlineExceeded):
        guest.communicator.run(f"del /f /q {names}", deadline=deadline.limited(30, "removing a script"))
