"""The build's side of a Windows guest: how it is chosen, what it is given, and how it ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from hypervisor.deadline import Deadline
from hypervisor.errors import BuildError, InputError, UsageError
from hypervisor.spec import DiskSpec, MachineSpec
from orchestrator.build.build_vm import BuildVm
from orchestrator.build.guest_choice import guest_system
from orchestrator.build.linux_guest import LinuxGuest
from orchestrator.build.options import BuildOptions
from orchestrator.build.windows_guest import GivenAccount, WindowsGuest
from orchestrator.plan.model import RunPlan
from provisioners import windows_payloads
from provisioners.base import StepError
from provisioners.communicators.base import CommandResult, CommunicatorError
from tests.unit.test_planner import SOURCE, WINDOWS, plan, template

SPEC = MachineSpec("aib-x", 2, 4096, (DiskSpec(Path("/w/os.qcow2"), "qcow2"),), Path("/w/console.log"))
GIVEN = GivenAccount("builder", "theirs")


def plan_of(os: str) -> RunPlan:
    return plan(template(), source=WINDOWS if os == "windows" else SOURCE)


def test_the_image_decides_the_guest() -> None:
    assert guest_system(plan_of("linux"), BuildOptions()) == LinuxGuest()
    assert guest_system(plan_of("windows"), BuildOptions()) == WindowsGuest()
    chosen = guest_system(plan_of("windows"), BuildOptions(fidelity={"upload": "packer"}, tpm=True))
    assert chosen == WindowsGuest(upload="packer", tpm=True)


def test_an_account_of_the_image_comes_with_a_file_of_its_password(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("theirs\n")
    options = BuildOptions(guest_user="builder", guest_password_file=str(file), winrm="http")
    chosen = guest_system(plan_of("windows"), options)
    assert chosen == WindowsGuest(GivenAccount("builder", "theirs", "http"))
    assert chosen.port == 5985
    assert "theirs" not in repr(chosen)


@pytest.mark.parametrize("content", [b"", b"\n", b"one\ntwo\n", b"\xff\xfe", b"x" * 2000])
def test_a_file_that_holds_no_password_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "password"
    file.write_bytes(content)
    with pytest.raises(InputError, match="password"):
        guest_system(plan_of("windows"), BuildOptions(guest_user="x", guest_password_file=str(file)))
    with pytest.raises(InputError, match="cannot be read"):
        guest_system(plan_of("windows"), BuildOptions(guest_user="x", guest_password_file=str(tmp_path / "none")))


def test_options_for_windows_are_refused_for_linux_and_by_halves() -> None:
    with pytest.raises(UsageError, match="--guest-user is for Windows images"):
        guest_system(plan_of("linux"), BuildOptions(guest_user="x", guest_password_file="/f"))
    with pytest.raises(UsageError, match="--tpm is for Windows images"):
        guest_system(plan_of("linux"), BuildOptions(tpm=True))
    with pytest.raises(UsageError, match="go together"):
        BuildOptions(guest_user="x")


def test_it_gets_an_answer_medium_in_a_cd_drive_unless_it_listens_already() -> None:
    told = WindowsGuest()
    medium = told.medium(told.new_identity())
    assert medium is not None
    assert "Unattend.xml" in medium.files
    shaped = told.shaped(SPEC, Path("/w/seed.iso"))
    assert (shaped.profile, shaped.graphics, shaped.disks[1].device) == ("windows", True, "cdrom")
    listening = WindowsGuest(GIVEN)
    assert [code for code, _ in told.deviations] == ["windows-access"]
    assert listening.deviations == ()
    assert listening.medium(listening.new_identity()) is None
    assert listening.shaped(SPEC, None).disks == SPEC.disks


@dataclass
class FakeMachine:
    """A machine that powers off by itself, or does not."""

    spec: MachineSpec
    goes_off: bool = True
    ejected: list[Path] = field(default_factory=list)
    pressed: int = 0
    vnc: tuple[str, int, str] | None = ("127.0.0.1", 5901, "screen-pw")

    def wait_off(self, deadline: Deadline) -> None:
        while not self.goes_off:
            deadline.pause(0.01, "waiting for it to power off")

    def power_off(self, deadline: Deadline) -> bool:
        self.pressed += 1
        return self.goes_off

    def eject(self, path: Path) -> None:
        self.ejected.append(path)

    def reboots(self) -> int:
        return 0


@dataclass
class FakeConnection:
    """A communicator that keeps what it was given."""

    code: int = 0
    says: bytes = b""
    lost: bool = False
    uploads: dict[str, bytes] = field(default_factory=dict)
    ran: list[tuple[str, bytes]] = field(default_factory=list)
    closed: bool = False

    def upload(self, source: bytes, destination: str, *, deadline: Deadline) -> None:
        if self.lost:
            raise CommunicatorError("the connection is gone")
        self.uploads[destination] = source

    def run(self, command: str, *, deadline: Deadline, output: Any = None, stdin: bytes = b"") -> CommandResult:
        self.ran.append((command, stdin))
        if output is not None:
            output("stderr", self.says)
        return CommandResult(self.code)

    def close(self) -> None:
        self.closed = True


def running(system: WindowsGuest, connection: FakeConnection, *, goes_off: bool = True) -> tuple[BuildVm, FakeMachine]:
    machine = FakeMachine(system.shaped(SPEC, None if system.account else Path("/w/seed.iso")), goes_off)
    vm = BuildVm(machine, system.new_identity(), system, ("127.0.0.1", 50000), connection)  # type: ignore[arg-type]
    return vm, machine


def soon() -> Deadline:
    return Deadline.after(0.2, "the time for it")


def test_the_answer_medium_is_taken_out_when_the_guest_answers() -> None:
    vm, machine = running(WindowsGuest(), FakeConnection())
    vm.system.arrived(vm, Deadline.after(60))
    assert machine.ejected == [Path("/w/seed.iso")]


def test_the_guest_ends_itself_once_nobody_can_get_in() -> None:
    connection = FakeConnection()
    vm, machine = running(WindowsGuest(), connection)
    assert vm.system.power_off(vm, soon())
    [script] = connection.uploads.values()
    assert b"net.exe user packer /delete" in script
    assert [command for command, _ in connection.ran] == [windows_payloads.command("start-task.ps1")]
    assert (connection.closed, machine.pressed) == (True, 0)


def test_a_guest_that_kept_the_way_in_is_not_exported() -> None:
    vm, machine = running(WindowsGuest(), FakeConnection(), goes_off=False)
    with pytest.raises(BuildError, match="way into the guest was not removed"):
        vm.system.power_off(vm, soon())
    assert machine.pressed == 0


@pytest.mark.parametrize(
    ("connection", "said"),
    [(FakeConnection(code=1, says=b"Access is denied"), "Access is denied"), (FakeConnection(lost=True), "is gone")],
)
def test_an_end_that_cannot_be_started_fails_the_build(connection: FakeConnection, said: str) -> None:
    vm, _ = running(WindowsGuest(), connection)
    with pytest.raises(StepError, match=said):
        vm.system.power_off(vm, soon())


def test_an_image_that_listened_before_is_only_shut_down() -> None:
    connection = FakeConnection()
    vm, machine = running(WindowsGuest(GIVEN), connection)
    assert vm.system.power_off(vm, soon())
    assert [command for command, _ in connection.ran] == ['shutdown /s /f /t 1 /c "packer shutdown"']
    assert (connection.uploads, machine.pressed) == ({}, 1)


def test_how_to_log_in_names_no_secret(tmp_path: Path) -> None:
    vm, _ = running(WindowsGuest(), FakeConnection())
    text = vm.system.login(vm, tmp_path / "file")
    assert "https://127.0.0.1:50000/wsman as packer" in text
    assert "127.0.0.1:5901" in text
    assert vm.identity.password not in text
    assert "screen-pw" not in text
    assert vm.system.secret(vm).decode().split() == [vm.identity.password, "screen-pw"]
