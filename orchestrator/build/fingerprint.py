"""What saved memory can be resumed on: the same QEMU, libvirt, acceleration, processor and devices."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

from hypervisor.connection import Hypervisor
from hypervisor.domain import domain_xml
from hypervisor.libvirt_errors import translated
from hypervisor.spec import MachineSpec

_NOWHERE = Path("/")
_CPU_FIELDS = ("vendor_id", "model name", "microcode", "flags")


def ram_fingerprint(hypervisor: Hypervisor, spec: MachineSpec) -> str:
    """A digest that differs whenever memory saved from `spec` here might not run on.

    Paths, names and addresses do not count. The processor counts only with KVM: under TCG, QEMU is the processor.
    """
    disks = tuple(dataclasses.replace(disk, path=_NOWHERE) for disk in spec.disks)
    bare = dataclasses.replace(
        spec, name="", uuid="", run_id="", mac="", vnc_password="", disks=disks, console_log=_NOWHERE
    )
    with translated("asking for libvirt's version"):
        version = hypervisor.handle.getLibVersion()
    facts = [
        hypervisor.emulator.parent.name,  # a digest of the QEMU that is installed
        version,
        domain_xml(bare, emulator=_NOWHERE, root=_NOWHERE),
        _processor() if spec.accel == "kvm" else "",
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _processor() -> str:
    """What /proc/cpuinfo says of the first processor and its features."""
    first = Path("/proc/cpuinfo").read_text(errors="replace").split("\n\n", 1)[0]
    return "\n".join(line for line in first.splitlines() if line.split("\t")[0].strip() in _CPU_FIELDS)
