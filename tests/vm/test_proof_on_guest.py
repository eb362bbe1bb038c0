"""The proof on real disks: a guest that was not generalized fails it, the same guest deprovisioned does not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hypervisor import appliance, disk, seed
from hypervisor.connection import Hypervisor, open_hypervisor
from hypervisor.deadline import Deadline
from hypervisor.machine import DiskSpec, MachineSpec, running
from orchestrator.build.early_inspector import EarlyInspector
from orchestrator.build.proof import Proof, prove
from provisioners.communicators.base import Communicator
from provisioners.communicators.ssh_connect import connect
from provisioners.identity import BuildIdentity
from provisioners.provisioning import nocloud_documents

pytestmark = pytest.mark.vm
SCRUB = "rm -rf /var/lib/cloud/instances/*/user-data.txt"


@pytest.fixture(scope="module")
def hypervisor(build_cache: Path) -> Iterator[Hypervisor]:
    with open_hypervisor(cache=build_cache) as opened:
        yield opened


@contextmanager
def guest(hypervisor: Hypervisor, work: Path, identity: BuildIdentity, deadline: Deadline) -> Iterator[Communicator]:
    spec = MachineSpec(
        name=f"aib-test-{identity.hostname}",
        vcpus=1,
        memory_mib=256,
        disks=(DiskSpec(work / "os.qcow2", "qcow2"), DiskSpec(work / "seed.iso", "raw", readonly=True)),
        console_log=work / "console.log",
        mac=identity.mac,
    )
    with running(hypervisor, spec, deadline) as machine:
        address = machine.forward(22)
        connection = connect(
            *address, identity.user, identity.login_private, identity.host_public, deadline=deadline, abort=lambda: ""
        )
        yield connection
        connection.close()
        assert machine.power_off(deadline), "the guest did not power off by itself"


def codes(proof: Proof, severity: str) -> set[str]:
    return {finding.code for finding in proof.findings if finding.severity == severity}


def test_only_a_generalized_disk_is_proved(
    hypervisor: Hypervisor, tiny_image: Path, build_cache: Path, tmp_path: Path
) -> None:
    deadline = Deadline.after(800, "the test")
    identity = BuildIdentity.create()
    tools = appliance.ensure(build_cache, deadline, print)
    disk.create_overlay(tiny_image, "qcow2", tmp_path / "os.qcow2", None, deadline)
    seed.write_iso(tmp_path / "seed.iso", nocloud_documents(identity))

    def proved(*, ready: bool = False) -> Proof:
        spec = DiskSpec(tmp_path / "os.qcow2", "qcow2")
        with EarlyInspector(hypervisor, tools, tmp_path, deadline, "tcg") as early:
            if ready:
                early.start()
            return prove(
                spec, early.read,
                identity=identity, own_script=False, work=tmp_path, deadline=deadline, base=tiny_image,
            )  # fmt: skip

    with guest(hypervisor, tmp_path, identity, deadline) as connection:
        assert connection.run("true", deadline=deadline).exit_code == 0
    before = proved()
    assert before.verdict == "failed"
    assert codes(before, "failure") == {"account", "home", "login-key", "host-key", "secret-in-file"}
    assert {"sudoers", "machine-id", "cloud-init", "waagent"} <= codes(before, "warning")
    assert before.raw_scan is not None
    assert before.raw_scan["login key or password"] == 0

    with guest(hypervisor, tmp_path, identity, deadline) as connection:
        # One root shell: after waagent there is no account left that could use sudo.
        script = f"sudo sh -c '{SCRUB}; /usr/sbin/waagent -force -deprovision+user && sync'"
        assert connection.run(script, deadline=deadline).exit_code == 0
    after = proved(ready=True)
    assert after.failures == ()
    assert after.verdict == "warned"
    assert codes(after, "warning") >= {"sudoers", "machine-id", "cloud-init"}
    # The host key was deleted, not overwritten: the raw scan still sees it, where no file does.
    assert "host-key-remnant" in codes(after, "warning")
    assert {system["type"] for system in after.file_systems} >= {"ext4", "vfat"}
