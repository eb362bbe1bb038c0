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
from orchestrator.build.guest_system import GuestSystem
from orchestrator.plan.model import RunPlan
from orchestrator.record.runs import RunFolder
from provisioners.communicators.base import Communicator
from provisioners.identity import BuildIdentity

CONSOLE_TAIL = 4096


class GuestUnreachable(BuildError):
    """The build VM did not answer; the message quotes the end of its serial console."""


@dataclass
class BuildVm:
    """A running, connected build VM. Implements `provisioners.base.Guest`."""

    machine: Machine
    identity: BuildIdentity
    system: GuestSystem
    address: tuple[str, int]
    _communicator: Communicator | None = None

    @property
    def communicator(self) -> Communicator:
        """The current connection."""
        if self._communicator is None:
            raise BuildError("the build VM is not connected")
        return self._communicator

    def reconnect(self, deadline: Deadline) -> None:
        """Close what stands and connect anew, waiting for the guest to answer."""
        self.close()
        self._communicator = self._connect(deadline)

    def reboots(self) -> int:
        """How many reboots the hypervisor has seen."""
        return self.machine.reboots()

    @contextmanager
    def lend(self, file: Path, serial: str, deadline: Deadline) -> Iterator[None]:
        """See `provisioners.by_disk.LendsDisks`. Raises `HostError` when the disk cannot be plugged in or out."""
        target = self.machine.attach_disk(DiskSpec(file, "raw", readonly=True, serial=serial))
        try:
            yield
        finally:
            self.machine.detach_disk(target, deadline)

    def close(self) -> None:
        """Close the connection, if any."""
        if self._communicator is not None:
            self._communicator.close()
            self._communicator = None

    def _connect(self, deadline: Deadline) -> Communicator:
        return self.system.connect(
            self.address,
            self.identity,
            deadline,
            lambda: "" if self.machine.is_running() else "the build VM has powered off",
        )

    def wait_for_first_answer(self, deadline: Deadline) -> None:
        """Wait as long as a guest of this kind may take; raises `GuestUnreachable` with the console's last lines."""
        patience = self.system.patience
        limit = deadline.limited(patience, f"the {patience / 60:g} minutes for reaching {self.system.service}")
        try:
            self.reconnect(limit)
            self.system.arrived(self, limit)
        except DeadlineExceeded as error:
            if deadline.over:
                raise DeadlineExceeded(f"{error.message}\n{self._console()}") from error
            raise self._unreachable(error) from error
        except BuildError as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: AibError) -> GuestUnreachable:
        return GuestUnreachable(
            f"the build VM did not answer by {self.system.service}: {error.message}\n{self._console()}",
            hint=self.system.unreachable_hint,
        )

    def _console(self) -> str:
        console = self.machine.console_tail(CONSOLE_TAIL).strip() or "(it printed nothing)"
        return f"The end of its serial console:\n{console}{self._screen()}"

    def _screen(self) -> str:
        """Windows says nothing on a serial console: its screen is kept as a picture."""
        picture = self.machine.spec.console_log.with_name("screen.png")
        if not self.machine.spec.graphics or not self.machine.is_running():
            return ""
        try:
            picture.write_bytes(self.machine.screenshot())
        except (AibError, OSError) as error:
            return f"\n(no picture of its screen: {error})"
        return f"\nIts screen: {picture}"


def machine_spec(
    plan: RunPlan,
    folder: RunFolder,
    identity: BuildIdentity,
    system: GuestSystem,
    *,
    os_disk: DiskSpec,
    medium: Path | None,
    accel: str,
) -> MachineSpec:
    """The build VM that the plan asks for, with this run's disk and console."""
    spec = MachineSpec(
        name=f"aib-{folder.id}",
        vcpus=plan.machine.vcpus,
        memory_mib=plan.machine.memory_mib,
        disks=(os_disk,),
        console_log=folder.console_log,
        firmware=plan.machine.firmware,
        accel="kvm" if accel == "kvm" else "tcg",
        network=plan.machine.network,
        mac=identity.mac,
        uuid=str(uuid.uuid4()),
        run_id=folder.id,
        screen=True,
    )
    return system.shaped(spec, medium)


@contextmanager
def forwarded(machine: Machine, identity: BuildIdentity, system: GuestSystem, host_port: int) -> Iterator[BuildVm]:
    """The running machine as a build VM that is not connected yet; its connection ends with the block."""
    vm = BuildVm(machine, identity, system, machine.forward(system.port, host_port))
    try:
        yield vm
    finally:
        vm.close()
