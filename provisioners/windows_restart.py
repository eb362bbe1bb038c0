"""The WindowsRestart customizer (SEED S20; PKR windows-restart), without Packer's probe by a second shutdown."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

from hypervisor.deadline import Deadline
from hypervisor.errors import DeadlineExceeded
from provisioners import windows_exit_codes
from provisioners.base import Context, Guest, Outcome, StepError
from provisioners.capture import Capture
from provisioners.communicators.base import CommandResult, CommunicatorError, ConnectionLost, GuestGone
from provisioners.reboot import BootState, connected, disconnect, interruption
from provisioners.windows_guest import boot_id, customizer, reach

DEFAULT_COMMAND = 'shutdown /r /f /t 0 /c "packer restart"'
DEFAULT_TIMEOUT = 5 * 60.0
ACCEPTED = frozenset({0, 1115, 1190})
"""0; a shutdown is in progress; a shutdown has already been scheduled (PKR)."""
SHUTTING_DOWN = 1115
TIMED_OUT = "Timeout waiting for machine to restart."
NO_REBOOT_SECONDS = 60.0
"""So long after its command a guest that still answers from the same boot is watched, beyond a `/t` of the command."""
POLL_SECONDS = 2.0
CHECK_SECONDS = 5.0
_DELAY = re.compile(r"[/-]t\s+(\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class WindowsRestart:
    """Restarts the guest and waits until it answers from another boot. Times in seconds.

    `check_command` runs once after it, and its exit code does not matter (the oracle showed it). A guest that does not
    restart is a warning, as on the service, or an error with `require_reboot`.
    """

    command: str = DEFAULT_COMMAND
    check_command: str = ""
    timeout: float = DEFAULT_TIMEOUT
    require_reboot: bool = False

    def apply(self, guest: Guest, context: Context) -> Outcome:
        """See `Provisioner.apply`."""
        with customizer(guest):
            try:
                return self._apply(guest, context)
            except GuestGone as error:
                raise StepError(
                    "the guest powered off instead of restarting",
                    hint="`shutdown /s` ends the build VM; a restart is `shutdown /r`",
                    command=self.command,
                ) from error
            except CommunicatorError as error:
                raise StepError(error.message, hint=error.hint, command=self.command) from error

    def _apply(self, guest: Guest, context: Context) -> Outcome:
        context.say("Restarting Machine")
        before, code = self._restart(guest, context)
        context.say("Waiting for machine to restart...")
        limit = context.deadline.limited(self.timeout, f"the restartTimeout of {self.timeout:g} s")
        try:
            rebooted = self._wait(guest, before, limit)
            if rebooted and self.check_command:
                self._check(guest, context, limit)
        except DeadlineExceeded as error:
            context.deadline.check("waiting for the guest to restart")
            seen = "saw it reboot" if guest.reboots() > before.reboots else "saw no reboot"
            raise StepError(
                f"{TIMED_OUT} ({self.timeout:g} s; the hypervisor {seen})",
                hint="give it more time with restartTimeout, such as 15m, or look at the build VM's screen",
                command=self.command,
            ) from error
        if not rebooted:
            return self._no_reboot(guest, context, limit, code)
        context.say("Machine successfully restarted, moving on")
        return Outcome(exit_code=code, rebooted=True)

    def _restart(self, guest: Guest, context: Context) -> tuple[BootState, int]:
        """Run the command; its start is tried again while the time lasts. A lost connection is the restart itself."""
        limit = context.deadline.limited(self.timeout, f"the restartTimeout of {self.timeout:g} s")
        while True:
            before = reach(guest, context)
            try:
                result = self._run(guest, self.command, before, context.deadline, Capture(8192, context.output))
            except ConnectionLost as error:
                context.deadline.check("starting the restart")
                if limit.over:
                    raise StepError(f"the restart could not be started: {error.message}", hint=error.hint) from error
                disconnect(guest)
                continue
            if result.connection_lost or result.exit_code is None:
                return before, 0
            if result.exit_code not in ACCEPTED:
                raise StepError(
                    f"Restart script exited with non-zero exit status: {result.exit_code}: "
                    f"{windows_exit_codes.describe(result.exit_code)}",
                    hint="0, 1115 and 1190 are accepted",
                    guest_exit_code=result.exit_code,
                    command=self.command,
                )
            return before, result.exit_code

    @staticmethod
    def _run(guest: Guest, command: str, before: BootState, deadline: Deadline, said: Capture) -> CommandResult:
        return guest.communicator.run(command, deadline=deadline, output=said, interrupted=interruption(guest, before))

    def _wait(self, guest: Guest, before: BootState, limit: Deadline) -> bool:
        """Wait for another boot; false when the guest goes on answering from the same one."""
        given = time.monotonic() + min(self.timeout - 2 * POLL_SECONDS, NO_REBOOT_SECONDS + self._delay())
        doing = "waiting for the guest to restart"
        while True:
            try:
                if not connected(guest):
                    guest.reconnect(limit)
                if boot_id(guest, limit) != before.boot_id:
                    return True
                if guest.reboots() <= before.reboots and time.monotonic() >= given:
                    if not self._under_way(guest, before, limit):
                        return False
                    given = time.monotonic() + NO_REBOOT_SECONDS
            except GuestGone:
                raise
            except CommunicatorError:
                disconnect(guest)
            limit.pause(POLL_SECONDS, doing)

    def _under_way(self, guest: Guest, before: BootState, limit: Deadline) -> bool:
        """Whether the guest is shutting down, only slowly. There is nothing left to abort that was asked for: the
        command's own delay is over."""
        result = self._run(guest, "shutdown /a", before, limit, Capture(4096))
        return result.connection_lost or result.exit_code == SHUTTING_DOWN

    def _delay(self) -> float:
        found = _DELAY.search(self.command)
        return float(found[1]) if found else 0.0

    def _check(self, guest: Guest, context: Context, limit: Deadline) -> None:
        """Run the check until the connection lasts through it once."""
        while True:
            try:
                before = reach(guest, context)
                result = self._run(guest, self.check_command, before, limit, Capture(8192, context.output))
            except ConnectionLost:
                result = CommandResult(None, connection_lost=True)
            if not result.connection_lost:
                if result.exit_code:
                    context.say(
                        f"restartCheckCommand ended with {windows_exit_codes.describe(result.exit_code)}; that does "
                        "not fail the build, here and on the service"
                    )
                return
            disconnect(guest)
            limit.pause(CHECK_SECONDS, "running restartCheckCommand")

    def _no_reboot(self, guest: Guest, context: Context, limit: Deadline, code: int) -> Outcome:
        if self.require_reboot:
            raise StepError(
                "the guest did not restart, though its restart command succeeded",
                hint="look at restartCommand; without --require-reboot this is a warning, as on the service",
                guest_exit_code=code,
                command=self.command,
            )
        context.deviation(
            "no-reboot",
            f"the guest did not restart after {self.command!r}: the step passes, as on the service",
        )
        if self.check_command:
            self._check(guest, context, limit)
        return Outcome(exit_code=code, notes=("the guest did not restart",))
