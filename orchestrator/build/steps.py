"""From a plan's steps, which are plain data, to the provisioners that act on a guest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hypervisor.errors import HostError
from orchestrator.plan.model import Payload, RunPlan, Step
from provisioners.base import Provisioner
from provisioners.file import File
from provisioners.generalize import Generalize
from provisioners.powershell import LinuxPowerShell
from provisioners.shell import Shell
from provisioners.windows_file import WindowsFile
from provisioners.windows_generalize import WindowsGeneralize
from provisioners.windows_powershell import WindowsPowerShell
from provisioners.windows_restart import DEFAULT_COMMAND, WindowsRestart
from provisioners.windows_update import WindowsUpdate

SCRIPT_NAME = b"DeprovisioningScript"


@dataclass(frozen=True, slots=True)
class DeprovisionScript:
    """The default script that is put into the guest before the first step."""

    text: str
    path: str


def linux_provisioner(step: Step) -> Provisioner:
    """The provisioner of a step on a Linux guest; raises `HostError` for a kind that none can run."""
    settings: Mapping[str, Any] = step.settings
    match step.kind:
        case "Shell":
            as_root = bool(settings.get("as_root", False))
            if step.payload is not None:
                return Shell.script(step.payload.path, as_root=as_root)
            return Shell.inline(settings["inline"], as_root=as_root)
        case "File":
            return File(_payload(step).path, settings["destination"])
        case "PowerShell":
            codes = tuple(settings["valid_exit_codes"])
            elevated = bool(settings["run_elevated"])
            if step.payload is not None:
                return LinuxPowerShell.script(step.payload.path, valid_exit_codes=codes, run_elevated=elevated)
            return LinuxPowerShell.inline(settings["inline"], valid_exit_codes=codes, run_elevated=elevated)
        case "Generalize":
            return Generalize(settings["script"], settings["path"])
    raise HostError(f"step {step.name!r}: a {step.kind} customizer cannot run on a Linux guest")


def windows_provisioner(step: Step, *, before_sysprep: str = "") -> Provisioner:
    """The provisioner of a step on a Windows guest; raises `HostError` for a kind that none can run.

    `before_sysprep` is PowerShell that runs before the deprovision script.
    """
    settings: Mapping[str, Any] = step.settings
    match step.kind:
        case "File":
            return WindowsFile(_payload(step).path, settings["destination"])
        case "PowerShell":
            rights = {key: bool(settings[key]) for key in ("run_elevated", "run_as_system")}
            codes = tuple(settings["valid_exit_codes"])
            if step.payload is not None:
                return WindowsPowerShell.script(step.payload.path, valid_exit_codes=codes, **rights)
            return WindowsPowerShell.inline(settings["inline"], form=settings["form"], valid_exit_codes=codes, **rights)
        case "WindowsRestart":
            return WindowsRestart(
                settings["restart_command"] or DEFAULT_COMMAND,
                settings["restart_check_command"],
                settings["restart_timeout"],
                bool(settings["require_reboot"]),
            )
        case "WindowsUpdate":
            return WindowsUpdate(settings["search_criteria"], tuple(settings["filters"]), settings["update_limit"])
        case "Generalize":
            return WindowsGeneralize(settings["script"], settings["path"], before_sysprep)
    raise HostError(f"step {step.name!r}: a {step.kind} customizer cannot run on a Windows guest")


def default_script(plan: RunPlan) -> DeprovisionScript | None:
    """The script of the plan's generalize step; None when the plan has none (only the source is validated)."""
    for step in plan.steps:
        if step.kind == "Generalize":
            settings: Mapping[str, Any] = step.settings
            return DeprovisionScript(settings["script"], settings["path"])
    return None


def may_replace_script(step: Step) -> bool:
    """Whether a step's own text names the deprovision script, so that it is worth asking the guest afterwards."""
    settings: Mapping[str, Any] = step.settings
    texts = [*settings.get("inline", ()), str(settings.get("destination", ""))]
    if any(SCRIPT_NAME.decode() in text for text in texts):
        return True
    return step.kind != "File" and step.payload is not None and SCRIPT_NAME in step.payload.path.read_bytes()


def _payload(step: Step) -> Payload:
    if step.payload is None:
        raise ValueError(f"step {step.name!r} has no payload")
    return step.payload
