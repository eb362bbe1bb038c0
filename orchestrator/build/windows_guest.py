"""Windows in the build VM: told by an answer file, reached by WinRM, ended from inside once nobody can get in any more.

An image that listens already, with an account that the user names, is told nothing and loses nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hypervisor.deadline import Deadline
from hypervisor.errors import BuildError, DeadlineExceeded
from hypervisor.spec import DiskSpec, MachineSpec
from orchestrator import fidelity
from orchestrator.build import steps
from orchestrator.build.guest_system import Abort, Medium
from orchestrator.plan.model import Step
from provisioners import windows_access, windows_answer
from provisioners.base import Context, Provisioner
from provisioners.communicators.base import Communicator
from provisioners.identity import BuildIdentity
from provisioners.windows_generalize import place_windows_script

if TYPE_CHECKING:
    from orchestrator.build.build_vm import BuildVm

HTTP_PORT, HTTPS_PORT = 5985, 5986
WINRM_TIMEOUT = 60 * 60.0
"""Seconds until a guest must answer. The service gives WinRM ten minutes, on a machine that Azure has set up already;
here the first start of the image, with all its setup, is in it."""


@dataclass(frozen=True, slots=True)
class GivenAccount:
    """An account that the image has, and the transport on which its WinRM service listens."""

    user: str
    password: str = field(repr=False)
    transport: Literal["http", "https"] = "https"


@dataclass(frozen=True, slots=True)
class WindowsGuest:
    """See `GuestSystem`. `upload`: how files are sent; `on_disk`: the answer file is put into the disk too; `tpm`: give
    it a TPM 2.0."""

    account: GivenAccount | None = None
    upload: Literal["stdin", "packer"] = "stdin"
    on_disk: bool = False
    tpm: bool = False
    service: str = "WinRM"
    patience: float = WINRM_TIMEOUT
    resumable: bool = False
    """No clock is set and no listener tried after a resume: that was never built for Windows."""
    script_is_volatile: bool = False

    @property
    def port(self) -> int:
        """See `GuestSystem`."""
        return HTTP_PORT if self.account is not None and self.account.transport == "http" else HTTPS_PORT

    @property
    def unreachable_hint(self) -> str:
        """See `GuestSystem`."""
        if self.account is not None:
            return (
                f"Does the image listen on WinRM by {self.account.transport} (port {self.port}), through its firewall, "
                f"and may {self.account.user} log in?"
            )
        return (
            "Is the image generalized? Only then Windows reads the answer file that opens WinRM; for one that listens "
            "already give --guest-user and --guest-password-file."
        )

    @property
    def deviations(self) -> tuple[tuple[str, str], ...]:
        """See `GuestSystem`."""
        return () if self.account is not None else (fidelity.deviation("windows-access"),)

    def new_identity(self) -> BuildIdentity:
        """See `GuestSystem`."""
        if self.account is not None:
            return BuildIdentity.of_account(self.account.user, self.account.password)
        return BuildIdentity.create_for_windows()

    def medium(self, identity: BuildIdentity) -> Medium | None:
        """See `GuestSystem`."""
        if self.account is not None:
            return None
        return Medium(windows_answer.answer_documents(identity), windows_answer.VOLUME)

    def shaped(self, spec: MachineSpec, medium: Path | None) -> MachineSpec:
        """See `GuestSystem`."""
        disks = spec.disks if medium is None else (*spec.disks, DiskSpec(medium, "raw", device="cdrom"))
        return dataclasses.replace(spec, disks=disks, profile="windows", graphics=True, tpm=self.tpm)

    def files_on_disk(self, identity: BuildIdentity) -> Mapping[str, bytes]:
        """See `GuestSystem`: Windows looks into its own Panther folder before it looks at CDs."""
        if self.account is not None or not self.on_disk:
            return {}
        return {"unattend.xml": windows_answer.answer_documents(identity)["Unattend.xml"]}

    def connect(
        self, address: tuple[str, int], identity: BuildIdentity, deadline: Deadline, abort: Abort
    ) -> Communicator:
        """See `GuestSystem`. Over HTTPS with an account of the image there is no certificate to compare with."""
        from provisioners.communicators.winrm_connect import connect
        from provisioners.communicators.winrm_tls import PinnedCertificate

        host, port = address
        tls: PinnedCertificate | Literal["any"] | None = "any"
        if self.account is None:
            tls = PinnedCertificate(identity.certificate)
        elif self.account.transport == "http":
            tls = None
        return connect(
            host,
            port,
            user=identity.user,
            password=identity.password,
            tls=tls,
            auth="basic" if self.account is None else "ntlm",
            deadline=deadline,
            abort=abort,
            upload=self.upload,
        )

    def arrived(self, vm: BuildVm, deadline: Deadline) -> None:
        """See `GuestSystem`: the answer file has done its work, and no script may find it in a drive."""
        for disk in vm.machine.spec.disks:
            if disk.device == "cdrom":
                vm.machine.eject(disk.path)

    def provisioner(self, step: Step, identity: BuildIdentity) -> Provisioner:
        """See `GuestSystem`."""
        return steps.windows_provisioner(step, before_sysprep="" if self.account else windows_answer.forget_logon())

    def place_script(self, vm: BuildVm, text: str, path: str, context: Context) -> None:
        """See `GuestSystem`."""
        place_windows_script(vm, text, path, context)

    def power_off(self, vm: BuildVm, deadline: Deadline) -> bool:
        """See `GuestSystem`. An image that still lets the build in must not be exported."""
        if self.account is not None:
            windows_access.shut_down(vm.communicator, deadline)
            vm.close()
            return vm.machine.power_off(deadline)
        script = windows_answer.close_access(vm.identity)
        windows_access.start_closing(vm.communicator, script, deadline)
        vm.close()
        try:
            vm.machine.wait_off(deadline)
        except DeadlineExceeded as error:
            raise BuildError(
                "the build's way into the guest was not removed: it did not power off, which it does when all is gone",
                hint=f"{windows_access.TASK}.ps1 in c:\\Windows\\Temp of the guest is what should have removed it",
            ) from error
        return True

    def secret(self, vm: BuildVm) -> bytes:
        """See `GuestSystem`: the password, and on a second line the screen's."""
        screen = vm.machine.vnc
        return f"{vm.identity.password}\n{screen[2] if screen else ''}\n".encode()

    def login(self, vm: BuildVm, secret_file: Path) -> str:
        """See `GuestSystem`: WinRM, and the screen."""
        scheme = "http" if self.port == HTTP_PORT else "https"
        host, port = vm.address
        text = f"WinRM at {scheme}://{host}:{port}/wsman as {vm.identity.user}, password in {secret_file}"
        if (screen := vm.machine.vnc) is not None:
            text += f"; its screen by VNC at {screen[0]}:{screen[1]}, password in the second line of that file"
        return text
