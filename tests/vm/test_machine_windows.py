"""The machine with Windows' devices: its TPM, and a CD that is taken out while it runs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fixtures.guests.bare.build import BareGuest
from hypervisor.connection import open_hypervisor
from hypervisor.deadline import Deadline
from hypervisor.machine import running
from hypervisor.seed import write_iso
from hypervisor.spec import DiskSpec, MachineSpec
from tests.vm.support import wait_for

pytestmark = pytest.mark.vm


def emulators(root: Path) -> list[int]:
    """Process ids of the TPM emulators that belong to this runtime folder."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else [b""]
        except OSError:
            continue
        if words[0].endswith(b"swtpm") and str(root).encode() in b" ".join(words):
            found.append(int(entry.name))
    return found


@pytest.mark.skipif(not (shutil.which("swtpm") and shutil.which("swtpm_setup")), reason="swtpm is optional")
def test_a_tpm_lives_as_long_as_its_machine_and_a_cd_can_be_taken_out(
    bare_guest: BareGuest, build_cache: Path, tmp_path: Path
) -> None:
    deadline = Deadline.after(120, "the time of a test")
    medium = tmp_path / "answer.iso"
    write_iso(medium, {"Unattend.xml": b"<unattend/>"}, "AIB_ANSWER")
    with open_hypervisor(cache=build_cache) as hypervisor:
        spec = MachineSpec(
            name="aib-tests-tpm",
            vcpus=1,
            memory_mib=256,
            disks=(DiskSpec(medium, "raw", device="cdrom"),),
            console_log=tmp_path / "console.log",
            network="none",
            kernel=bare_guest.kernel,
            initrd=bare_guest.initrd,
            cmdline="console=ttyS0 quiet do=sleep",
            profile="windows",
            tpm=True,
        )
        with running(hypervisor, spec, deadline) as machine:
            assert machine.disk_targets() == ["sda"]
            assert len(emulators(hypervisor.root)) == 1
            machine.eject(medium)
            machine.eject(medium)
            assert machine.disk_targets() == ["sda"], "the drive stays, without a medium"
            assert str(medium) not in machine.domain.XMLDesc(0)
        wait_for(lambda: not emulators(hypervisor.root), 10, "the end of the TPM emulator")
