"""From customizers and validators to steps: order, settings, names (`aib-service.md` 2.4, 2.6)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from orchestrator.plan.model import Payload, Phase, ResolvedSource, Step
from orchestrator.template.diagnostics import Diagnostic, Position, Severity
from orchestrator.template.model import (
    Customizer,
    File,
    PowerShell,
    Shell,
    Template,
    WindowsRestart,
    WindowsUpdate,
)
from provisioners.generalize import LINUX_SCRIPT_PATH, default_script
from provisioners.windows_generalize import WINDOWS_SCRIPT_PATH, default_windows_script

_LINUX_ONLY = (Shell,)
_WINDOWS_ONLY = (WindowsRestart, WindowsUpdate)

ScriptUser = Literal["root", "login"]
PowerShellForm = Literal["service", "script", "try-catch"]
TRY_CATCH_SINCE = "2025"
"""Packer wraps inline lines in try/catch since 1.13, of June 2025; which Packer the service runs is not documented, so
api-versions of that year and later get that form."""


@dataclass(frozen=True, slots=True)
class StepOptions:
    """What the user decides about how steps are run; `powershell` `service` goes by the api-version."""

    script_user: ScriptUser = "root"
    powershell: PowerShellForm = "service"
    require_reboot: bool = False


def steps_of(
    template: Template, source: ResolvedSource, payloads: Mapping[str, Payload], options: StepOptions
) -> tuple[Step, ...]:
    """All steps in the service's order: customizers, validators, generalize; without digests.

    With `sourceValidationOnly` nothing is built: only the validators run. `payloads` are by pointer.
    """
    validators = template.validate.in_vm_validations if template.validate else ()

    def make(item: Customizer) -> dict[str, object]:
        settings = settings_of(item, options)
        if isinstance(item, PowerShell) and source.os == "windows":
            settings["form"] = powershell_form(item, template.api_version, options)
        return settings

    only_validate = template.validate is not None and template.validate.source_validation_only
    found: list[Step] = []
    if not only_validate:
        found += _steps("Customizing", "/properties/customize", template.customize, payloads, make)
    found += _steps("Validating", "/properties/validate/inVMValidations", validators, payloads, make)
    if not only_validate:
        settings = generalize_settings(template.api_version, source.os)
        found.append(Step(0, "generalize", "Generalizing", "Generalize", settings))
    return tuple(
        Step(index, step.name, step.phase, step.kind, step.settings, step.payload, "", step.pointer)
        for index, step in enumerate(found)
    )


def generalize_settings(api_version: str, os: Literal["linux", "windows"]) -> dict[str, object]:
    """The hidden last step."""
    if os == "windows":
        return {"script": default_windows_script(api_version), "path": WINDOWS_SCRIPT_PATH, "os": os}
    return {"script": default_script(api_version), "path": LINUX_SCRIPT_PATH, "os": os}


def wrong_os(template: Template, source: ResolvedSource) -> tuple[Diagnostic, ...]:
    """A diagnostic for each step that the source image's system cannot run (AIB027)."""
    wrong = _WINDOWS_ONLY if source.os == "linux" else _LINUX_ONLY
    system = {"linux": "Linux", "windows": "Windows"}[source.os]
    hints = {
        "linux": "Linux needs no restart customizer: a Shell step may call `sudo reboot`.",
        "windows": "Use a PowerShell customizer.",
    }
    validators = template.validate.in_vm_validations if template.validate else ()
    steps = [(f"/properties/customize/{i}", each) for i, each in enumerate(template.customize)]
    steps += [(f"/properties/validate/inVMValidations/{i}", each) for i, each in enumerate(validators)]
    return tuple(
        Diagnostic(
            "AIB027",
            Severity.ERROR,
            f"{type(each).__name__} does not run on {system}, and the source image {source.requested} is {system}",
            pointer=each.pointer or pointer,
            position=template.positions.get(each.pointer or pointer, Position()),
            hint=hints[source.os],
            source="JSON",
        )
        for pointer, each in steps
        if isinstance(each, wrong)
    )


def _steps(
    phase: Phase,
    prefix: str,
    items: Sequence[Customizer],
    payloads: Mapping[str, Payload],
    make: Callable[[Customizer], dict[str, object]],
) -> Iterator[Step]:
    for index, item in enumerate(items):
        pointer = item.pointer or f"{prefix}/{index}"
        kind = type(item).__name__
        name = item.name or f"{kind} {index + 1}"
        yield Step(0, name, phase, kind, make(item), payloads.get(pointer), "", pointer)


def powershell_form(item: PowerShell, api_version: str, options: StepOptions) -> Literal["script", "try-catch"]:
    """How a PowerShell step of a Windows guest is run; a script by URI always as `script`, as Packer does it."""
    if item.script.inline is None:
        return "script"
    if options.powershell == "service":
        return "try-catch" if api_version[:4] >= TRY_CATCH_SINCE else "script"
    return options.powershell


def settings_of(item: Customizer, options: StepOptions) -> dict[str, object]:
    """What the provisioner of a customizer needs, JSON-able; a script by URI comes as the step's payload."""
    match item:
        case Shell():
            if item.script.inline is not None:
                return {"inline": list(item.script.inline), "as_root": False}
            return {"as_root": options.script_user == "root"}
        case PowerShell():
            inline = {} if item.script.inline is None else {"inline": list(item.script.inline)}
            return {
                **inline,
                "valid_exit_codes": list(item.valid_exit_codes),
                "run_elevated": item.run_elevated,
                "run_as_system": item.run_as_system,
            }
        case File():
            return {"destination": item.destination}
        case WindowsRestart():
            return {
                "restart_command": item.restart_command,
                "restart_check_command": item.restart_check_command,
                "restart_timeout": item.restart_timeout,
                "require_reboot": options.require_reboot,
            }
        case WindowsUpdate():
            return {
                "search_criteria": item.search_criteria,
                "filters": list(item.filters),
                "update_limit": item.update_limit,
            }
