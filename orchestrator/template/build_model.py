"""Makes the typed `Template` out of a checked resource in canonical form.

Getters are lenient on purpose: what is wrong was reported before, and a silenced report must not become a crash.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.template import durations
from orchestrator.template.diagnostics import Position
from orchestrator.template.model import (
    Customizer,
    Distributor,
    ErrorHandling,
    File,
    ManagedImage,
    ManagedImageTarget,
    PlatformImage,
    PowerShell,
    Script,
    SharedImageTarget,
    SharedImageVersion,
    Shell,
    Source,
    TargetRegion,
    Template,
    Validate,
    Versioning,
    VhdTarget,
    VmProfile,
    VnetConfig,
    WindowsRestart,
    WindowsUpdate,
)
from orchestrator.template.node import Node, escape_pointer
from orchestrator.template.not_emulated import not_emulated
from orchestrator.template.subject import Subject

DEFAULT_BUILD_TIMEOUT = 240  # minutes, S15
DEFAULT_UPDATE_LIMIT = 1000  # S24


def build(subject: Subject) -> Template:
    """The typed template. Pointers in it are relative to the resource."""
    node, properties = subject.node, subject.properties
    customizers = tuple(
        step
        for item in subject.customizers
        if (step := _customizer(item, f"/properties/customize/{item.key}", int(item.key))) is not None
    )
    identity = node.get("identity", "userAssignedIdentities")
    return Template(
        name=subject.name,
        api_version=subject.version,
        location=node.string("location"),
        source=_source(subject.source or node.derive({})),
        distribute=tuple(
            target
            for item in subject.distributors
            if (target := _distributor(item, f"/properties/distribute/{item.key}")) is not None
        ),
        customize=customizers,
        validate=_validate(subject),
        vm_profile=_vm_profile(properties.get("vmProfile")),
        error_handling=ErrorHandling(
            properties.string("errorHandling", "onCustomizerError") or "cleanup",
            properties.string("errorHandling", "onValidationError") or "cleanup",
        ),
        build_timeout_minutes=_int(properties.get("buildTimeoutInMinutes"), 0) or DEFAULT_BUILD_TIMEOUT,
        identities=tuple(name for name, _ in identity.members()) if identity is not None else (),
        tags=_map(node.get("tags")),
        staging_resource_group=properties.string("stagingResourceGroup"),
        not_emulated=not_emulated(subject),
        raw=subject.written.plain(),
        positions=positions(subject.written),
    )


def positions(resource: Node) -> dict[str, Position]:
    """Where the user wrote each value of `resource`, by JSON pointer into it."""
    places: dict[str, Position] = {}
    work: list[tuple[str, Node]] = [("", resource)]
    while work:
        pointer, node = work.pop()
        places[pointer] = node.position
        for key, child in node.members():
            work.append((f"{pointer}/{escape_pointer(key)}", child))
        for index, child in enumerate(node.items()):
            work.append((f"{pointer}/{index}", child))
    return places


def _source(node: Node) -> Source:
    kind = node.string("type")
    if kind == "ManagedImage":
        return ManagedImage(node.string("imageId"))
    if kind == "SharedImageVersion":
        return SharedImageVersion(node.string("imageVersionId"))
    plan = node.get("planInfo")
    return PlatformImage(
        node.string("publisher"), node.string("offer"), node.string("sku"), node.string("version") or "latest",
        _map(plan) if plan is not None else None,
    )  # fmt: skip


def _script(node: Node) -> Script:
    sha256 = node.string("sha256Checksum").lower()
    uri = node.string("scriptUri") or node.string("script")
    if uri:
        return Script(uri=uri, sha256=sha256)
    return Script(inline=_strings(node.get("inline")), sha256=sha256)


def _customizer(node: Node, pointer: str, index: int) -> Customizer | None:
    kind = node.string("type")
    name = node.string("name") or f"{kind} {index + 1}"
    if kind == "WindowsRestart":
        default = WindowsRestart(name)
        timeout = node.string("restartTimeout")
        return WindowsRestart(
            name,
            node.string("restartCommand") or default.restart_command,
            node.string("restartCheckCommand"),
            (durations.seconds(timeout) if timeout else None) or default.restart_timeout,
            pointer,
        )
    if kind == "WindowsUpdate":
        return WindowsUpdate(
            name,
            node.string("searchCriteria"),
            _strings(node.get("filters")),
            _int(node.get("updateLimit"), 0) or DEFAULT_UPDATE_LIMIT,
            pointer,
        )
    return _in_vm_step(node, pointer, name)


def _in_vm_step(node: Node, pointer: str, name: str) -> Shell | PowerShell | File | None:
    """The three kinds that customizers and validators share."""
    kind = node.string("type")
    if kind == "Shell":
        return Shell(name, _script(node), pointer)
    if kind == "PowerShell":
        codes = node.get("validExitCodes")
        valid = tuple(code.value for code in codes.items() if isinstance(code.value, int)) if codes else ()
        return PowerShell(
            name, _script(node), _bool(node.get("runElevated")), _bool(node.get("runAsSystem")), valid or (0,), pointer
        )
    if kind == "File":
        sha256 = node.string("sha256Checksum").lower()
        return File(name, node.string("sourceUri"), node.string("destination"), sha256, pointer)
    return None


def _validate(subject: Subject) -> Validate | None:
    node = subject.properties.get("validate")
    if node is None or not node.is_object:
        return None
    steps = tuple(
        step
        for item in subject.validators
        if (
            step := _in_vm_step(
                item,
                f"/properties/validate/inVMValidations/{item.key}",
                item.string("name") or f"{item.string('type')} validation {int(item.key) + 1}",
            )
        )
        is not None
    )
    return Validate(
        steps, _bool(node.get("sourceValidationOnly")), _bool(node.get("continueDistributeOnFailure"))
    )  # fmt: skip


def _vm_profile(node: Node | None) -> VmProfile:
    if node is None or not node.is_object:
        return VmProfile()
    vnet = node.get("vnetConfig")
    return VmProfile(
        vm_size=node.string("vmSize"),
        os_disk_size_gb=_int(node.get("osDiskSizeGB"), 0),
        vnet_config=_vnet(vnet) if vnet is not None and vnet.is_object and vnet.value else None,
        user_assigned_identities=_strings(node.get("userAssignedIdentities")),
    )


def _vnet(node: Node) -> VnetConfig:
    return VnetConfig(
        name=node.string("name"),
        subnet_name=node.string("subnetName"),
        resource_group_name=node.string("resourceGroupName"),
        subnet_id=node.string("subnetId"),
        proxy_vm_size=node.string("proxyVmSize"),
        container_instance_subnet_id=node.string("containerInstanceSubnetId"),
    )


def _distributor(node: Node, pointer: str) -> Distributor | None:
    kind, name, tags = node.string("type"), node.string("runOutputName"), _map(node.get("artifactTags"))
    if kind == "ManagedImage":
        return ManagedImageTarget(name, node.string("imageId"), node.string("location"), tags, pointer)
    if kind == "VHD":
        return VhdTarget(name, node.string("uri"), tags, pointer)
    if kind != "SharedImage":
        return None
    versioning = node.get("versioning")
    return SharedImageTarget(
        run_output_name=name,
        gallery_image_id=node.string("galleryImageId"),
        regions=_regions(node),
        exclude_from_latest=_bool(node.get("excludeFromLatest")),
        versioning=(
            Versioning(versioning.string("scheme"), _int(versioning.get("major"), -1))
            if versioning is not None and versioning.is_object
            else None
        ),
        storage_account_type=node.string("storageAccountType"),
        artifact_tags=tags,
        pointer=pointer,
    )


def _regions(node: Node) -> tuple[TargetRegion, ...]:
    """targetRegions, or the older replicationRegions with the storage type that stood beside them."""
    targets = node.get("targetRegions")
    if targets is not None:
        return tuple(
            TargetRegion(r.string("name"), _int(r.get("replicaCount"), 1), r.string("storageAccountType"))
            for r in targets.items()
        )
    storage = node.string("storageAccountType")
    return tuple(TargetRegion(name, 1, storage) for name in _strings(node.get("replicationRegions")))


def _strings(node: Node | None) -> tuple[str, ...]:
    return tuple(item.value for item in node.items() if isinstance(item.value, str)) if node is not None else ()


def _map(node: Node | None) -> Mapping[str, str]:
    members: dict[str, Any] = {}
    if node is not None:
        members = {key: child.value for key, child in node.members() if isinstance(child.value, str)}
    return members


def _int(node: Node | None, default: int) -> int:
    return node.value if node is not None and isinstance(node.value, int) else default


def _bool(node: Node | None) -> bool:
    return node is not None and node.value is True
