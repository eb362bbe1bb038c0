"""A RunPlan for people."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.plan.model import PlannedDistribution, RunPlan, Step

_GIB = 1 << 30
_DIGEST = 12


def render(plan: RunPlan) -> Iterator[str]:
    """Lines of text: source, machine, steps, distributions, and where the run differs from the service."""
    source, machine = plan.source, plan.machine
    yield f"Template    {plan.template_name} ({plan.api_version}, {plan.location})"
    digest = f"sha256 {source.digest[:_DIGEST]}" if source.digest else "not stored yet: a build brings it in"
    yield f"Source      {source.requested}"
    yield f"            version {source.version}, {source.os}, generation {source.generation}, {digest}"
    size = f"{machine.os_disk_bytes / _GIB:g} GiB disk" if machine.os_disk_bytes else "disk as large as the source's"
    yield f"Machine     {machine.vm_size}: {machine.vcpus} vCPUs, {machine.memory_mib} MiB memory, {size}"
    yield f"            {machine.firmware.upper()}, network {machine.network}, budget {plan.budget / 60:g} minutes"
    yield "Steps"
    for step in plan.steps:
        yield f"  {step.index:>2}  {step.phase:<12} {step.kind:<14} {step.name}{_what(step)}"
    if plan.source_validation_only:
        yield "  (sourceValidationOnly: nothing is built or distributed)"
    if plan.distributions:
        yield "Distribute"
        for distribution in plan.distributions:
            yield f"  {_kind(distribution):<14} {distribution.target.run_output_name}"
            yield f"      -> {distribution.artifact_id}{_version(distribution)}"
    for title, lines in (
        ("Warnings", plan.warnings),
        ("Differs from the service", tuple(f"{code}: {text}" for code, text in plan.deviations)),
    ):
        if lines:
            yield title
            yield from (f"  - {line}" for line in lines)


def _what(step: Step) -> str:
    if step.payload is not None:
        return f"  ({step.payload.uri}, {step.payload.size} bytes, sha256 {step.payload.sha256[:_DIGEST]})"
    inline = step.settings.get("inline")
    if isinstance(inline, list):
        return f"  ({len(inline)} line{'' if len(inline) == 1 else 's'} inline)"
    return ""


def _kind(distribution: PlannedDistribution) -> str:
    name = type(distribution.target).__name__.removesuffix("Target")
    return "VHD" if name == "Vhd" else name


def _version(distribution: PlannedDistribution) -> str:
    if distribution.version:
        return "" if distribution.artifact_id.endswith(distribution.version) else f"/versions/{distribution.version}"
    return " (the version is chosen when it is distributed)" if _kind(distribution) == "SharedImage" else ""
