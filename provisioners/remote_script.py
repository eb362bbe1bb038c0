"""Sending a script to a Linux guest, running it as Packer does, and judging how it ended (`aib-service.md` 2.4)."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from shlex import quote

from provisioners import exit_codes, reboot
from provisioners.base import Context, Guest, Outcome, StepError
from provisioners.capture import Capture
from provisioners.communicators.base import CommandResult, CommunicatorError, ConnectionLost
from provisioners.reboot import BootState, NoReboot

TAIL_BYTES = 8 * 1024
REBOOTED = "the guest rebooted during this step; what the script had left to do was not run"


def script_path(suffix: str = ".sh") -> str:
    """`/tmp/script_<0..9998>.sh`, the name the service's Packer gives (PKR)."""
    return f"/tmp/script_{secrets.randbelow(9999)}{suffix}"


def assignments(environment: Mapping[str, str]) -> str:
    """`A='b' ` for each variable, quoted as Packer quotes."""
    return "".join("{}='{}' ".format(name, value.replace("'", "'\"'\"'")) for name, value in environment.items())


@dataclass(frozen=True, slots=True)
class RemoteScript:
    """One script in the guest: its bytes, where it goes and the command line that runs it."""

    content: bytes
    path: str
    command: str
    valid_exit_codes: frozenset[int] = frozenset({0})
    reboot_limit: float = field(default=reboot.SSH_LIMIT_SECONDS)

    def run(self, guest: Guest, context: Context) -> Outcome:
        """Upload, run, judge, remove. Raises `StepError`; survives a reboot that the script asks for (SEED S21)."""
        try:
            return self._run(guest, context)
        except CommunicatorError as error:
            raise StepError(error.message, hint=error.hint, command=self.command) from error

    def _run(self, guest: Guest, context: Context) -> Outcome:
        said = Capture(TAIL_BYTES, context.output)
        before, result = self._start(guest, context, said)
        code = result.exit_code
        if code in self.valid_exit_codes and code is not None:
            return self._finish(guest, before, context, result)
        if result.connection_lost or self._going_down(guest, before, result, context):
            self._come_back(guest, before, context)
            self._remove(guest, context)
            return Outcome(exit_code=0, rebooted=True, notes=(REBOOTED,))
        raise self._failure(guest, result, said, context)

    def _start(self, guest: Guest, context: Context, said: Capture) -> tuple[BootState, CommandResult]:
        """Upload and run; what an earlier script's reboot cuts before the start is tried again for 5 minutes."""
        limit = context.deadline.limited(reboot.START_LIMIT_SECONDS, "the 5 minutes for starting a script")
        while True:
            before = reboot.known_boot_state(guest, context)
            watch = reboot.interruption(guest, before)
            try:
                guest.communicator.upload(self.content, self.path, mode=0o755, deadline=context.deadline)
                result = guest.communicator.run(self.command, deadline=context.deadline, output=said, interrupted=watch)
            except ConnectionLost as error:
                context.deadline.check("starting a script in the guest")
                if limit.over:
                    raise StepError(f"the script could not be started: {error.message}", hint=error.hint) from error
                reboot.disconnect(guest)
            except CommunicatorError as error:
                raise self._not_sent(error) from error
            else:
                return before, result

    def _not_sent(self, error: CommunicatorError) -> StepError:
        hint = error.hint
        if "no space left" in error.message:
            hint = "an earlier step filled the guest's disk: free some, or ask for a larger osDiskSizeGB"
        return StepError(f"the script could not be sent: {error.message}", hint=hint, command=self.command)

    def _finish(self, guest: Guest, before: BootState, context: Context, result: CommandResult) -> Outcome:
        """The script ended well; a reboot may still follow, and the next step must not run into it."""
        code = result.exit_code or 0
        rebooting = result.connection_lost
        if not rebooting and reboot.may_reboot(self.content):
            rebooting = reboot.follow_up(guest, before, self.path, context)
        if not rebooting:
            rebooting = self._remove(guest, context)
        if not rebooting:
            return Outcome(exit_code=code)
        try:
            self._come_back(guest, before, context)
        except NoReboot:
            # The script had ended: only the connection went, and the next step has a new one.
            return Outcome(exit_code=code)
        self._remove(guest, context)
        return Outcome(exit_code=code, rebooted=True, notes=("the guest rebooted at the end of this step",))

    def _come_back(self, guest: Guest, before: BootState, context: Context) -> None:
        context.say("The guest went away: waiting for it to come back after a reboot")
        seconds = reboot.survive(guest, before, context, limit_seconds=self.reboot_limit)
        context.say(f"The guest rebooted and answered again after {seconds:.0f} s")

    def _remove(self, guest: Guest, context: Context) -> bool:
        """Remove the script as Packer does; true when the guest turns out to be going down."""
        try:
            return reboot.going_down(guest, context.deadline, first=f"rm -f {quote(self.path)}")
        except ConnectionLost:
            return True

    @staticmethod
    def _going_down(guest: Guest, before: BootState, result: CommandResult, context: Context) -> bool:
        """Whether a script that was ended by a signal was ended by a shutdown: then sshd reports before it goes."""
        if result.exit_code is not None and result.exit_code <= 128:
            return False
        if guest.reboots() > before.reboots:
            return True
        try:
            return reboot.going_down(guest, context.deadline)
        except ConnectionLost:
            return True

    def _failure(self, guest: Guest, result: CommandResult, said: Capture, context: Context) -> StepError:
        code = result.exit_code
        line = self._line(said)
        where = f" at line {line[0]}: {line[1]}" if line else ""
        if code is None:
            ended = f"by SIG{result.signal}" if result.signal else "without an exit status"
            hint = "it was not a reboot: the connection still stands; did it kill itself, or did memory run out?"
            message = f"The script was ended {ended}"
        else:
            allowed = " ".join(str(valid) for valid in sorted(self.valid_exit_codes))
            message = (
                f"Script exited with non-zero exit status: {code}. Allowed exit codes are: [{allowed}]: "
                f"{exit_codes.describe(code)}"
            )
            hint = self._noexec(guest, context) if code == 126 else ""
            hint = hint or exit_codes.hint(code)
        return StepError(
            message + where,
            hint=hint,
            guest_exit_code=code,
            command=self.command,
            line=line[0] if line else None,
        )

    def _line(self, said: Capture) -> tuple[int, str] | None:
        """The script line that the shell's last message names: dash `P: 3: x: not found`, bash `P: line 3: ...`."""
        found = re.findall(rf"{re.escape(self.path)}: (?:line )?(\d+): ", said.error_text)
        lines = self.content.split(b"\n")
        if not found or not 0 < int(found[-1]) <= len(lines):
            return None
        number = int(found[-1])
        return number, lines[number - 1].decode(errors="replace").strip()[:200]

    @staticmethod
    def _noexec(guest: Guest, context: Context) -> str:
        """A hardened image may mount /tmp noexec; the service's Packer fails there too."""
        said = Capture(4096)
        try:
            guest.communicator.run(
                "grep ' /tmp ' /proc/mounts", deadline=context.deadline.limited(30, "reading the mounts"), output=said
            )
        except CommunicatorError:
            return ""
        if "noexec" not in said.text:
            return ""
        return "/tmp is mounted noexec in this image: the service cannot run scripts there either; remount it exec"
