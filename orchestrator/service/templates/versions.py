"""Which api-versions the image builder has, what came with which, and what another one is answered."""

from __future__ import annotations

from typing import Any

from orchestrator.record import arm_ids
from orchestrator.record.resources import Resource
from orchestrator.service.envelope import ArmError
from orchestrator.template.schema.tables import older, regions, tables

PROVIDER = "Microsoft.VirtualMachineImages"
CANCEL = "2020-02-14"
RUN_STATUS_WORDS = "2019-02-01-preview"
"""Before it, the states of a run were written in lower case (2.1)."""
SYSTEM_DATA = "2021-10-01"
TRIGGERS = "2022-07-01"
PATCH_DISTRIBUTE = "2023-07-01"
PATCH_VM_PROFILE = "2024-02-01"


def check(version: str, kind: str = "imageTemplates", location: str = "", since: str = "") -> str:
    """The api-version; `ArmError` 400 or 404 in ARM's words when the image builder, or this type of it, has no such."""
    known = tables().versions
    usable = [each for each in known if not since or not older(each, since)]
    if version not in known:
        raise ArmError(
            400,
            "NoRegisteredProviderFound",
            f"No registered resource provider found for location '{location or 'global'}' and API version '{version}' "
            f"for type '{kind}'. The supported api-versions are '{', '.join(usable)}'. "
            f"The supported locations are '{', '.join(sorted(regions()))}'.",
        )
    if version not in usable:
        raise ArmError(
            404,
            "InvalidResourceType",
            f"The resource type '{kind}' could not be found in the namespace '{PROVIDER}' for api version '{version}'. "
            f"The supported api-versions are '{', '.join(usable)}'.",
        )
    return version


def place(resource: Resource, version: str) -> Any:
    """Where an operation about a template is, as `Operations.begin` wants it."""
    return {
        "subscription": arm_ids.parse(resource.id).scope.subscription,
        "provider": PROVIDER,
        "location": resource.location,
        "api_version": version,
    }
