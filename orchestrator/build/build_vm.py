"""The build VM as the engine and the provisioners see it: a machine, an identity and an authenticated connection."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hypervisor.deadline import Deadline
from hypervisor.errors import AibError, BuildError, DeadlineExceeded
from hypervisor.machine import DiskSpec, Machine, MachineSpec
from orchestrator.plan.model import RunPlan
from orchestrator.record.runs import RunFolder
from provisioners.communicators.base import Communicator
from provisioners.communicators.ssh import SshCommunicator
from provisioners.communicators.ssh_connect import connect
from provisioners.identity import BuildIdentity

SSH_PORT = 22
SSH_TIMEOUT = 20 * 60.0
"""Seconds until a guest must answer (S21: the build VM has a 20-minute SSH timeout)."""
CONSOLE_TAIL = 4096


class GuestUnreachable(BuildError):
    """The build VM did not answer; the message quotes the end of its serial console."""


@dataclass
class BuildVm:
    """A running, connected build VM. Implements `provisioners.base.Guest`."""

    machine: Machine
    identity: BuildIdentity
    address: tuple[str, int]
    _communicator: Communicator | None = None

    @property
    def communicator(self) -> Communicator:
        """The current connection."""
        if self._communicator is None:
            raise BuildError("the build VM is not connected")
        return self._communicator

    def reconnect(self, deadline: Deadline) -> None:
        """Close what stands and connect anew, waiting for the guest's SSH banner."""
        self.close()
        self._communicator = self._connect(deadline)

    def reboots(self) -> int:
        """How many reboots the hypervisor has seen."""
        return self.machine.reboots()

    def close(self) -> None:
        """Close the connection, if any."""
        if self._communicator is not None:
            self._communicator.close()
            self._communicator = None

    def _connect(self, deadline: Deadline) -> SshCommunicator:
        host, port = self.address
        return connect(
            host,
            port,
            user=self.identity.user,
            key=self.identity.login_private,
            host_key=self.identity.host_public,
            deadline=deadline,
            abort=lambda: "" if self.machine.is_running() else "the build VM has powered off",
        )

    def wait_for_ssh(self, deadline: Deadline) -> None:
        """Wait for the first answer, at most 20 minutes; raises `GuestUnreachable` with the console's last lines."""
        limit = deadline.limited(SSH_TIMEOUT, "the service's SSH timeout of 20 minutes")
        try:
            self.reconnect(limit)
        except DeadlineExceeded as error:
            if deadline.over:
                raise DeadlineExceeded(f"{error.message}\n{self._console()}") from error
            raise self._unreachable(error) from error
        except BuildError as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: AibError) -> GuestUnreachable:
        return GuestUnreachable(
            f"the build VM did not answer by SSH: {error.message}\n{self._console()}",
            hint="Is this image bootable with this firmware, and does it run cloud-init and sshd? "
            "The whole console is in console.log of the run folder.",
        )

    def _console(self) -> str:
        console = self.machine.console_tail(CONSOLE_TAIL).strip() or "(it printed nothing)"
        return f"The end of its serial console:\n{console}"

    def login_command(self, key_file: Path) -> str:
        """The command line that logs in to the build VM by hand."""
        host, port = self.address
        return (
            f"ssh -i {key_file} -p {port} -o IdentitiesOnly=yes -o StrictHostKeyChecking=no "
            f"-o UserKnownHostsFile=/dev/null {self.identity.user}@{host}"
        )


def machine_spec(
    plan: RunPlan, folder: RunFolder, identity: BuildIdentity, *, os_disk: DiskSpec, seed_file: Path, accel: str
) -> MachineSpec:
    """The build VM that the plan asks for, with this run's disk and console."""
    return MachineSpec(
        name=f"aib-{folder.id}",
        vcpus=plan.machine.vcpus,
        memory_mib=plan.machine.memory_mib,
        disks=(os_disk, DiskSpec(seed_file, "raw", readonly=True, serial="seed")),
        console_log=folder.console_log,
        firmware=plan.machine.firmware,
        accel="kvm" if accel == "kvm" else "tcg",
        network=plan.machine.network,
        mac=identity.mac,
        uuid=str(uuid.uuid4()),
        run_id=folder.id,
    )


@contextmanager
def forwarded(machine: Machine, identity: BuildIdentity, ssh_port: int) -> Iterator[BuildVm]:
    """The running machine as a build VM that is not connected yet; its connection ends with the block."""
    vm = BuildVm(machine, identity, machine.forward(SSH_PORT, ssh_port))
    try:
        yield vm
    finally:
        vm.close()
