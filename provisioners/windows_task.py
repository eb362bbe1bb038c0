"""Commands with all rights on a Windows guest: as a scheduled task, because a WinRM login is a network login."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field

from hypervisor.deadline import Deadline
from hypervisor.errors import AibError
from provisioners import windows_payloads
from provisioners.base import Context, Guest, StepError
from provisioners.capture import Capture
from provisioners.communicators.base import CommandResult, OutputCallback
from provisioners.reboot import BootState, interruption
from provisioners.windows_guest import TEMP, remove_files

SYSTEM = "SYSTEM"
QUIET_SECONDS = 60
CLEANUP_SECONDS = 3.0
_TASK_FAILED = 2587
_MARK = "aib-task: "


@dataclass(frozen=True, slots=True)
class Account:
    """Whom a task runs as; an account of the system has no password."""

    user: str = SYSTEM
    password: str = field(default="", repr=False)


def run_as_task(
    guest: Guest,
    context: Context,
    before: BootState,
    *,
    name: str,
    command: str,
    account: Account,
    output: OutputCallback,
) -> CommandResult:
    """Run the command line `command` with all rights, its output live; the task is removed whatever happens.

    The exit code is normalised. Raises `StepError` when the task could not be made or started, and `ConnectionLost`
    when its script could not be sent.
    """
    script = f"{TEMP}/packer-elevated-shell-{name}.ps1"
    task = f"packer-{name}"
    settings = windows_payloads.settings(
        name=task, command=command, user=account.user, password=account.password, quiet=QUIET_SECONDS
    )
    guest.communicator.upload(windows_payloads.text("run-task.ps1").encode(), script, deadline=context.deadline)
    said = Capture(8 * 1024, output)
    try:
        result = guest.communicator.run(
            f"powershell -NoProfile -NonInteractive -ExecutionPolicy Bypass -File {script}",
            deadline=context.deadline,
            output=said,
            stdin=settings,
            interrupted=interruption(guest, before),
        )
    except BaseException:
        remove_task(guest, task)
        raise
    if result.connection_lost:
        return result
    remove_files(guest, [script], context.deadline)
    if result.exit_code == _TASK_FAILED and _MARK in said.error_text:
        raise StepError(
            f"the guest cannot run this as a scheduled task: {said.error_text.split(_MARK, 1)[1].strip()[:400]}",
            hint=f"as {account.user}: is its password right, may it log on as a batch job, does Task Scheduler run?",
        )
    return CommandResult(None if result.exit_code is None else normalised(result.exit_code))


def leftovers(name: str) -> list[str]:
    """The files of a task whose script was cut off."""
    return [f"{TEMP}/packer-elevated-shell-{name}.ps1", f"{TEMP}/packer-{name}.log"]


def remove_task(guest: Guest, task: str) -> None:
    """End and delete a task whose script was ended before it could; within seconds, and without an error."""
    limit = Deadline.after(CLEANUP_SECONDS, "the time for removing a scheduled task")
    with suppress(AibError):
        guest.communicator.run(f'schtasks /End /TN "{task}" & schtasks /Delete /TN "{task}" /F', deadline=limit)


def normalised(code: int) -> int:
    """Server 2012's Task Scheduler gives the HRESULT of an exit code (0x80070000 | code)."""
    return code & 0xFFFF if code >> 16 == 0x8007 else code
