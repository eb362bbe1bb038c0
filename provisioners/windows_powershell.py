"""The PowerShell customizer and validator on a Windows guest, run as the service's Packer runs it (PKR; SEED S22)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from provisioners import windows_exit_codes
from provisioners.base import Context, Guest, Outcome, StepError
from provisioners.capture import Capture
from provisioners.communicators.base import CommandResult, CommunicatorError, ConnectionLost
from provisioners.reboot import START_LIMIT_SECONDS, BootState, disconnect, interruption
from provisioners.windows_guest import CONNECTION_LOST, TEMP, customizer, reach, remove_files
from provisioners.windows_task import SYSTEM, Account, leftovers, remove_task, run_as_task

Form = Literal["script", "try-catch"]
"""`script`: Packer before 1.13, and every script given by URI. `try-catch`: inline lines since Packer 1.13."""

TAIL_BYTES = 8 * 1024
_SILENT = (
    "if (Test-Path variable:global:ProgressPreference)"
    "{set-variable -name variable:global:ProgressPreference -value 'SilentlyContinue'}"
)
_WRAPPED = """{silent}
. {variables}
try {{
{lines}}} catch {{
Write-Error -ErrorRecord $_ -ErrorAction Continue
exit 1
}}
if ($LASTEXITCODE) {{ exit $LASTEXITCODE }}
exit 0
"""


@dataclass(frozen=True, slots=True)
class WindowsPowerShell:
    """One script. `lines` is what the user wrote (bytes as they are: PowerShell 5.1 reads a file without a byte order
    mark in the ANSI code page, on the service too). `run_elevated`: as a scheduled task of the build account, or of
    SYSTEM with `run_as_system`."""

    content: bytes = field(repr=False)
    form: Form = "script"
    valid_exit_codes: frozenset[int] = frozenset({0})
    run_elevated: bool = False
    run_as_system: bool = False

    @classmethod
    def inline(
        cls,
        lines: Sequence[str],
        *,
        form: Form = "script",
        valid_exit_codes: Iterable[int] = (0,),
        run_elevated: bool = False,
        run_as_system: bool = False,
    ) -> WindowsPowerShell:
        """All lines as one script."""
        content = "".join(line + "\n" for line in lines).encode("utf-8", "surrogatepass")
        return cls(content, form, frozenset(valid_exit_codes) or frozenset({0}), run_elevated, run_as_system)

    @classmethod
    def script(
        cls,
        payload: Path | bytes,
        *,
        valid_exit_codes: Iterable[int] = (0,),
        run_elevated: bool = False,
        run_as_system: bool = False,
    ) -> WindowsPowerShell:
        """A fetched script: as it is, and always in the form `script`."""
        content = payload if isinstance(payload, bytes) else payload.read_bytes()
        return cls(content, "script", frozenset(valid_exit_codes) or frozenset({0}), run_elevated, run_as_system)

    def apply(self, guest: Guest, context: Context) -> Outcome:
        """See `Provisioner.apply`. A connection that is lost while the script runs counts as exit code 16001."""
        if not self.content.isascii() and not self.content.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
            context.say(
                "The script has characters beyond ASCII and no byte order mark: Windows PowerShell reads it in the "
                "guest's ANSI code page, here and on the service"
            )
        with customizer(guest) as name:
            paths = Paths.of(name)
            said = Capture(TAIL_BYTES, context.output)
            try:
                before, result = self._start(guest, context, paths, said)
            except CommunicatorError as error:
                raise StepError(error.message, hint=error.hint, command=command(paths, self.form)) from error
            return self._judge(guest, context, paths, before, result)

    def _start(self, guest: Guest, context: Context, paths: Paths, said: Capture) -> tuple[BootState, CommandResult]:
        """Upload and run; what an earlier step's restart cuts before the start is tried again for 5 minutes."""
        limit = context.deadline.limited(START_LIMIT_SECONDS, "the 5 minutes for starting a script")
        line = command(paths, self.form)
        while True:
            before = reach(guest, context)
            try:
                variables = environment_script(context.environment)
                guest.communicator.upload(variables, paths.variables, deadline=context.deadline)
                guest.communicator.upload(self.sent(paths), paths.script, deadline=context.deadline)
                if self.run_elevated:
                    account = Account(SYSTEM) if self.run_as_system else Account(context.user, context.password)
                    return before, run_as_task(
                        guest, context, before, name=paths.name, command=line, account=account, output=said
                    )
                return before, guest.communicator.run(
                    line, deadline=context.deadline, output=said, interrupted=interruption(guest, before)
                )
            except ConnectionLost as error:
                context.deadline.check("starting a script in the guest")
                if limit.over:
                    raise StepError(f"the script could not be started: {error.message}", hint=error.hint) from error
                disconnect(guest)

    def sent(self, paths: Paths) -> bytes:
        """The bytes that arrive in the guest."""
        if self.form == "script":
            return self.content
        text = self.content.decode("utf-8", "surrogatepass")
        lines = text if text.endswith("\n") else text + "\n"
        wrapped = _WRAPPED.format(silent=_SILENT, variables=paths.variables, lines=lines)
        return wrapped.encode("utf-8", "surrogatepass")

    def _judge(self, guest: Guest, context: Context, paths: Paths, before: BootState, result: CommandResult) -> Outcome:
        code = CONNECTION_LOST if result.connection_lost or result.exit_code is None else result.exit_code
        if code not in self.valid_exit_codes:
            raise self._failure(guest, context, paths, code, lost=result.connection_lost)
        if not result.connection_lost:
            remove_files(guest, [paths.script, paths.variables], context.deadline)
            return Outcome(exit_code=code)
        context.say("The connection was lost, which validExitCodes allows (16001): waiting for the guest")
        disconnect(guest)
        after = reach(guest, context)
        files = [paths.script, paths.variables]
        if self.run_elevated:
            remove_task(guest, paths.task)
            files += leftovers(paths.name)
        remove_files(guest, files, context.deadline)
        return Outcome(exit_code=code, rebooted=after.boot_id != before.boot_id)

    def _failure(self, guest: Guest, context: Context, paths: Paths, code: int, *, lost: bool) -> StepError:
        if not lost:
            remove_files(guest, [paths.script, paths.variables], context.deadline)
        allowed = " ".join(str(valid) for valid in sorted(self.valid_exit_codes))
        return StepError(
            f"Script exited with non-zero exit status: {code}. Allowed exit codes are: [{allowed}]: "
            f"{windows_exit_codes.describe(code)}",
            hint=windows_exit_codes.hint(code),
            guest_exit_code=code,
            command=command(paths, self.form),
        )


@dataclass(frozen=True, slots=True)
class Paths:
    """Where a script and its variables go, by the names that Packer gives (`name` is a UUID there)."""

    name: str
    script: str
    variables: str
    task: str

    @classmethod
    def of(cls, name: str) -> Paths:
        """All paths of one script."""
        return cls(name, f"{TEMP}/script-{name}.ps1", f"{TEMP}/packer-ps-env-vars-{name}.ps1", f"packer-{name}")


def command(paths: Paths, form: Form) -> str:
    """The command line that runs a script, in Packer's words."""
    if form == "try-catch":
        return f"powershell -executionpolicy bypass -file {paths.script}"
    return (
        f"powershell -executionpolicy bypass \"& {{ {_SILENT};. {paths.variables}; &'{paths.script}'; "
        'exit $LastExitCode }"'
    )


def environment_script(environment: Mapping[str, str]) -> bytes:
    """Packer's file of variables: sorted, in double quotes, with a backtick before what it takes for special."""
    escaped = str.maketrans({char: "`" + char for char in "$\"`'"})
    return "".join(f'$env:{name}="{environment[name].translate(escaped)}"; ' for name in sorted(environment)).encode()
