"""The PowerShell customizer on a Linux guest (SEED S22: "Windows and Linux"; later documents: Windows only)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from provisioners.base import Context, Guest, Outcome, StepError
from provisioners.capture import Capture
from provisioners.communicators.base import CommunicatorError
from provisioners.reboot import SSH_LIMIT_SECONDS, connected
from provisioners.remote_script import RemoteScript, assignments, script_path


@dataclass(frozen=True, slots=True)
class LinuxPowerShell:
    """One PowerShell script, run by the image's own `pwsh`. `run_elevated` runs it as root, through sudo."""

    content: bytes = field(repr=False)
    valid_exit_codes: frozenset[int] = frozenset({0})
    run_elevated: bool = False
    reboot_limit: float = SSH_LIMIT_SECONDS

    @classmethod
    def inline(
        cls, lines: Sequence[str], *, valid_exit_codes: Sequence[int] = (0,), run_elevated: bool = False
    ) -> LinuxPowerShell:
        """All lines as one script."""
        text = "\n".join(lines).encode("utf-8", "surrogatepass") + b"\n"
        return cls(text, frozenset(valid_exit_codes or (0,)), run_elevated)

    @classmethod
    def script(
        cls, payload: Path | bytes, *, valid_exit_codes: Sequence[int] = (0,), run_elevated: bool = False
    ) -> LinuxPowerShell:
        """A fetched script."""
        content = payload if isinstance(payload, bytes) else payload.read_bytes()
        return cls(content, frozenset(valid_exit_codes or (0,)), run_elevated)

    def apply(self, guest: Guest, context: Context) -> Outcome:
        """See `Provisioner.apply`; a guest without PowerShell is a `StepError`."""
        _require_pwsh(guest, context)
        path = script_path(".ps1")
        command = pwsh_command(path, context.environment, elevated=self.run_elevated)
        script = RemoteScript(self.content, path, command, self.valid_exit_codes, self.reboot_limit)
        return script.run(guest, context)


def pwsh_command(path: str, environment: Mapping[str, str], *, elevated: bool) -> str:
    """The command line that runs the script at `path`."""
    variables = assignments(environment)
    run = f"pwsh -NoProfile -NonInteractive -File {path}"
    return f"sudo -n env {variables} {run}" if elevated else f"{variables} {run}"


def _require_pwsh(guest: Guest, context: Context) -> None:
    said = Capture(4096)
    try:
        if not connected(guest):
            guest.reconnect(context.deadline)
        limit = context.deadline.limited(60, "looking for pwsh")
        result = guest.communicator.run("command -v pwsh", deadline=limit, output=said)
    except CommunicatorError as error:
        raise StepError(f"the guest cannot be reached: {error.message}", hint=error.hint) from error
    if result.exit_code != 0:
        raise StepError(
            "this Linux guest has no PowerShell (pwsh is not in PATH)",
            hint="use a Shell customizer, install PowerShell in an earlier step, or take an image that has it",
            guest_exit_code=127,
            command="pwsh",
        )
