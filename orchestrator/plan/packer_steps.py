"""A plan's steps as Packer's provisioners: the ones that the service itself is made of (`aib-service.md` 2.4)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from orchestrator.plan.model import RunPlan, Step
from orchestrator.plan.remote import script_of
from provisioners.base import AZURE_ENVIRONMENT
from provisioners.generalize import LINUX_SCRIPT_PATH, forget_seed
from provisioners.powershell import pwsh_command
from provisioners.shell import shell_command

BUILD_NAME = AZURE_ENVIRONMENT["PACKER_BUILD_NAME"]
ENVIRONMENT = [f"PACKER_BUILDER_TYPE={AZURE_ENVIRONMENT['PACKER_BUILDER_TYPE']}"]
"""Packer would say `qemu`; a script must see what it sees on the service. The build's name is the builder's."""
FORGET_SEED = "/tmp/aib-forget-seed.sh"
WINDOWS_SCRIPT = r"c:\DeprovisioningScript.ps1"
WINDOWS_GENERALIZE = [
    f"if( TEST-PATH {WINDOWS_SCRIPT} ){{cat {WINDOWS_SCRIPT}}} else {{echo 'Deprovisioning script "
    f"[{WINDOWS_SCRIPT}] could not be found.'}}",
    f"if( TEST-PATH {WINDOWS_SCRIPT} ){{{WINDOWS_SCRIPT}}}",
]
PASSWORD_VARIABLE = "{{user `winrm_password`}}"  # noqa: S105 - the name of a variable

Provisioner = dict[str, Any]


@dataclass(slots=True)
class PackerSteps:
    """Provisioners in order; `files` are what they send, by path in the exported folder; `notes` what differs."""

    provisioners: list[Provisioner] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def keep(self, path: str, content: bytes) -> str:
        """Put a file into the folder; its name as the template says it."""
        self.files[path] = content
        return f"{{{{template_dir}}}}/{path}"


def provisioners_of(plan: RunPlan) -> PackerSteps:
    """The provisioners of a plan whose payloads are in the store."""
    made = PackerSteps()
    generalize = next((step for step in plan.steps if step.kind == "Generalize"), None)
    linux = plan.source.os == "linux"
    if generalize and linux:
        source = made.keep("files/DeprovisioningScript.sh", str(generalize.settings["script"]).encode())
        made.provisioners.append({"type": "file", "source": source, "destination": LINUX_SCRIPT_PATH})
    for step in plan.steps:
        if step.kind != "Generalize":
            made.provisioners.append(_linux(step, made) if linux else _windows(step, made))
    if generalize and linux:
        source = made.keep("files/forget-seed.sh", forget_seed())
        made.provisioners.append({"type": "file", "source": source, "destination": FORGET_SEED})
    elif generalize:
        made.provisioners.append({"type": "powershell", "inline": WINDOWS_GENERALIZE})
    return made


def _linux(step: Step, made: PackerSteps) -> Provisioner:
    settings: Any = step.settings
    if step.kind == "File":
        return _file(step, made)
    if step.kind == "PowerShell":
        command = pwsh_command("{{.Path}}", {}, elevated=bool(settings["run_elevated"]))
        return {
            "type": "shell",
            "script": _script(step, made, ".ps1"),
            "remote_path": f"/tmp/script_{step.index}.ps1",
            "execute_command": _with_variables(command),
            "environment_vars": ENVIRONMENT,
            "valid_exit_codes": settings["valid_exit_codes"],
        }
    body: Provisioner = {"type": "shell", "environment_vars": ENVIRONMENT}
    lines = settings.get("inline")
    if lines and not lines[0].startswith("#!") and not any("{{" in line for line in lines):
        body["inline"] = list(lines)
    else:
        # Packer 1.6 puts its own shebang before one of the user's, and reads `{{` as its template language: a file is
        # sent as it is.
        body["script"] = _script(step, made, ".sh")
    if settings.get("as_root"):
        body["execute_command"] = _with_variables(shell_command("{{.Path}}", {}, as_root=True))
    return body


def _windows(step: Step, made: PackerSteps) -> Provisioner:
    settings: Any = step.settings
    match step.kind:
        case "File":
            return _file(step, made)
        case "WindowsRestart":
            restart = {
                "type": "windows-restart",
                "restart_command": settings["restart_command"],
                "restart_check_command": settings["restart_check_command"],
                "restart_timeout": f"{settings['restart_timeout']:g}s",
            }
            return {key: value for key, value in restart.items() if value}
        case "WindowsUpdate":
            if (note := "windows-update is a plugin of its own, which Packer must find") not in made.notes:
                made.notes.append(note)
            update = {"type": "windows-update", **settings}
            return {key: value for key, value in update.items() if value}
    body: Provisioner = {"type": "powershell", "valid_exit_codes": settings["valid_exit_codes"]}
    body["script"] = _script(step, made, ".ps1")
    if settings["run_elevated"]:
        system = settings["run_as_system"]
        body["elevated_user"] = "SYSTEM" if system else "packer"
        body["elevated_password"] = "" if system else PASSWORD_VARIABLE
    return body


def _file(step: Step, made: PackerSteps) -> Provisioner:
    destination = str(step.settings["destination"])
    if "{{" in destination:
        made.notes.append(f"step {step.name!r}: Packer reads the {{{{ in its destination as its template language")
    source = made.keep(f"files/{step.index:02}-{_slug(step.name)}", _payload(step))
    return {"type": "file", "source": source, "destination": destination}


def _script(step: Step, made: PackerSteps, suffix: str) -> str:
    if step.payload is not None:
        content = _payload(step)
    else:
        script = script_of(step, "linux")
        assert script is not None, "an inline step always has a script"
        content = script.content
    return made.keep(f"scripts/{step.index:02}-{_slug(step.name)}{suffix}", content)


def _with_variables(command: str) -> str:
    """Our command line made without variables, with Packer's in the place of them."""
    if "sudo -n env " in command:
        return command.replace("sudo -n env ", "sudo -n env {{.Vars}}", 1)
    return f"{{{{.Vars}}}}{command}"


def _payload(step: Step) -> bytes:
    assert step.payload is not None, "a planned step by URI always has its payload"
    return step.payload.path.read_bytes()


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.")[:40] or "step"
