"""The build VM: size, disk, network, staging group."""

from __future__ import annotations

from orchestrator.template import resource_ids
from orchestrator.template.report import Report
from orchestrator.template.subject import Subject


def vnet_config(subject: Subject, report: Report) -> None:
    """AIB066: the fields of vnetConfig fit each other."""
    vnet = subject.properties.get("vmProfile", "vnetConfig")
    if vnet is None:
        return
    subnet, container = vnet.get("subnetId"), vnet.get("containerInstanceSubnetId")
    proxy = vnet.get("proxyVmSize")
    for at in (subnet, container):
        if at is None or not isinstance(at.value, str) or not at.value or "<" in at.value:
            continue
        if not resource_ids.SUBNET.fullmatch(at.value):
            hint = f"expected {resource_ids.SUBNET_SHAPE}"
            report.error("AIB066", at, f"{at.key} is not the id of a subnet: {at.value!r}", hint=hint, source="JSON")
    if container is not None and container.value:
        if subnet is None or not subnet.value:
            report.error("AIB066", container, "containerInstanceSubnetId needs subnetId beside it", source="JSON")
        elif str(subnet.value).lower() == str(container.value).lower():
            report.error(
                "AIB066", container, "containerInstanceSubnetId must be another subnet than subnetId", source="JSON"
            )
        elif (
            str(subnet.value).lower().rpartition("/subnets/")[0]
            != str(container.value).lower().rpartition("/subnets/")[0]
        ):
            report.error("AIB066", container, "both subnets must belong to one virtual network", source="JSON")
        if proxy is not None and proxy.value:
            report.error("AIB066", proxy, "proxyVmSize and containerInstanceSubnetId exclude each other", source="JSON")


def staging_group(subject: Subject, report: Report) -> None:
    """AIB067: stagingResourceGroup is the id of a resource group."""
    at = subject.properties.get("stagingResourceGroup")
    if at is None or not isinstance(at.value, str) or not at.value or "<" in at.value:
        return
    if not resource_ids.RESOURCE_GROUP.fullmatch(at.value):
        hint = f"expected {resource_ids.RESOURCE_GROUP_SHAPE}"
        report.error("AIB067", at, f"{at.value!r} is not the id of a resource group", hint=hint, source="JSON")


RULES = (vnet_config, staging_group)
