"""Which kind of guest a plan boots, with what the user said about getting into it."""

from __future__ import annotations

from pathlib import Path

from hypervisor.errors import InputError, UsageError
from orchestrator.build.guest_system import GuestSystem
from orchestrator.build.linux_guest import LinuxGuest
from orchestrator.build.options import BuildOptions
from orchestrator.build.windows_guest import GivenAccount, WindowsGuest
from orchestrator.plan.model import RunPlan

_LONGEST_PASSWORD = 1024


def guest_system(plan: RunPlan, options: BuildOptions) -> GuestSystem:
    """The guest of the plan's source image.

    Raises `UsageError` for Windows options with a Linux image, `InputError` when the password cannot be read.
    """
    if plan.source.os == "linux":
        if options.guest_user or options.tpm:
            wrong = "--guest-user" if options.guest_user else "--tpm"
            raise UsageError(f"{wrong} is for Windows images, and {plan.source.requested} is a Linux image")
        return LinuxGuest()
    account = None
    if options.guest_user:
        account = GivenAccount(options.guest_user, _password(Path(options.guest_password_file)), options.winrm)
    return WindowsGuest(account, options.upload, options.answer == "disk", options.tpm)


def _password(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            text = stream.read(_LONGEST_PASSWORD + 1).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the guest's password cannot be read from {file}: {error}") from error
    password = text.rstrip("\r\n")
    if not password or len(text) > _LONGEST_PASSWORD or "\n" in password:
        raise InputError(f"{file} does not hold a password", hint="one line, the password and nothing else")
    return password
