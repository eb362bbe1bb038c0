"""The build VM: size, disk, network, staging group."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from orchestrator.template import resource_ids
from orchestrator.template.diagnostics import Position
from orchestrator.template.node import Node
from orchestrator.template.placeholders import is_open
from orchestrator.template.report import Report
from orchestrator.template.subject import Subject, os_of_source

_SIZE = re.compile(r"(?:Standard|Basic)_[A-Z]{1,4}\d{1,3}(?:-\d{1,3})?[A-Za-z]*(?:_[A-Za-z0-9]+)*", re.IGNORECASE)
_GEN1_ONLY = re.compile(r"Basic_A\d+|Standard_(?:A\d+m?(?:_v2)?|D\d+(?:_v[23])?|F\d+|G\d+|NV\d+|NC\d+r?|H\d+mr?)", re.I)
_E30 = "Generation 2 Hypervisor Image and VM Size can only be used with managed-disk VMs."


def vnet_config(subject: Subject, report: Report) -> None:
    """AIB066: the fields of vnetConfig fit each other."""
    vnet = subject.properties.get("vmProfile", "vnetConfig")
    if vnet is None:
        return
    subnet, container = vnet.get("subnetId"), vnet.get("containerInstanceSubnetId")
    proxy = vnet.get("proxyVmSize")
    for at in (subnet, container):
        if at is None or not isinstance(at.value, str) or not at.value or is_open(at.value):
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
    if at is None or not isinstance(at.value, str) or not at.value or is_open(at.value):
        return
    if not resource_ids.RESOURCE_GROUP.fullmatch(at.value):
        hint = f"expected {resource_ids.RESOURCE_GROUP_SHAPE}"
        report.error("AIB067", at, f"{at.value!r} is not the id of a resource group", hint=hint, source="JSON")


def one_staging_group_each(subjects: Sequence[Subject], report: Report) -> None:
    """AIB067 over all templates of a file: no two share a staging resource group."""
    seen: dict[str, Node] = {}
    for at in _staging_groups(subjects):
        first = seen.setdefault(at.value.lower(), at)
        if first is not at:
            message = f"the staging resource group of line {first.position.line} is used again"
            report.error("AIB067", at, message, hint="each template needs its own", source="JSON")


def staging_groups(subjects: Iterable[Subject]) -> Iterator[tuple[str, str, Position]]:
    """The staging resource groups, in lower case, with pointer and position, for comparing files."""
    for at in _staging_groups(subjects):
        yield at.value.lower(), at.pointer, at.position


def _staging_groups(subjects: Iterable[Subject]) -> Iterator[Node]:
    for subject in subjects:
        at = subject.written.get("properties", "stagingResourceGroup")
        if at is not None and isinstance(at.value, str) and at.value:
            yield at


def vm_size(subject: Subject, report: Report) -> None:
    """AIB064: the size has the shape of an Azure size, and boots images of the source's generation."""
    at = subject.properties.get("vmProfile", "vmSize")
    if at is None or not isinstance(at.value, str) or not at.value or is_open(at.value):
        return
    if not _SIZE.fullmatch(at.value):
        report.error("AIB064", at, f"{at.value!r} is no VM size", hint="for example Standard_D2_v2", source="SEED S8")
        return
    sku = subject.source.string("sku").lower() if subject.source is not None else ""
    if _GEN1_ONLY.fullmatch(at.value) and re.search(r"gen2|-g2$|-g2-", sku):
        message = f"{at.value} boots Generation 1 images alone; the service: {_E30}"
        hint = "choose an s size such as Standard_D2s_v3, or the Generation 1 image"
        report.error("AIB064", at, message, hint=hint, source="danielsollondon/azvmimagebuilder#57")


def disk_size(subject: Subject, report: Report) -> None:
    """AIB065: the OS disk can only grow (the sizes of marketplace images are the usual ones)."""
    at = subject.properties.get("vmProfile", "osDiskSizeGB")
    source = subject.source
    if at is None or source is None or not isinstance(at.value, int) or isinstance(at.value, bool) or at.value <= 0:
        return
    system = os_of_source(source)
    small = "small" in source.string("sku").lower()
    if system == "windows" and at.value < (30 if small else 127):
        message = f"osDiskSizeGB {at.value}: the disk of this Windows image has {30 if small else 127} GB"
        report.error("AIB065", at, message, hint="0 keeps the source's size", source="SEED S9")
    elif system == "linux" and at.value < 30:
        message = f"osDiskSizeGB {at.value}: most Linux marketplace images have 30 GB already"
        report.info("AIB065", at, message, hint="0 keeps the source's size", source="SEED S9")


RULES = (vnet_config, staging_group, vm_size, disk_size)
