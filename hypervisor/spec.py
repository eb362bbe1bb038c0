"""What a build VM is made of: plain values, no libvirt."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

DiskFormat = Literal["qcow2", "raw", "vpc", "vmdk"]
Firmware = Literal["bios", "uefi"]
AccelName = Literal["kvm", "tcg"]
Profile = Literal["linux", "windows"]
"""The devices of a VM: virtio for Linux; for Windows those that every image has a driver for (SATA, e1000e, VGA)."""


@dataclass(frozen=True, slots=True)
class DiskSpec:
    """A disk of the VM; `format` is always said, never probed. The guest sees `serial` (at most 20 characters).

    A `cdrom` is read-only and can be taken out (`Machine.eject`); the Windows profile alone has them.
    """

    path: Path
    format: str
    readonly: bool = False
    serial: str = ""
    device: Literal["disk", "cdrom"] = "disk"


@dataclass(frozen=True, slots=True)
class MachineSpec:
    """A VM before it exists.

    `console_log`: where the serial console is kept (made anew). `network`: "user" (QEMU's own, the guest reaches the
    host's loopback as 10.0.2.2), "isolated" (through passt: it reaches no address of the host and no metadata service),
    "none", or the name of a libvirt network (session and system connections only).
    `mac` and `uuid`: chosen when empty. `run_id` is written into the domain's metadata. With `kernel` the VM boots it
    directly instead of the first disk. `screen`: a VGA card, for screenshots; `graphics`: one that VNC shows too, on
    127.0.0.1 under a password. `tpm`: an emulated TPM 2.0 (swtpm).
    """

    name: str
    vcpus: int
    memory_mib: int
    disks: tuple[DiskSpec, ...]
    console_log: Path
    firmware: Firmware = "bios"
    accel: AccelName = "tcg"
    network: str = "user"
    mac: str = ""
    uuid: str = ""
    run_id: str = ""
    kernel: Path | None = None
    initrd: Path | None = None
    cmdline: str = ""
    screen: bool = False
    graphics: bool = False
    vnc_password: str = ""
    profile: Profile = "linux"
    tpm: bool = False
