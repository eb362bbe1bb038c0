"""What a domain for Windows has beside the common parts (`windows.md` 5: from memory, never run with real Windows)."""

from __future__ import annotations

import xml.etree.ElementTree as ET

_SPINLOCK_RETRIES = 8191
_ENLIGHTENMENTS = ("relaxed", "vapic", "vpindex", "runtime", "synic", "stimer", "reset", "frequencies")


def enlightenments() -> ET.Element:
    """What tells Windows that it runs on a hypervisor; KVM answers as Hyper-V would."""
    hyperv = ET.Element("hyperv", mode="custom")
    for name in _ENLIGHTENMENTS:
        ET.SubElement(hyperv, name, state="on")
    ET.SubElement(hyperv, "spinlocks", state="on", retries=str(_SPINLOCK_RETRIES))
    return hyperv


def no_sleep() -> ET.Element:
    """Client Windows would send a machine to sleep that nobody touches for half an hour."""
    power = ET.Element("pm")
    ET.SubElement(power, "suspend-to-mem", enabled="no")
    ET.SubElement(power, "suspend-to-disk", enabled="no")
    return power


def add_devices(devices: ET.Element, *, tpm: bool) -> None:
    """A pointer that needs no grabbing, and a TPM 2.0 for those that insist on one (Windows 11)."""
    ET.SubElement(devices, "input", type="tablet", bus="usb")
    if tpm:
        element = ET.SubElement(devices, "tpm", model="tpm-crb")
        ET.SubElement(element, "backend", type="emulator", version="2.0")
