"""RunPlan: everything decided before the first side effect. Pure data; `to_json` is what `plan.json` holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from orchestrator.template.model import Distributor

Phase = Literal["Customizing", "Validating", "Generalizing"]
DiskFormat = Literal["qcow2", "raw", "vpc", "vhdx", "vmdk"]


@dataclass(frozen=True, slots=True)
class ResolvedSource:
    """The source image as it will be booted: exact version and digest of an immutable layer of the store.

    `requested` is the URN or resource id the template names, `resource_id` that of the stored image, `path` the
    layer's file, `format` its proved format (qcow2, raw, vpc, vhdx, vmdk), `virtual_size` in bytes.
    """

    kind: Literal["PlatformImage", "ManagedImage", "SharedImageVersion"]
    requested: str
    resource_id: str
    version: str
    digest: str
    path: Path
    format: DiskFormat
    virtual_size: int
    os: Literal["linux", "windows"] = "linux"
    generation: Literal["V1", "V2"] = "V1"


@dataclass(frozen=True, slots=True)
class MachinePlan:
    """vmSize as asked and what the host gives: vCPUs, memory in MiB, OS disk in bytes."""

    vm_size: str
    asked_vcpus: int
    asked_memory_mib: int
    vcpus: int
    memory_mib: int
    os_disk_bytes: int
    firmware: Literal["bios", "uefi"] = "bios"
    network: str = "user"
    gpu: bool = False


@dataclass(frozen=True, slots=True)
class Payload:
    """A script or file that was fetched and checked before boot, in the content-addressed store."""

    uri: str
    sha256: str
    size: int
    path: Path


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do in the guest.

    `kind` is the customizer's type (`Shell`, `File`, `PowerShell`, `WindowsRestart`, `WindowsUpdate`) or `Generalize`;
    `settings` holds what the provisioner needs, JSON-able (see `orchestrator.build.steps`); `payload` what it sends.
    `digest` = sha256 over the previous digest and everything that can change the result.
    """

    index: int
    name: str
    phase: Phase
    kind: str
    settings: Mapping[str, object] = field(default_factory=dict)
    payload: Payload | None = None
    digest: str = ""
    pointer: str = ""
    excused: bool = False
    """The user saw it fail, and wants the build to go on from there."""


@dataclass(frozen=True, slots=True)
class PlannedDistribution:
    """One distributor with everything resolved; `version` is set when it is known before the run."""

    target: Distributor
    artifact_id: str
    version: str = ""


@dataclass(frozen=True, slots=True)
class RunPlan:
    """Everything decided before the first side effect. Times in seconds."""

    template_id: str
    template_name: str
    api_version: str
    location: str
    source: ResolvedSource
    machine: MachinePlan
    steps: tuple[Step, ...]
    distributions: tuple[PlannedDistribution, ...]
    budget: float
    tags: Mapping[str, str] = field(default_factory=dict)
    on_customizer_error: Literal["cleanup", "abort"] = "cleanup"
    on_validation_error: Literal["cleanup", "abort"] = "cleanup"
    source_validation_only: bool = False
    continue_distribute_on_failure: bool = False
    deviations: tuple[tuple[str, str], ...] = ()
    """(code, message) known before the run."""
    warnings: tuple[str, ...] = ()
