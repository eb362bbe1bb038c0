"""A machine's specification as libvirt domain XML; pure, no libvirt call."""

from __future__ import annotations

import string
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

from hypervisor import domain_windows
from hypervisor.errors import HostError
from hypervisor.spec import DiskSpec, MachineSpec

METADATA_NAMESPACE = "urn:aib:machine:1"
QEMU_NAMESPACE = "http://libvirt.org/schemas/domain/qemu/1.0"
NET_ALIAS = "ua-net0"
# A slot of its own on the root bus: the guest's name for the card (enp0s16) does not depend on the number of disks.
NET_SLOT = "0x10"
SPARE_PORTS = 4  # q35 takes a new disk at run time only in a root port that was there from the start
# Emulated, these make a guest slower by a sixth: a kernel that finds them copies with `rep movsb`, a loop of single
# bytes here, and keeps page tables of five levels.
_SLOW_IN_SOFTWARE = ("erms", "fsrm", "la57")
_FORMATS = ("qcow2", "raw", "vpc", "vmdk")

ET.register_namespace("aib", METADATA_NAMESPACE)
ET.register_namespace("qemu", QEMU_NAMESPACE)


def domain_xml(spec: MachineSpec, *, emulator: Path, root: Path, dac_label: str = "") -> str:
    """The domain of `spec`.

    `root` is the runtime folder that says whether the owner lives; it goes into the metadata with the run id.
    `dac_label` (`+uid:+gid`) makes a system daemon run QEMU as that user and leave the owners of files alone.

    Raises HostError for a disk format QEMU's blockdev layer or libvirt does not take.
    """
    domain = ET.Element("domain", type="kvm" if spec.accel == "kvm" else "qemu")
    _text(domain, "name", spec.name)
    if spec.uuid:
        _text(domain, "uuid", spec.uuid)
    run = ET.SubElement(ET.SubElement(domain, "metadata"), f"{{{METADATA_NAMESPACE}}}run")
    run.attrib.update({"id": spec.run_id, "root": str(root)})
    _text(domain, "memory", str(spec.memory_mib), unit="MiB")
    _text(domain, "vcpu", str(spec.vcpus))
    _os(domain, spec)
    features = ET.SubElement(domain, "features")
    ET.SubElement(features, "acpi")
    ET.SubElement(features, "apic")
    if _hyperv(spec):
        features.append(domain_windows.enlightenments())
    _cpu(domain, spec)
    _clock(domain, spec)
    for event, action in (("on_poweroff", "destroy"), ("on_reboot", "restart"), ("on_crash", "destroy")):
        _text(domain, event, action)
    if spec.profile == "windows":
        domain.append(domain_windows.no_sleep())
    _devices(domain, spec, emulator)
    if dac_label:
        label = ET.SubElement(domain, "seclabel", type="static", model="dac", relabel="no")
        _text(label, "label", dac_label)
    if spec.network == "isolated":
        _isolated(domain, spec, isolated_socket(root, spec.uuid))
    return ET.tostring(domain, encoding="unicode")


def mac(spec: MachineSpec) -> str:
    """The MAC address of the VM in an isolated network, where it is alone: QEMU's usual one when none is asked for."""
    return spec.mac or "52:54:00:12:34:56"


def isolated_socket(root: Path, uuid: str) -> Path:
    """Where QEMU finds the isolated network of the VM `uuid`."""
    return root / f"net-{uuid[:8]}"


def move_isolated(domain: ET.Element, path: Path) -> None:
    """Let a saved domain find its isolated network at `path`; nothing happens to one that has none."""
    for argument in domain.iterfind(f"{{{QEMU_NAMESPACE}}}commandline/{{{QEMU_NAMESPACE}}}arg"):
        if argument.get("value", "").startswith("stream,"):
            argument.set("value", _stream(path))


def disk_xml(disk: DiskSpec, target: str) -> str:
    """One disk for hot-plugging under the guest device name `target` (vdc)."""
    return ET.tostring(_disk(disk, target), encoding="unicode")


def disk_targets(taken: Sequence[str] = (), prefix: str = "vd") -> list[str]:
    """vda, vdb, … without what is taken."""
    return [name for name in (f"{prefix}{letter}" for letter in string.ascii_lowercase) if name not in taken]


def owner_of(xml: str) -> tuple[str, str] | None:
    """Run id and runtime folder out of a domain's XML; None when the domain is not ours."""
    run = ET.fromstring(xml).find(f"metadata/{{{METADATA_NAMESPACE}}}run")  # noqa: S314 - libvirt's own output
    return None if run is None else (run.get("id", ""), run.get("root", ""))


def _text(parent: ET.Element, tag: str, text: str, **attributes: str) -> ET.Element:
    element = ET.SubElement(parent, tag, attributes)
    element.text = text
    return element


def _os(domain: ET.Element, spec: MachineSpec) -> None:
    element = ET.SubElement(domain, "os")
    if spec.firmware == "uefi":
        element.set("firmware", "efi")
    _text(element, "type", "hvm", arch="x86_64", machine="q35")
    if spec.firmware == "uefi":
        # Azure's Gen2 without trusted launch: UEFI, and no secure boot.
        firmware = ET.SubElement(element, "firmware")
        ET.SubElement(firmware, "feature", enabled="no", name="secure-boot")
    else:
        ET.SubElement(element, "bios", useserial="yes")
    if spec.kernel is not None:
        _text(element, "kernel", str(spec.kernel))
        if spec.initrd is not None:
            _text(element, "initrd", str(spec.initrd))
        if spec.cmdline:
            _text(element, "cmdline", spec.cmdline)


def _cpu(domain: ET.Element, spec: MachineSpec) -> None:
    if spec.accel == "kvm":
        cpu = ET.SubElement(domain, "cpu", mode="host-passthrough", check="none")
    else:
        cpu = ET.SubElement(domain, "cpu", mode="maximum", check="none")
        for name in _SLOW_IN_SOFTWARE:
            ET.SubElement(cpu, "feature", policy="disable", name=name)
    # One socket: client Windows uses two at most.
    ET.SubElement(cpu, "topology", sockets="1", cores=str(spec.vcpus), threads="1")


def _hyperv(spec: MachineSpec) -> bool:
    """Software emulation knows nothing of Hyper-V's ways."""
    return spec.profile == "windows" and spec.accel == "kvm"


def _clock(domain: ET.Element, spec: MachineSpec) -> None:
    # Windows takes the hardware clock for local time.
    clock = ET.SubElement(domain, "clock", offset="localtime" if spec.profile == "windows" else "utc")
    ET.SubElement(clock, "timer", name="rtc", tickpolicy="catchup")
    ET.SubElement(clock, "timer", name="pit", tickpolicy="delay")
    ET.SubElement(clock, "timer", name="hpet", present="no")
    if _hyperv(spec):
        ET.SubElement(clock, "timer", name="hypervclock", present="yes")


def _devices(domain: ET.Element, spec: MachineSpec, emulator: Path) -> None:
    devices = ET.SubElement(domain, "devices")
    _text(devices, "emulator", str(emulator))
    windows = spec.profile == "windows"
    ET.SubElement(devices, "controller", type="usb", model="qemu-xhci" if windows else "none")
    ET.SubElement(devices, "controller", type="pci", index="0", model="pcie-root")
    for index in range(1, len(spec.disks) + 1 + SPARE_PORTS + 1):  # the disks, the rng, the spare ones
        ET.SubElement(devices, "controller", type="pci", index=str(index), model="pcie-root-port")
    bus, targets = ("sata", disk_targets(prefix="sd")) if windows else ("virtio", disk_targets())
    for number, (disk, target) in enumerate(zip(spec.disks, targets, strict=False)):
        element = _disk(disk, target, bus)
        if number == 0 and spec.kernel is None:
            ET.SubElement(element, "boot", order="1")
        devices.append(element)
    _interface(devices, spec)
    serial = ET.SubElement(devices, "serial", type="file")
    ET.SubElement(serial, "source", path=str(spec.console_log), append="off")
    if windows:
        domain_windows.add_devices(devices, tpm=spec.tpm)
    else:
        rng = ET.SubElement(devices, "rng", model="virtio")
        _text(rng, "backend", "/dev/urandom", model="random")
    ET.SubElement(devices, "memballoon", model="none")
    if spec.graphics:
        vnc = ET.SubElement(devices, "graphics", type="vnc", port="-1", autoport="yes", listen="127.0.0.1")
        if spec.vnc_password:
            vnc.set("passwd", spec.vnc_password)
    if spec.graphics or spec.screen or windows:
        ET.SubElement(ET.SubElement(devices, "video"), "model", type="vga")


def _disk(disk: DiskSpec, target: str, bus: str = "virtio") -> ET.Element:
    """virtio-blk for Linux: the cloud kernels of Debian have no AHCI driver, a SATA seed would never be seen."""
    if disk.format not in _FORMATS:
        raise HostError(
            f"{disk.path}: a VM cannot use a disk of the format {disk.format!r} (only {', '.join(_FORMATS)})",
            hint="import it first: `aib image import` converts it",
        )
    element = ET.Element("disk", type="file", device=disk.device)
    # unsafe: the overlay is thrown away when the host crashes, so nothing is gained by flushing for the guest.
    discard = {"discard": "unmap"} if disk.device == "disk" else {}
    ET.SubElement(element, "driver", {"name": "qemu", "type": disk.format, "cache": "unsafe", **discard})
    ET.SubElement(element, "source", file=str(disk.path))
    ET.SubElement(element, "target", dev=target, bus=bus)
    if disk.serial:
        _text(element, "serial", disk.serial)
    if disk.readonly or disk.device == "cdrom":
        ET.SubElement(element, "readonly")
    return element


def _interface(devices: ET.Element, spec: MachineSpec) -> None:
    if spec.network in ("none", "isolated"):  # libvirt 9 knows no interface that is a UNIX socket: see _isolated
        return
    if spec.network == "user":
        interface = ET.SubElement(devices, "interface", type="user")
    else:
        interface = ET.SubElement(devices, "interface", type="network")
        ET.SubElement(interface, "source", network=spec.network)
    if spec.mac:
        ET.SubElement(interface, "mac", address=spec.mac)
    ET.SubElement(interface, "model", type="e1000e" if spec.profile == "windows" else "virtio")
    ET.SubElement(interface, "alias", name=NET_ALIAS)
    ET.SubElement(interface, "rom", enabled="no")  # nothing boots from the network
    ET.SubElement(interface, "address", type="pci", domain="0x0000", bus="0x00", slot=NET_SLOT, function="0x0")


def _isolated(domain: ET.Element, spec: MachineSpec, path: Path) -> None:
    """The same card in the same slot, whose other end is a socket that takes QEMU's frames."""
    card = f"virtio-net-pci,netdev=host{NET_ALIAS},id={NET_ALIAS},bus=pcie.0,addr={NET_SLOT},romfile=,mac={mac(spec)}"
    commandline = ET.SubElement(domain, f"{{{QEMU_NAMESPACE}}}commandline")
    for value in ("-netdev", _stream(path), "-device", card):
        ET.SubElement(commandline, f"{{{QEMU_NAMESPACE}}}arg", value=value)


def _stream(path: Path) -> str:
    # A comma in a path is doubled in QEMU's options.
    return f"stream,id=host{NET_ALIAS},server=off,addr.type=unix,addr.path={str(path).replace(',', ',,')}"
