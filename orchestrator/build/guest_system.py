"""The seam between a build and the system in its VM: how it boots, what it is told, how it is reached, how it ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from hypervisor.deadline import Deadline
from hypervisor.spec import MachineSpec
from orchestrator.plan.model import Step
from provisioners.base import Context, Provisioner
from provisioners.communicators.base import Communicator
from provisioners.identity import BuildIdentity

if TYPE_CHECKING:
    from orchestrator.build.build_vm import BuildVm

Abort = Callable[[], str]
"""Why waiting for the guest has become pointless; "" while it has not."""


@dataclass(frozen=True, slots=True)
class Medium:
    """What the guest reads at its first boot: the files of an ISO with this label."""

    files: Mapping[str, bytes]
    volume: str


class GuestSystem(Protocol):
    """One kind of guest. Implementations are frozen dataclasses: state belongs to the `BuildVm`."""

    @property
    def service(self) -> str:
        """The service by which the guest is reached, in words: SSH, WinRM."""
        ...

    @property
    def port(self) -> int:
        """The guest's port of it."""
        ...

    @property
    def patience(self) -> float:
        """Seconds until the guest must have answered for the first time."""
        ...

    @property
    def unreachable_hint(self) -> str:
        """What to look at when it did not."""
        ...

    @property
    def resumable(self) -> bool:
        """Whether its memory may be kept and resumed."""
        ...

    @property
    def script_is_volatile(self) -> bool:
        """Whether a reboot takes the deprovision script away."""
        ...

    @property
    def deviations(self) -> tuple[tuple[str, str], ...]:
        """(code, message): how getting into this guest differs from the service."""
        ...

    def new_identity(self) -> BuildIdentity:
        """Whom the build works as, and what makes both sides sure of each other."""
        ...

    def medium(self, identity: BuildIdentity) -> Medium | None:
        """What the guest is told at its first boot; None when it is told nothing."""
        ...

    def shaped(self, spec: MachineSpec, medium: Path | None) -> MachineSpec:
        """`spec` with the devices that this guest has drivers for, and its medium."""
        ...

    def files_on_disk(self, identity: BuildIdentity) -> Mapping[str, bytes]:
        """What is put into the disk before the guest's first boot (`hypervisor.offline_edit`); mostly nothing."""
        ...

    def connect(
        self, address: tuple[str, int], identity: BuildIdentity, deadline: Deadline, abort: Abort
    ) -> Communicator:
        """Wait for the guest and log in; raises as the communicators' `connect` does."""
        ...

    def arrived(self, vm: BuildVm, deadline: Deadline) -> None:
        """The guest has let us in for the first time."""
        ...

    def provisioner(self, step: Step, identity: BuildIdentity) -> Provisioner:
        """What does a step; raises `HostError` for a kind that no such guest can run."""
        ...

    def place_script(self, vm: BuildVm, text: str, path: str, context: Context) -> None:
        """Put the default deprovision script into the guest."""
        ...

    def power_off(self, vm: BuildVm, deadline: Deadline) -> bool:
        """End the guest; true when it went down by itself. Raises `BuildError` when what it ended as is of no use."""
        ...

    def secret(self, vm: BuildVm) -> bytes:
        """What a file must hold for somebody to log in by hand."""
        ...

    def login(self, vm: BuildVm, secret_file: Path) -> str:
        """How to log in by hand, in words."""
        ...
