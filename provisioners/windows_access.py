"""The end of a Windows guest: it takes the way in away and powers off, or, with an account of its own, shuts down."""

from __future__ import annotations

from hypervisor.deadline import Deadline
from provisioners import windows_payloads
from provisioners.base import StepError
from provisioners.communicators.base import Communicator, CommunicatorError
from provisioners.windows_guest import ASK_SECONDS, TEMP

TASK = "aib-close-access"
SHUTDOWN = 'shutdown /s /f /t 1 /c "packer shutdown"'


def start_closing(communicator: Communicator, script: str, deadline: Deadline) -> None:
    """Send `script` and start it as a task of SYSTEM: what it removes carries the very connection that starts it.

    It powers the guest off when everything is gone. Raises `StepError` when it could not be started.
    """
    path = f"{TEMP}/{TASK}.ps1"
    command = f"powershell -NoProfile -NonInteractive -ExecutionPolicy Bypass -File {path}"
    limit = deadline.limited(ASK_SECONDS, "starting the end of the guest")
    said: list[bytes] = []
    try:
        communicator.upload(script.encode(), path, deadline=limit)
        result = communicator.run(
            windows_payloads.command("start-task.ps1"),
            deadline=limit,
            output=lambda stream, data: said.append(data),
            stdin=windows_payloads.settings(name=TASK, command=command),
        )
    except CommunicatorError as error:
        raise StepError(f"the build's access cannot be removed from the guest: {error.message}") from error
    if result.exit_code:
        text = b"".join(said).decode(errors="replace").strip()[-400:]
        raise StepError(f"the build's access cannot be removed from the guest: {text or result.exit_code}")


def shut_down(communicator: Communicator, deadline: Deadline) -> bool:
    """Ask the guest to shut down; false when it could not be asked."""
    limit = deadline.limited(ASK_SECONDS, "asking the guest to shut down")
    try:
        result = communicator.run(SHUTDOWN, deadline=limit)
    except CommunicatorError:
        return False
    return result.connection_lost or result.exit_code == 0
