"""`make_plan`: from a template and what was resolved for it to a RunPlan. Pure: no file, no network, no clock."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

from hypervisor.errors import TemplateError
from orchestrator import fidelity
from orchestrator.plan import digests, sizes
from orchestrator.plan.model import MachinePlan, Payload, PlannedDistribution, ResolvedSource, RunPlan
from orchestrator.plan.sizes import HostCapacity
from orchestrator.plan.steps import PowerShellForm, ScriptUser, StepOptions, steps_of, wrong_os
from orchestrator.record import arm_ids
from orchestrator.record.arm_ids import Scope
from orchestrator.template.diagnostics import InvalidTemplate
from orchestrator.template.model import PowerShell, Shell, Template, VnetConfig

GIB = 1 << 30
DEFAULT_MINUTES = 240

OnError = Literal["", "cleanup", "abort"]


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """What the user decides beside the template.

    `network` is `user`, `isolated` or a libvirt network, by option; `networks` maps names of vnetConfig (lower case) to
    networks; `on_error` overrules errorHandling; `excused` are digests of steps from whose failure the build goes on.
    """

    strict_size: bool = False
    script_user: ScriptUser = "root"
    powershell: PowerShellForm = "service"
    require_reboot: bool = False
    network: str = ""
    networks: Mapping[str, str] = field(default_factory=dict)
    on_error: OnError = ""
    excused: Collection[str] = ()
    scope: Scope = arm_ids.DEFAULT_SCOPE

    @property
    def steps(self) -> StepOptions:
        """What concerns the steps."""
        return StepOptions(self.script_user, self.powershell, self.require_reboot)


def make_plan(
    template: Template,
    source: ResolvedSource,
    *,
    payloads: Mapping[str, Payload],
    host: HostCapacity,
    options: PlanOptions,
    distributions: tuple[PlannedDistribution, ...],
    warnings: tuple[str, ...] = (),
) -> RunPlan:
    """Decide everything. `payloads` are by pointer; `distributions` were checked against the store; `warnings` of
    whoever resolved the source come first.

    Raises `TemplateError` (steps of another system, unknown size, a disk smaller than the source) and `HostError`
    (strict size).
    """
    if wrong := wrong_os(template, source):
        raise InvalidTemplate(wrong)
    machine, size_warnings, deviations = _machine(template, source, host, options)
    steps = digests.chained(
        digests.first_digest(source, machine), steps_of(template, source, payloads, options.steps), options.excused
    )
    minutes = template.build_timeout_minutes or DEFAULT_MINUTES
    validate = template.validate
    only_validate = validate is not None and validate.source_validation_only
    handling = template.error_handling
    return RunPlan(
        template_id=arm_ids.template_id(template.name, options.scope),
        template_name=template.name,
        api_version=template.api_version,
        location=template.location,
        source=source,
        machine=machine,
        steps=steps,
        distributions=() if only_validate else distributions,
        budget=minutes * 60.0,
        tags=dict(template.tags),
        on_customizer_error=_policy(options.on_error, handling.on_customizer_error),
        on_validation_error=_policy(options.on_error, handling.on_validation_error),
        source_validation_only=only_validate,
        continue_distribute_on_failure=validate is not None and validate.continue_distribute_on_failure,
        deviations=(*deviations, *_deviations(template, source, options)),
        warnings=(*warnings, *size_warnings, *_warnings(minutes)),
    )


def _policy(asked: OnError, written: str) -> Literal["cleanup", "abort"]:
    return "abort" if (asked or written) == "abort" else "cleanup"


def _machine(
    template: Template, source: ResolvedSource, host: HostCapacity, options: PlanOptions
) -> tuple[MachinePlan, tuple[str, ...], tuple[tuple[str, str], ...]]:
    profile = template.vm_profile
    size = sizes.find(profile.vm_size or sizes.default_size(source.generation))
    if source.generation not in size.generations:
        bootable = "generation 1 (BIOS)" if source.generation == "V2" else "generation 2 (UEFI)"
        raise TemplateError(
            f"vmSize {size.name} boots {bootable} images only, and {source.requested} is of generation "
            f"{source.generation.removeprefix('V')}",
            hint=f"Choose another size ({sizes.default_size(source.generation)} is the service's default), or an image "
            "of the other generation.",
        )
    granted = sizes.grant(size, host, strict=options.strict_size)
    network, deviations = _network(profile.vnet_config, options)
    if granted.vcpus < size.vcpus or granted.memory_mib < size.memory_mib:
        given = f"{size.name}: {granted.vcpus} of {size.vcpus} vCPUs, {granted.memory_mib} of {size.memory_mib} MiB"
        deviations += (fidelity.deviation("vm-size-clamped", given),)
    if size.gpus:
        deviations += (fidelity.deviation("gpu-missing", size.name),)
    machine = MachinePlan(
        vm_size=size.name,
        asked_vcpus=size.vcpus,
        asked_memory_mib=size.memory_mib,
        vcpus=granted.vcpus,
        memory_mib=granted.memory_mib,
        os_disk_bytes=_os_disk_bytes(profile.os_disk_size_gb, source),
        firmware="uefi" if source.generation == "V2" else "bios",
        network=network,
        gpu=size.gpus > 0,
    )
    return machine, granted.warnings, deviations


def _os_disk_bytes(gigabytes: int, source: ResolvedSource) -> int:
    """S9: 0 keeps the source's size, more grows the disk; the service never shrinks one."""
    asked = gigabytes * GIB
    if asked in {0, source.virtual_size}:
        return source.virtual_size
    if asked < source.virtual_size:
        needed = -(-source.virtual_size // GIB)
        raise TemplateError(
            f"osDiskSizeGB is {gigabytes} ({asked} bytes), but the source image {source.requested} has a disk of "
            f"{source.virtual_size} bytes: a disk can only grow",
            hint=f"Write at least {needed}, or 0 to keep the source's size.",
        )
    return asked


def _network(vnet: VnetConfig | None, options: PlanOptions) -> tuple[str, tuple[tuple[str, str], ...]]:
    """The option decides, then the user's map of Azure's names; else user-mode networking, said as a deviation."""
    names = _names(vnet) if vnet else []
    mapped = next((options.networks[name.lower()] for name in names if name.lower() in options.networks), "")
    chosen = options.network or mapped
    ignored = (fidelity.deviation("vnet-ignored", names[0]),) if names and not chosen else ()
    network = chosen or "user"
    code = {"user": "network-user-mode", "isolated": "network-isolated"}.get(network)
    return network, (*ignored, fidelity.deviation(code)) if code else ignored


def _names(vnet: VnetConfig) -> list[str]:
    """The names under which a vnetConfig may be mapped, the most exact first."""
    names = [vnet.subnet_id] if vnet.subnet_id else []
    virtual_network, subnet = vnet.name, vnet.subnet_name
    if vnet.subnet_id:
        parts = vnet.subnet_id.strip("/").split("/")
        found = {parts[i].lower(): parts[i + 1] for i in range(0, len(parts) - 1, 2)}
        virtual_network, subnet = found.get("virtualnetworks", ""), found.get("subnets", "")
    if virtual_network and subnet:
        names.append(f"{virtual_network}/{subnet}")
    return [*names, *filter(None, (virtual_network, subnet))]


def _deviations(template: Template, source: ResolvedSource, options: PlanOptions) -> tuple[tuple[str, str], ...]:
    found = [fidelity.deviation("not-emulated", f"{pointer}: {why}") for pointer, why in template.not_emulated]
    validators = template.validate.in_vm_validations if template.validate else ()
    steps = (*template.customize, *validators)
    if any(isinstance(step, Shell) and step.script.inline is None for step in steps):
        found.append(fidelity.deviation("script-user", f"in this run: {options.script_user}"))
    if source.os == "linux" and any(isinstance(step, PowerShell) for step in steps):
        found.append(fidelity.deviation("powershell-on-linux"))
    if source.os == "windows":
        found += [fidelity.deviation("windows-unverified"), fidelity.deviation("windows-checkpoints")]
    return tuple(found)


def _warnings(minutes: int) -> tuple[str, ...]:
    """E18: the service's own token would not outlive so short a build."""
    if minutes > 5:
        return ()
    return (
        f"buildTimeoutInMinutes is {minutes}: the service fails such a build (client_jwt will expire within 5 minutes, "
        "please use a JWT that is valid for at least 5 minutes)",
    )
