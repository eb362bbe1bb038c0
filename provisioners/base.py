"""What every provisioner is given and gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from hypervisor.deadline import Deadline
from hypervisor.errors import BuildError
from provisioners.communicators.base import Communicator, OutputCallback

AZURE_ENVIRONMENT: Mapping[str, str] = MappingProxyType(
    {"PACKER_BUILDER_TYPE": "azure-arm", "PACKER_BUILD_NAME": "azure-arm"}
)
"""What the service's Packer adds to every script's environment (PKR; a public customization.log)."""


class StepError(BuildError):
    """A provisioner failed in the guest.

    `guest_exit_code` is the guest's exit code (None: none was sent), `command` what ran, `line` the script line where
    known.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        guest_exit_code: int | None = None,
        command: str = "",
        line: int | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.guest_exit_code = guest_exit_code
        self.command = command
        self.line = line


class Guest(Protocol):
    """A running build VM as provisioners see it. The engine implements it over a communicator and a machine."""

    @property
    def communicator(self) -> Communicator:
        """The current connection; `reconnect` replaces it."""
        ...

    def reconnect(self, deadline: Deadline) -> None:
        """Close what stands and connect anew, waiting for the guest to answer; raises `DeadlineExceeded`."""
        ...

    def reboots(self) -> int:
        """How many reboots of this machine the hypervisor has seen since it started (0 where it cannot tell)."""
        ...


@dataclass(frozen=True)
class Context:
    """What one application of a provisioner may use beside the guest."""

    deadline: Deadline
    output: OutputCallback
    """What the guest prints, raw."""
    say: Callable[[str], None]
    """One line about what is being done, for the log."""
    deviation: Callable[[str, str], None]
    """(code, message): where the emulator must differ from the service in this run."""
    environment: dict[str, str] = field(default_factory=lambda: dict(AZURE_ENVIRONMENT))
    user: str = "packer"
    """The build account; a Windows guest also runs elevated scripts as it, with its password."""
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a step that succeeded ended."""

    exit_code: int = 0
    rebooted: bool = False
    notes: tuple[str, ...] = ()


class Provisioner(Protocol):
    """One customizer or validator, ready to act. Implementations are frozen dataclasses."""

    def apply(self, guest: Guest, context: Context) -> Outcome:
        """Act on the guest; raises `StepError` on failure, `DeadlineExceeded` or `Cancelled` as the deadline says."""
        ...
