"""Linux in the build VM: told by NoCloud, reached by SSH with a key of this build, ended by its power button."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hypervisor.deadline import Deadline
from hypervisor.spec import DiskSpec, MachineSpec
from orchestrator.build import steps
from orchestrator.build.guest_system import Abort, Medium
from orchestrator.plan.model import Step
from provisioners import reboot
from provisioners.base import Context, Provisioner
from provisioners.communicators.base import Communicator
from provisioners.generalize import place_default_script
from provisioners.identity import BuildIdentity
from provisioners.provisioning import nocloud_documents

if TYPE_CHECKING:
    from orchestrator.build.build_vm import BuildVm

SSH_PORT = 22
SSH_TIMEOUT = 20 * 60.0
"""Seconds until a guest must answer (S21: the build VM has a 20-minute SSH timeout)."""


@dataclass(frozen=True, slots=True)
class LinuxGuest:
    """See `GuestSystem`."""

    service: str = "SSH"
    port: int = SSH_PORT
    patience: float = SSH_TIMEOUT
    unreachable_hint: str = (
        "Is this image bootable with this firmware, and does it run cloud-init and sshd? "
        "The whole console is in console.log of the run folder."
    )
    resumable: bool = True
    script_is_volatile: bool = True
    deviations: tuple[tuple[str, str], ...] = ()

    def new_identity(self) -> BuildIdentity:
        """See `GuestSystem`."""
        return BuildIdentity.create()

    def medium(self, identity: BuildIdentity) -> Medium:
        """See `GuestSystem`."""
        return Medium(nocloud_documents(identity), "cidata")

    def shaped(self, spec: MachineSpec, medium: Path | None) -> MachineSpec:
        """See `GuestSystem`. The seed stays in: cloud-init looks for it at every boot."""
        if medium is None:
            return spec
        return dataclasses.replace(spec, disks=(*spec.disks, DiskSpec(medium, "raw", readonly=True, serial="seed")))

    def files_on_disk(self, identity: BuildIdentity) -> Mapping[str, bytes]:
        """See `GuestSystem`."""
        return {}

    def connect(
        self, address: tuple[str, int], identity: BuildIdentity, deadline: Deadline, abort: Abort
    ) -> Communicator:
        """See `GuestSystem`."""
        from provisioners.communicators.ssh_connect import connect

        host, port = address
        return connect(
            host,
            port,
            user=identity.user,
            key=identity.login_private,
            host_key=identity.host_public,
            deadline=deadline,
            abort=abort,
        )

    def arrived(self, vm: BuildVm, deadline: Deadline) -> None:
        """See `GuestSystem`. The first command may wait long for the login's session, and its answer is needed soon."""
        reboot.boot_state_by(vm, deadline)

    def provisioner(self, step: Step, identity: BuildIdentity) -> Provisioner:
        """See `GuestSystem`."""
        return steps.linux_provisioner(step)

    def place_script(self, vm: BuildVm, text: str, path: str, context: Context) -> None:
        """See `GuestSystem`."""
        place_default_script(vm, text, path, context)

    def power_off(self, vm: BuildVm, deadline: Deadline) -> bool:
        """See `GuestSystem`."""
        vm.close()
        return vm.machine.power_off(deadline)

    def secret(self, vm: BuildVm) -> bytes:
        """See `GuestSystem`: the login key."""
        return vm.identity.login_private.encode()

    def login(self, vm: BuildVm, secret_file: Path) -> str:
        """See `GuestSystem`: a command line."""
        host, port = vm.address
        return (
            f"ssh -i {secret_file} -p {port} -o IdentitiesOnly=yes -o StrictHostKeyChecking=no "
            f"-o UserKnownHostsFile=/dev/null {vm.identity.user}@{host}"
        )
