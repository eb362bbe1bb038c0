"""Reboots of a Linux guest: noticing them, telling them from a lost connection, and getting back (SEED S21)."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from hypervisor.deadline import Deadline
from hypervisor.errors import BuildError, DeadlineExceeded
from provisioners.base import Context, Guest, StepError
from provisioners.capture import Capture
from provisioners.communicators.base import Communicator, CommunicatorError, ConnectionLost, GuestGone

SSH_LIMIT_SECONDS = 20 * 60.0
"""The service waits so long for SSH after a reboot (SEED S21)."""
START_LIMIT_SECONDS = 5 * 60.0
"""The service tries so long to start a script (PKR start_retry_timeout)."""
SAME_BOOT_GRACE_SECONDS = 15.0
"""A guest that answers with the old boot id and is not going down had no reboot."""
FOLLOW_UP_SECONDS = 5.0
"""A script that asks for a reboot and exits 0: how long to look for signs of it."""
ASK_SECONDS = 60.0
POLL_SECONDS = 1.0

_BOOT_ID = "cat /proc/sys/kernel/random/boot_id"

# "stopping": systemd is going down. Its state needs the bus or root; neither is there on every image.
_GOING_DOWN = (
    "s=; if command -v systemctl >/dev/null; then s=$(systemctl is-system-running 2>/dev/null); "
    'case "$s" in ""|offline|unknown) s=$(sudo -n systemctl is-system-running 2>/dev/null);; esac; fi; '
    'if [ "$s" = stopping ]; then echo stopping; '
    "elif [ -e /run/systemd/shutdown/scheduled ]; then echo scheduled; else echo running; fi"
)

# Not `/run/reboot-required`, which many scripts test. A word too many costs `FOLLOW_UP_SECONDS`.
_REBOOT_WORDS = re.compile(rb"\b(?:reboot|shutdown|kexec|(?:tel)?init\s+6|sysrq-trigger)\b(?![-.])")


class NoReboot(StepError):
    """The connection was lost, but the guest is still in the same boot."""


@dataclass(frozen=True, slots=True)
class BootState:
    """Which boot the guest was in: its boot id and how many reboots the hypervisor had counted."""

    boot_id: str
    reboots: int


_KNOWN: WeakKeyDictionary[Communicator, BootState] = WeakKeyDictionary()
"""By connection: no connection outlives a reboot, so that one that stands need not be asked twice."""


def known_boot_state(guest: Guest, context: Context) -> BootState:
    """As `boot_state`, without asking over a connection that was asked before and seems to stand.

    For whoever notices by itself when the connection turns out to be gone.
    """
    if connected(guest):
        known = _KNOWN.get(guest.communicator)
        if known is not None and known.reboots == guest.reboots():
            return known
    return boot_state(guest, context)


def boot_state(guest: Guest, context: Context) -> BootState:
    """As `boot_state_by`, for a step."""
    return boot_state_by(guest, context.deadline)


def boot_state_by(guest: Guest, deadline: Deadline) -> BootState:
    """Which boot this is, over a connection that may have to be made anew.

    A step starts here: an earlier script may have left a reboot running in the background, so a lost connection is
    tried again for 5 minutes, as the service does. Raises `StepError` when the guest does not come back.
    """
    limit = deadline.limited(START_LIMIT_SECONDS, "the 5 minutes for starting a script")
    while True:
        try:
            if not connected(guest):
                guest.reconnect(deadline.limited(SSH_LIMIT_SECONDS, "the 20 minutes for reaching the guest"))
            reboots = guest.reboots()
            state = BootState(_ask(guest, _BOOT_ID, limit), reboots)
        except CommunicatorError as error:
            if limit.remaining() <= 0 or isinstance(error, GuestGone):
                deadline.check("reaching the guest")
                raise StepError(f"the guest cannot be reached: {error.message}", hint=error.hint) from error
            disconnect(guest)
            deadline.pause(POLL_SECONDS, "reaching the guest")
        except DeadlineExceeded as error:
            deadline.check("reaching the guest")
            raise StepError(f"the guest does not answer: {error.message}") from error
        else:
            _KNOWN[guest.communicator] = state
            return state


def connected(guest: Guest) -> bool:
    """Whether there is a connection that stands; there is none at all after a reconnect that failed."""
    try:
        return guest.communicator.alive()
    except BuildError:
        return False


def disconnect(guest: Guest) -> None:
    """Close the connection, where there is one."""
    with suppress(BuildError):
        guest.communicator.close()


def going_down(guest: Guest, deadline: Deadline, first: str = ":") -> bool:
    """Whether a reboot or shutdown is under way, or scheduled (`shutdown -r +1`); runs `first` before it looks."""
    return _ask(guest, f"{first}; {_GOING_DOWN}", deadline) != "running"


def may_reboot(script: bytes) -> bool:
    """Whether a script seems to ask for a reboot. Used for care, never for a verdict."""
    return _REBOOT_WORDS.search(script) is not None


def interruption(guest: Guest, before: BootState) -> Callable[[], bool]:
    """For `Communicator.run`: true once the hypervisor saw a reboot (`reboot -f` leaves the connection hanging)."""
    return lambda: guest.reboots() > before.reboots


def survive(guest: Guest, before: BootState, context: Context, *, limit_seconds: float = SSH_LIMIT_SECONDS) -> float:
    """Wait until the guest answers from another boot than `before`; returns the seconds it took.

    Raises `StepError` when it answers from the same boot and is not going down (the connection was lost without a
    reboot), or not at all within `limit_seconds`.
    """
    started = time.monotonic()
    limit = context.deadline.limited(limit_seconds, f"the {limit_seconds / 60:g} minutes for coming back")
    same_since: float | None = None
    doing = "waiting for the guest to come back after a reboot"
    disconnect(guest)
    try:
        while True:
            try:
                if not connected(guest):
                    guest.reconnect(limit)
                if _ask(guest, _BOOT_ID, limit) != before.boot_id:
                    return time.monotonic() - started
                # sshd may accept once more while the old boot goes down: look again until it did, or will not.
                expected = guest.reboots() > before.reboots or going_down(guest, limit)
                same_since = None if expected else (same_since or time.monotonic())
            except GuestGone as error:
                raise StepError(
                    "the guest powered off during this step",
                    hint="a script may reboot the build VM, but not shut it down: that comes after the last step",
                ) from error
            except CommunicatorError:
                disconnect(guest)
                same_since = None
            if same_since is not None and time.monotonic() - same_since > SAME_BOOT_GRACE_SECONDS:
                raise NoReboot(
                    "the connection to the guest was lost, but the guest did not reboot",
                    hint="does the script stop sshd, close the network or a firewall, or kill its own session?",
                )
            limit.pause(POLL_SECONDS, doing)
    except DeadlineExceeded as error:
        context.deadline.check(doing)
        seen = "saw it reboot" if guest.reboots() > before.reboots else "saw no reboot"
        raise StepError(
            f"the connection to the guest was lost and it did not answer again: {error.message} "
            f"(the hypervisor {seen})",
            hint="the console log of the run shows how far it came; a script must not stop sshd or the network",
        ) from error


def follow_up(guest: Guest, before: BootState, script_path: str, context: Context) -> bool:
    """After a script that asks for a reboot ended with exit 0: true when the guest is on its way into one.

    Without this look the next script would start in a system that is going down. Waits while something that the
    script left in the background (`(sleep 30; reboot) &`) still runs, at most 20 minutes.
    """
    limit = context.deadline.limited(SSH_LIMIT_SECONDS, "the 20 minutes for a reboot that a script asked for")
    quiet_until = time.monotonic() + FOLLOW_UP_SECONDS
    told = False
    try:
        while time.monotonic() < quiet_until:
            if guest.reboots() > before.reboots or not connected(guest) or going_down(guest, limit):
                return True
            if _ask(guest, _BOOT_ID, limit) != before.boot_id:
                return True
            if _ask(guest, _left_behind(script_path), limit) == "yes":
                quiet_until = time.monotonic() + FOLLOW_UP_SECONDS
                if not told:
                    context.say("The script left something running in the background that may reboot: waiting for it")
                    told = True
            limit.pause(POLL_SECONDS, "waiting for a reboot that a script asked for")
    except ConnectionLost:
        return True
    except DeadlineExceeded:
        context.deadline.check("waiting for a reboot that a script asked for")
    return False


def _left_behind(script_path: str) -> str:
    """Whether a process of the script still runs (a background part of a script keeps its command line).

    Reads /proc, as not every image has pgrep; the brackets keep the question from finding itself.
    """
    name = script_path.rsplit("/", 1)[-1]
    pattern = f"[{name[0]}]{name[1:]}".replace(".", "[.]")
    return f"if grep -qs '{pattern}' /proc/[0-9]*/cmdline; then echo yes; else echo no; fi"


def _ask(guest: Guest, command: str, deadline: Deadline) -> str:
    """The first line of what `command` prints; raises `ConnectionLost` when there is no answer."""
    said = Capture(4096)
    limit = deadline.limited(ASK_SECONDS, "an answer of the guest")
    counted = guest.reboots()
    try:
        result = guest.communicator.run(
            command, deadline=limit, output=said, interrupted=lambda: guest.reboots() > counted
        )
    except DeadlineExceeded as error:
        deadline.check()
        raise ConnectionLost(f"the guest did not answer within {ASK_SECONDS:.0f} s") from error
    lines = said.text.split()
    if result.exit_code != 0 or not lines:
        raise ConnectionLost(f"the guest gave no answer to: {command[:60]}")
    return lines[0]
