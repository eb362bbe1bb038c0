"""Fields that are read and checked, but that a build on this machine cannot act on."""

from __future__ import annotations

from orchestrator.template.node import Node
from orchestrator.template.subject import Subject

_PROPERTIES = (
    (("source", "planInfo"), "there is no marketplace here: purchase plans are not checked or recorded on the image"),
    (("vmProfile", "vnetConfig", "proxyVmSize"), "the build VM is reached directly: there is no proxy VM"),
    (("vmProfile", "vnetConfig", "containerInstanceSubnetId"), "there is no container instance: builds run locally"),
    (("vmProfile", "userAssignedIdentities"), "the build VM has no instance metadata service to hand out identities"),
    (("vmProfile", "additionalDataDisks"), "data disks of the build VM are not attached"),
    (("optimize", "vmBoot"), "boot optimization belongs to the service"),
    (("optimize", "workload"), "workload optimization belongs to the service"),
    (("autoRun",), "a build starts when it is asked for"),
    (("managedResourceTags",), "there are no managed Azure resources to tag"),
    (("stagingResourceGroup",), "the run folder takes the place of the staging resource group"),
)


def not_emulated(subject: Subject) -> tuple[tuple[str, str], ...]:
    """(pointer into the resource, why) of each such field that is given and not empty."""
    found = [
        (f"/properties/{'/'.join(path)}", why)
        for path, why in _PROPERTIES
        if (node := subject.properties.get(*path)) is not None and _says_something(node)
    ]
    for target in subject.distributors:
        pointer = f"/properties/distribute/{target.key}"
        regions = target.get("targetRegions") or target.get("replicationRegions")
        if regions is not None and len(regions.items()) > 1:
            name = "targetRegions" if target.get("targetRegions") else "replicationRegions"
            found.append((f"{pointer}/{name}", "regions are recorded; nothing is copied between them"))
        if target.get("replicationMode") is not None:
            found.append((f"{pointer}/replicationMode", "there is no replication to be shallow or full"))
        if target.get("storageAccountType") is not None:
            found.append((f"{pointer}/storageAccountType", "recorded; local storage has one kind"))
    return tuple(found)


def _says_something(node: Node) -> bool:
    """Whether the value asks for anything: `{}`, `""` and a state of Disabled do not."""
    if node.string("state") == "Disabled":
        return False
    return bool(node.value)
