"""hypervisor.domain: the XML says what was asked, and what Azure's machines and QEMU's traps demand."""

from __future__ import annotations

import dataclasses
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from hypervisor.domain import SPARE_PORTS, disk_targets, disk_xml, domain_xml, move_isolated, owner_of
from hypervisor.errors import HostError
from hypervisor.spec import DiskSpec, MachineSpec

SPEC = MachineSpec(
    name="aib-x",
    vcpus=2,
    memory_mib=1024,
    disks=(DiskSpec(Path("/w/os.qcow2"), "qcow2", serial="os"), DiskSpec(Path("/w/seed.iso"), "raw", readonly=True)),
    console_log=Path("/w/console.log"),
    run_id="20261122-x",
)


def made(**changes: Any) -> ET.Element:
    return ET.fromstring(xml(**changes))


def xml(**changes: Any) -> str:
    dac_label = changes.pop("dac_label", "")
    spec = dataclasses.replace(SPEC, **changes)
    return domain_xml(spec, emulator=Path("/c/qemu"), root=Path("/r/0123abcd"), dac_label=dac_label)


def attribute(domain: ET.Element, path: str, name: str) -> str | None:
    element = domain.find(path)
    assert element is not None, path
    return element.get(name)


def test_software_emulation_by_default() -> None:
    domain = made()
    assert domain.get("type") == "qemu"
    assert attribute(domain, "cpu", "mode") == "maximum"
    assert {feature.get("name"): feature.get("policy") for feature in domain.iterfind("cpu/feature")} == {
        "erms": "disable",
        "fsrm": "disable",
        "la57": "disable",
    }
    assert attribute(domain, "os/type", "machine") == "q35"
    assert domain.findtext("devices/emulator") == "/c/qemu"
    assert (domain.findtext("vcpu"), domain.findtext("memory"), attribute(domain, "memory", "unit")) == (
        "2",
        "1024",
        "MiB",
    )


def test_kvm_passes_the_processor_through() -> None:
    domain = made(accel="kvm")
    assert (domain.get("type"), attribute(domain, "cpu", "mode")) == ("kvm", "host-passthrough")
    assert domain.find("cpu/feature") is None


def test_a_guest_that_reboots_goes_on_and_one_that_ends_is_gone() -> None:
    domain = made()
    assert [domain.findtext(tag) for tag in ("on_poweroff", "on_reboot", "on_crash")] == [
        "destroy",
        "restart",
        "destroy",
    ]


def test_every_disk_is_virtio_with_its_format_said() -> None:
    disks = made().findall("devices/disk")
    assert [attribute(disk, "driver", "type") for disk in disks] == ["qcow2", "raw"]
    assert [attribute(disk, "source", "file") for disk in disks] == ["/w/os.qcow2", "/w/seed.iso"]
    assert [attribute(disk, "target", "dev") for disk in disks] == ["vda", "vdb"]
    for disk in disks:
        assert disk.get("device") == "disk"  # a cdrom would sit on AHCI, which the cloud kernels cannot drive
        assert attribute(disk, "target", "bus") == "virtio"
        assert (attribute(disk, "driver", "cache"), attribute(disk, "driver", "discard")) == ("unsafe", "unmap")
    assert [disk.find("readonly") is not None for disk in disks] == [False, True]
    assert [disk.findtext("serial") for disk in disks] == ["os", None]


def test_only_the_first_disk_boots() -> None:
    assert [disk.find("boot") is not None for disk in made().findall("devices/disk")] == [True, False]


def test_direct_kernel_boot_replaces_the_boot_disk() -> None:
    domain = made(kernel=Path("/k/vmlinuz"), initrd=Path("/k/initrd"), cmdline="console=ttyS0 a&b")
    assert domain.findtext("os/kernel") == "/k/vmlinuz"
    assert domain.findtext("os/initrd") == "/k/initrd"
    assert domain.findtext("os/cmdline") == "console=ttyS0 a&b"
    assert domain.find("devices/disk/boot") is None


def test_bios_talks_on_the_serial_line() -> None:
    domain = made()
    assert attribute(domain, "os/bios", "useserial") == "yes"
    assert attribute(domain, "devices/serial/source", "path") == "/w/console.log"
    assert attribute(domain, "devices/serial/source", "append") == "off"
    os_element = domain.find("os")
    assert os_element is not None
    assert os_element.get("firmware") is None


def test_uefi_without_secure_boot() -> None:
    domain = made(firmware="uefi")
    assert attribute(domain, "os", "firmware") == "efi"
    assert domain.find("os/firmware/feature[@name='secure-boot'][@enabled='no']") is not None
    assert domain.find("os/bios") is None


def test_user_network_has_a_known_name_and_slot() -> None:
    domain = made(mac="52:54:00:00:00:01")
    assert attribute(domain, "devices/interface", "type") == "user"
    assert attribute(domain, "devices/interface/alias", "name") == "ua-net0"
    assert attribute(domain, "devices/interface/mac", "address") == "52:54:00:00:00:01"
    assert attribute(domain, "devices/interface/address", "bus") == "0x00"


def test_no_network_is_no_interface() -> None:
    assert made(network="none").find("devices/interface") is None


def test_a_named_network_is_libvirts() -> None:
    domain = made(network="corp-net")
    assert attribute(domain, "devices/interface", "type") == "network"
    assert attribute(domain, "devices/interface/source", "network") == "corp-net"


@pytest.mark.parametrize("disks", [0, 2, 10])
def test_root_ports_are_spare_for_hot_plugging(disks: int) -> None:
    domain = made(disks=(SPEC.disks[0],) * disks)
    ports = domain.findall("devices/controller[@model='pcie-root-port']")
    rng = 1
    assert len(ports) == disks + rng + SPARE_PORTS
    assert [port.get("index") for port in ports] == [str(number) for number in range(1, len(ports) + 1)]
    assert attribute(domain, "devices/controller[@model='pcie-root']", "index") == "0"


def test_random_numbers_but_no_balloon() -> None:
    domain = made()
    assert domain.findtext("devices/rng/backend") == "/dev/urandom"
    assert attribute(domain, "devices/memballoon", "model") == "none"


def test_no_screen_unless_asked() -> None:
    domain = made()
    assert domain.find("devices/graphics") is None
    assert domain.find("devices/video") is None


def test_a_screen_for_screenshots_listens_nowhere() -> None:
    domain = made(screen=True)
    assert domain.find("devices/graphics") is None
    assert attribute(domain, "devices/video/model", "type") == "vga"


def test_the_screen_is_local_and_needs_a_password() -> None:
    domain = made(graphics=True, vnc_password="abcd1234")
    assert attribute(domain, "devices/graphics", "listen") == "127.0.0.1"
    assert attribute(domain, "devices/graphics", "passwd") == "abcd1234"


def test_owner_is_in_the_metadata() -> None:
    assert owner_of(xml()) == ("20261122-x", "/r/0123abcd")


def test_foreign_domains_have_no_owner() -> None:
    assert owner_of("<domain type='qemu'><name>x</name><metadata/></domain>") is None
    assert owner_of("<domain type='qemu'><name>x</name></domain>") is None


def test_a_system_daemon_runs_qemu_as_us_and_relabels_nothing() -> None:
    label = made(dac_label="+1000:+1000").find("seclabel")
    assert label is not None
    assert (label.get("type"), label.get("model"), label.get("relabel")) == ("static", "dac", "no")
    assert label.findtext("label") == "+1000:+1000"
    assert made().find("seclabel") is None


def test_a_format_no_vm_can_use_is_refused() -> None:
    with pytest.raises(HostError, match="vhdx"):
        made(disks=(DiskSpec(Path("/w/a.vhdx"), "vhdx"),))


def test_paths_are_escaped() -> None:
    disk = ET.fromstring(disk_xml(DiskSpec(Path("/w/a&'<\">.raw"), "raw"), "vdc"))
    assert attribute(disk, "source", "file") == "/w/a&'<\">.raw"


def test_the_next_free_disk_name() -> None:
    assert disk_targets(["vda", "vdc"])[:2] == ["vdb", "vdd"]


def commandline(domain: ET.Element) -> list[str]:
    namespace = "{http://libvirt.org/schemas/domain/qemu/1.0}"
    return [each.get("value", "") for each in domain.iterfind(f"{namespace}commandline/{namespace}arg")]


def test_the_isolated_network_is_the_same_card_on_a_socket_of_ours() -> None:
    domain = made(network="isolated", uuid="c47b5248-6006-4301-acd0-e59d2523cb97", mac="52:54:00:aa:bb:cc")
    assert domain.find("devices/interface") is None
    netdev, stream, device, card = commandline(domain)
    assert (netdev, device) == ("-netdev", "-device")
    assert stream == "stream,id=hostua-net0,server=off,addr.type=unix,addr.path=/r/0123abcd/net-c47b5248"
    assert "virtio-net-pci,netdev=hostua-net0" in card
    assert "addr=0x10" in card
    assert card.endswith("mac=52:54:00:aa:bb:cc")
    assert commandline(made()) == []


def test_a_saved_isolated_network_gets_its_new_socket() -> None:
    domain = made(network="isolated", uuid="c47b5248-6006-4301-acd0-e59d2523cb97")
    before = commandline(domain)
    move_isolated(domain, Path("/run/a,b/net-c47b5248"))
    after = commandline(domain)
    assert after[1].endswith(",addr.path=/run/a,,b/net-c47b5248")
    assert (after[0], after[2:]) == (before[0], before[2:])
    other = made()
    move_isolated(other, Path("/run/x"))
    assert ET.tostring(other) == ET.tostring(made())
