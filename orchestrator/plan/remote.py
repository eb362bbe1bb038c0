"""What a step sends to the guest and runs there, without running it: the same functions as the provisioners'."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Literal

from orchestrator.plan.model import Step
from provisioners.base import AZURE_ENVIRONMENT
from provisioners.generalize import generalize_command
from provisioners.powershell import LinuxPowerShell, pwsh_command
from provisioners.shell import Shell, shell_command
from provisioners.windows_powershell import Paths, WindowsPowerShell
from provisioners.windows_powershell import command as windows_command

SCRIPT_NAME = "/tmp/script_N"
"""In a plan N stands for the number from 0 to 9998 that every run draws anew."""
WINDOWS_NAME = "N"
"""The same for a Windows guest, where it stands for a UUID."""
System = Literal["linux", "windows"]


@dataclass(frozen=True, slots=True)
class Script:
    """The script as it arrives in the guest: after the shebang was added, or CRLF was converted. `size` in bytes."""

    content: bytes
    converted: bool

    @property
    def sha256(self) -> str:
        """Of the bytes that are sent."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def first_line(self) -> str:
        """What decides how it is run, where it is a shebang."""
        return self.content.split(b"\n", 1)[0][:200].decode(errors="replace")


def script_of(step: Step, os: System) -> Script | None:
    """The script that a step sends; None when it sends none, or its stored payload is gone."""
    settings: Any = step.settings
    if step.kind == "Generalize":
        return Script(str(settings["script"]).encode(), converted=False) if settings["script"] else None
    if step.kind not in {"Shell", "PowerShell"} or (step.kind == "Shell" and os == "windows"):
        return None
    if os == "windows":
        return _windows_script(step)
    if step.payload is None:
        return Script(_inline(step, settings["inline"]), converted=False)
    try:
        raw = step.payload.path.read_bytes()
    except FileNotFoundError:
        return None
    sent = Shell.script(raw).content if step.kind == "Shell" else raw
    return Script(sent, converted=sent != raw)


def command_of(step: Step, os: System) -> str | None:
    """The exact remote command line; None when the step runs none, or nothing here can run it."""
    settings: Any = step.settings
    if step.kind == "WindowsRestart":
        return str(settings["restart_command"])
    if os == "windows":
        return _windows_command(step)
    match step.kind:
        case "Shell":
            return shell_command(f"{SCRIPT_NAME}.sh", AZURE_ENVIRONMENT, as_root=bool(settings.get("as_root")))
        case "PowerShell":
            return pwsh_command(f"{SCRIPT_NAME}.ps1", AZURE_ENVIRONMENT, elevated=bool(settings["run_elevated"]))
        case "Generalize":
            return generalize_command(str(settings["path"]))
        case _:
            return None


def _inline(step: Step, lines: list[str]) -> bytes:
    return (Shell.inline(lines) if step.kind == "Shell" else LinuxPowerShell.inline(lines)).content


def _windows_script(step: Step) -> Script | None:
    settings: Any = step.settings
    try:
        raw = step.payload.path.read_bytes() if step.payload else b""
    except FileNotFoundError:
        return None
    made = WindowsPowerShell.script(raw) if step.payload else _windows_inline(settings)
    return Script(made.sent(Paths.of(WINDOWS_NAME)), converted=False)


def _windows_inline(settings: Any) -> WindowsPowerShell:
    return WindowsPowerShell.inline(settings["inline"], form=settings["form"])


def _windows_command(step: Step) -> str | None:
    settings: Any = step.settings
    match step.kind:
        case "PowerShell":
            return windows_command(Paths.of(WINDOWS_NAME), settings["form"])
        case "Generalize":
            return f"powershell -executionpolicy bypass -file {Paths.of(WINDOWS_NAME).script}"
        case _:
            return None
