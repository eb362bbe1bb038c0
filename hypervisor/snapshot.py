"""A running VM's memory and disk kept at one moment, and a VM that goes on from there in another process.

libvirt's external snapshot does the first half: the RAM goes to a file, the disk so far is frozen, and the guest runs
on in a new overlay. The second half restores that file over a fresh overlay, with the paths of its new home.
"""

from __future__ import annotations

import contextlib
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

from hypervisor import network
from hypervisor.connection import Hypervisor
from hypervisor.deadline import Deadline
from hypervisor.domain import METADATA_NAMESPACE, isolated_socket, move_isolated
from hypervisor.errors import HostError
from hypervisor.libvirt_errors import translated
from hypervisor.machine import Machine, fresh_log
from hypervisor.spec import MachineSpec

OS_DISK = "vda"


def save(machine: Machine, memory: Path, next_disk: Path, *, nvram: Path | None = None) -> None:
    """Write the RAM of `machine` to `memory`, freeze its first disk, and let it run on in `next_disk`.

    `next_disk` is a qcow2 overlay on that disk, made beforehand. The guest stands still for the time of the call
    (0.3 to 1 s for 300 MB in use). A UEFI guest's variables are copied to `nvram`. Raises HypervisorError; the VM then
    runs on as before, and `memory` is gone.
    """
    import libvirt

    snapshot = ET.Element("domainsnapshot")
    ET.SubElement(snapshot, "memory", snapshot="external", file=str(memory))
    disks = ET.SubElement(snapshot, "disks")
    for target in machine.disk_targets():
        if target == OS_DISK:
            disk = ET.SubElement(disks, "disk", name=target, snapshot="external", type="file")
            ET.SubElement(disk, "driver", type="qcow2")
            ET.SubElement(disk, "source", file=str(next_disk))
        else:
            ET.SubElement(disks, "disk", name=target, snapshot="no")
    flags = libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
    flags |= libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT
    try:
        with translated(f"saving the memory of the VM {machine.spec.name}"):
            machine.domain.snapshotCreateXML(ET.tostring(snapshot, encoding="unicode"), flags)
    except BaseException:  # also a signal: a part of a memory file is of no use to anybody
        memory.unlink(missing_ok=True)
        raise
    if nvram is not None and (variables := machine.nvram()) is not None:
        shutil.copyfile(variables, nvram)


@contextlib.contextmanager
def restored(
    hypervisor: Hypervisor, spec: MachineSpec, memory: Path, deadline: Deadline, *, nvram: Path | None = None
) -> Iterator[Machine]:
    """The VM that `save` wrote, running on over `spec.disks`; destroyed at the end, however that comes.

    `spec` must have the uuid, name and shape of the saved VM; its disks and console are the new ones. Only for the
    embedded driver: a daemon would see two VMs of one name. Raises HypervisorError when QEMU or libvirt refuses.
    """
    import libvirt

    if not hypervisor.embedded:
        raise HostError("checkpoints need libvirt's embedded driver (--connect embed)")
    deadline.check(f"resuming the VM {spec.name}")
    fresh_log(spec.console_log)
    hypervisor.expect(spec.uuid)
    with hypervisor.calling(f"reading {memory}"):
        saved = hypervisor.handle.saveImageGetXMLDesc(str(memory), 0)
    xml = _moved(saved, spec, hypervisor, nvram)
    with contextlib.ExitStack() as stack:
        net = stack.enter_context(network.opened(spec, hypervisor.root))
        with hypervisor.calling(f"resuming the VM {spec.name}"):
            hypervisor.handle.restoreFlags(str(memory), xml, libvirt.VIR_DOMAIN_SAVE_PAUSED)
            domain = hypervisor.handle.lookupByUUIDString(spec.uuid)
        machine = Machine(hypervisor, spec, domain, deadline, net)
        stack.callback(machine.close)
        machine.start()
        yield machine


def _moved(saved: str, spec: MachineSpec, hypervisor: Hypervisor, nvram: Path | None) -> str:
    """The saved domain with this run's paths."""
    domain = ET.fromstring(saved)  # noqa: S314 - libvirt's own output
    if (run := domain.find(f"metadata/{{{METADATA_NAMESPACE}}}run")) is not None:
        run.attrib.update({"id": spec.run_id, "root": str(hypervisor.root)})
    if (emulator := domain.find("devices/emulator")) is not None:
        emulator.text = str(hypervisor.emulator)
    disks = domain.findall("devices/disk")
    if len(disks) != len(spec.disks):
        raise HostError(f"the saved VM has {len(disks)} disks, and not {len(spec.disks)}")
    for element, disk in zip(disks, spec.disks, strict=True):
        for old in element.findall("backingStore"):
            element.remove(old)
        source = element.find("source")
        if source is None:
            raise HostError("the saved VM has a disk without a file")
        source.attrib.clear()
        source.set("file", str(disk.path))
        for child in list(source):
            source.remove(child)
    for path in ("devices/serial/source", "devices/console/source"):
        for element in domain.findall(path):
            element.set("path", str(spec.console_log))
    move_isolated(domain, isolated_socket(hypervisor.root, spec.uuid))
    variables = domain.find("os/nvram")
    if variables is not None:
        target = hypervisor.root / "lib" / "qemu" / "nvram" / f"{spec.name}_VARS.fd"
        if nvram is None:
            raise HostError("the saved VM has UEFI variables, which are missing")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(nvram, target)
        variables.text = str(target)
    return ET.tostring(domain, encoding="unicode")
