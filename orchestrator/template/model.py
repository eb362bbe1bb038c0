"""The typed template: what the user wrote, for its api-version (facts: JSON, SEED S1-S32).

Names are the service's, in Python spelling. Every value keeps its source position through `Template.positions`.
Strings are already expanded (placeholders and ARM expressions). Defaults of the service are applied here only where
the service documents them; `None` means "not given".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.template.diagnostics import Position


@dataclass(frozen=True, slots=True)
class PlatformImage:
    """S11: an image of the marketplace, found in the local catalogue by its URN."""

    publisher: str
    offer: str
    sku: str
    version: str = "latest"
    plan_info: Mapping[str, str] | None = None

    @property
    def urn(self) -> str:
        """`publisher:offer:sku:version`."""
        return f"{self.publisher}:{self.offer}:{self.sku}:{self.version}"


@dataclass(frozen=True, slots=True)
class ManagedImage:
    """S12."""

    image_id: str


@dataclass(frozen=True, slots=True)
class SharedImageVersion:
    """S13; the id may end in `versions/latest`."""

    image_version_id: str


Source = PlatformImage | ManagedImage | SharedImageVersion


@dataclass(frozen=True, slots=True)
class Script:
    """Exactly one of the two: lines given inline, or a URI with an optional sha256 (64 lower-case hex digits)."""

    inline: tuple[str, ...] | None = None
    uri: str = ""
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Shell:
    """S19."""

    name: str
    script: Script
    pointer: str = ""


@dataclass(frozen=True, slots=True)
class PowerShell:
    """S22."""

    name: str
    script: Script
    run_elevated: bool = False
    run_as_system: bool = False
    valid_exit_codes: tuple[int, ...] = (0,)
    pointer: str = ""


@dataclass(frozen=True, slots=True)
class File:
    """S23: one file; `destination` is the full guest path with the file name."""

    name: str
    source_uri: str
    destination: str
    sha256: str = ""
    pointer: str = ""


@dataclass(frozen=True, slots=True)
class WindowsRestart:
    """S20; `restart_timeout` in seconds."""

    name: str
    restart_command: str = 'shutdown /r /f /t 0 /c "packer restart"'
    restart_check_command: str = ""
    restart_timeout: float = 300.0
    pointer: str = ""


@dataclass(frozen=True, slots=True)
class WindowsUpdate:
    """S24."""

    name: str
    search_criteria: str = ""
    filters: tuple[str, ...] = ()
    update_limit: int = 1000
    pointer: str = ""


Customizer = Shell | PowerShell | File | WindowsRestart | WindowsUpdate


@dataclass(frozen=True, slots=True)
class Validate:
    """`properties.validate` (since 2022-02-14)."""

    in_vm_validations: tuple[Shell | PowerShell | File, ...] = ()
    source_validation_only: bool = False
    continue_distribute_on_failure: bool = False


@dataclass(frozen=True, slots=True)
class TargetRegion:
    """One region of a gallery image version."""

    name: str
    replica_count: int = 1
    storage_account_type: str = ""


@dataclass(frozen=True, slots=True)
class Versioning:
    """`scheme` is `Latest` or `Source`; `major` -1 means unset. Absent versioning = the legacy time-based version."""

    scheme: str
    major: int = -1


@dataclass(frozen=True, slots=True)
class ManagedImageTarget:
    """S30."""

    run_output_name: str
    image_id: str
    location: str
    artifact_tags: Mapping[str, str] = field(default_factory=dict)
    pointer: str = ""


@dataclass(frozen=True, slots=True)
class SharedImageTarget:
    """S31; `gallery_image_id` may end in `/versions/x.y.z`."""

    run_output_name: str
    gallery_image_id: str
    regions: tuple[TargetRegion, ...] = ()
    exclude_from_latest: bool = False
    versioning: Versioning | None = None
    storage_account_type: str = ""
    artifact_tags: Mapping[str, str] = field(default_factory=dict)
    pointer: str = ""


@dataclass(frozen=True, slots=True)
class VhdTarget:
    """S32; `uri` (since 2022-07-01) names a blob of the user's."""

    run_output_name: str
    uri: str = ""
    artifact_tags: Mapping[str, str] = field(default_factory=dict)
    pointer: str = ""


Distributor = ManagedImageTarget | SharedImageTarget | VhdTarget


@dataclass(frozen=True, slots=True)
class VnetConfig:
    """S10: the legacy names, or `subnet_id` since 2020-02-14."""

    name: str = ""
    subnet_name: str = ""
    resource_group_name: str = ""
    subnet_id: str = ""
    proxy_vm_size: str = ""
    container_instance_subnet_id: str = ""


@dataclass(frozen=True, slots=True)
class VmProfile:
    """S8-S10; `os_disk_size_gb` 0 keeps the source's size."""

    vm_size: str = ""
    os_disk_size_gb: int = 0
    vnet_config: VnetConfig | None = None
    user_assigned_identities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ErrorHandling:
    """`cleanup` or `abort` (since 2023-07-01)."""

    on_customizer_error: str = "cleanup"
    on_validation_error: str = "cleanup"


@dataclass(frozen=True, slots=True)
class Template:
    """One imageTemplates resource.

    `identities` holds the ids of `identity.userAssignedIdentities`. `build_timeout_minutes` is the effective budget
    (0 or absent = 240, S15). `raw` is the resource body as expanded; `positions` maps JSON pointers into it to where
    the user wrote the value.
    """

    name: str
    api_version: str
    location: str
    source: Source
    distribute: tuple[Distributor, ...]
    customize: tuple[Customizer, ...] = ()
    validate: Validate | None = None
    vm_profile: VmProfile = VmProfile()
    error_handling: ErrorHandling = ErrorHandling()
    build_timeout_minutes: int = 240
    identities: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    staging_resource_group: str = ""
    not_emulated: tuple[tuple[str, str], ...] = ()
    """(pointer, why) of each given field that is parsed but cannot be acted on here; becomes a deviation."""
    raw: Mapping[str, Any] = field(default_factory=dict)
    positions: Mapping[str, Position] = field(default_factory=dict)
