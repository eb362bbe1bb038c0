"""hypervisor.domain for Windows: the devices that its images have drivers for, and what Hyper-V would offer."""

from __future__ import annotations

import dataclasses
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from hypervisor.domain import domain_xml
from hypervisor.spec import DiskSpec, MachineSpec

SPEC = MachineSpec(
    name="aib-w",
    vcpus=2,
    memory_mib=4096,
    disks=(DiskSpec(Path("/w/os.qcow2"), "qcow2", serial="os"), DiskSpec(Path("/w/a.iso"), "raw", device="cdrom")),
    console_log=Path("/w/console.log"),
    profile="windows",
    graphics=True,
    mac="52:54:00:00:00:01",
)


def made(**changes: Any) -> ET.Element:
    spec = dataclasses.replace(SPEC, **changes)
    return ET.fromstring(domain_xml(spec, emulator=Path("/c/qemu"), root=Path("/r/0123abcd")))


def test_disks_are_sata_and_the_answer_medium_a_cd_that_cannot_be_written() -> None:
    disk, cd = made().findall("devices/disk")
    assert [each.get("device") for each in (disk, cd)] == ["disk", "cdrom"]
    assert [each.find("target").attrib for each in (disk, cd)] == [
        {"dev": "sda", "bus": "sata"},
        {"dev": "sdb", "bus": "sata"},
    ]
    assert disk.find("readonly") is None
    assert cd.find("readonly") is not None
    assert disk.find("boot").get("order") == "1"
    assert cd.find("boot") is None


def test_nothing_of_it_is_virtio() -> None:
    assert "virtio" not in ET.tostring(made(tpm=True), encoding="unicode")
    assert made().find("devices/interface/model").get("type") == "e1000e"


def test_the_clock_is_local_time_without_a_high_precision_timer() -> None:
    clock = made().find("clock")
    assert clock.get("offset") == "localtime"
    assert {timer.get("name"): timer.get("present") for timer in clock} == {"rtc": None, "pit": None, "hpet": "no"}


def test_kvm_answers_as_hyper_v() -> None:
    domain = made(accel="kvm")
    hyperv = domain.find("features/hyperv")
    assert {each.tag for each in hyperv if each.get("state") == "on"} == {
        *("relaxed", "vapic", "spinlocks", "vpindex", "runtime", "synic", "stimer", "reset", "frequencies"),
    }
    assert domain.find("clock/timer[@name='hypervclock']").get("present") == "yes"


def test_software_emulation_does_not() -> None:
    assert made().find("features/hyperv") is None
    assert made().find("clock/timer[@name='hypervclock']") is None


@pytest.mark.parametrize("profile", ["windows", "linux"])
def test_a_machine_never_sleeps_by_itself_only_where_windows_would(profile: str) -> None:
    power = made(profile=profile, disks=SPEC.disks[:1]).find("pm")
    assert (power is not None) == (profile == "windows")


def test_a_tpm_is_there_when_asked_for() -> None:
    assert made().find("devices/tpm") is None
    backend = made(tpm=True).find("devices/tpm/backend")
    assert backend.attrib == {"type": "emulator", "version": "2.0"}


def test_generation_2_boots_by_uefi_and_1_by_bios() -> None:
    assert made(firmware="uefi").find("os").get("firmware") == "efi"
    assert made().find("os/bios") is not None
