"""From the answer medium to the guest's last act, on the stand-in for Windows in this process: what opens the way in,
what Sysprep meets, and what is left when the guest powers off."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fixtures.guests.windows.machine import Windows
from fixtures.guests.windows.registry import Registry
from fixtures.guests.windows.sysprep import GENERALIZED
from fixtures.guests.windows.vm import setup
from fixtures.guests.windows.wsman import Listener, Server, Settings, serve
from hypervisor.deadline import Deadline
from hypervisor.errors import BuildError
from hypervisor.spec import MachineSpec
from orchestrator.build.build_vm import BuildVm
from orchestrator.build.windows_guest import WindowsGuest
from provisioners.base import Context
from provisioners.identity import BuildIdentity
from provisioners.windows_answer import answer_documents, forget_logon
from provisioners.windows_generalize import WINDOWS_SCRIPT_PATH, WindowsGeneralize, default_windows_script

POLICIES = "HKLM\\SOFTWARE\\Microsoft\\Windows\\CurrentVersion\\Policies\\System"
TEXT = default_windows_script("2022-07-01")


@dataclass
class Bed:
    """The machine, its WinRM server (which follows the machine's settings), and the build's side of both."""

    machine: Windows
    identity: BuildIdentity
    folder: Path
    off: threading.Event = field(default_factory=threading.Event)
    said: list[str] = field(default_factory=list)
    server: Server | None = None
    ended: bool = False

    def set_up(self) -> None:
        """What the first boot does."""
        answer = setup.find(self.machine.files)
        assert answer is not None
        setup.run(self.machine, answer, self.said.append)

    def follow(self) -> None:
        """Listen where the machine says so, on a free port."""
        while not self.ended:
            wanted = [self._listener(each.certificate, each.key) for each in self.machine.remoting.working()]
            if self.server is None and wanted:
                self.server = serve(self.machine, [], Settings(basic=True))
            if self.server is not None and len(wanted) != len(self.server.ports):
                self.server.configure(wanted)
            threading.Event().wait(0.05)

    def _listener(self, certificate: str, key: str) -> Listener:
        paths = self.folder / "certificate.pem", self.folder / "key.pem"
        for path, text in zip(paths, (certificate, key), strict=True):
            path.write_text(text)
        return Listener("HTTPS", 0, certificate=paths[0], key=paths[1])

    def vm(self, deadline: Deadline) -> BuildVm:
        """Connected."""
        deadline.wait_until(lambda: self.server is not None and "HTTPS" in self.server.ports, "a listener")
        assert self.server is not None
        vm = BuildVm(self, self.identity, WindowsGuest(), ("127.0.0.1", self.server.ports["HTTPS"]))  # type: ignore[arg-type]
        vm.wait_for_first_answer(deadline)
        return vm

    # What the build asks of the hypervisor's machine
    spec = MachineSpec("aib-x", 1, 512, (), Path("/nowhere"))

    def is_running(self) -> bool:
        return not self.off.is_set()

    def reboots(self) -> int:
        return 0

    def console_tail(self, size: int) -> str:
        return "\n".join(self.said)[-size:]

    def wait_off(self, deadline: Deadline) -> None:
        deadline.wait_until(self.off.is_set, "waiting for it to power off")


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    machine = Windows(tmp_path / "windows", account=None)
    machine.sysprep.image_state = GENERALIZED
    made = Bed(machine, BuildIdentity.create_for_windows(), tmp_path)
    for name, data in answer_documents(made.identity).items():
        path = tmp_path / "cd" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    machine.files.media["D"] = tmp_path / "cd"
    machine.on_power(lambda act: made.off.set())
    thread = threading.Thread(target=made.follow, daemon=True)
    thread.start()
    yield made
    made.ended = True
    thread.join(10)
    if made.server is not None:
        made.server.close()


def soon(seconds: float = 60) -> Deadline:
    return Deadline.after(seconds, "the time of a test")


def told(bed: Bed, deadline: Deadline) -> tuple[Context, list[str]]:
    printed: list[str] = []
    context = Context(
        deadline=deadline,
        output=lambda stream, data: printed.append(data.decode()),
        say=printed.append,
        deviation=lambda code, message: None,
        user=bed.identity.user,
        password=bed.identity.password,
    )
    return context, printed


def everything(machine: Windows) -> str:
    """All that the machine keeps beside its drive."""
    return machine.state.path.read_text()


def test_the_way_in_is_opened_used_and_gone(bed: Bed) -> None:
    fresh: dict[str, Any] = {
        "services": dict(bed.machine.services.table["WinRM"]),
        "basic": bed.machine.remoting.config["service"]["Basic"],
        "policies": Registry(bed.machine.state).values(POLICIES),
    }
    bed.set_up()
    assert bed.machine.unknown == []
    assert [(each.transport, each.port, each.basic) for each in bed.machine.remoting.working()] == [
        ("HTTPS", 5986, True)
    ]
    assert list(bed.machine.passwords()) == ["packer"]
    assert bed.identity.password in everything(bed.machine), "the logon at start is kept in plain text"

    deadline = soon(120)
    vm = bed.vm(deadline)
    context, printed = told(bed, deadline)
    vm.system.place_script(vm, TEXT, WINDOWS_SCRIPT_PATH, context)
    WindowsGeneralize(TEXT, WINDOWS_SCRIPT_PATH, forget_logon()).apply(vm, context)
    assert bed.machine.sysprep.image_state == GENERALIZED
    assert "IMAGE_STATE_GENERALIZE_RESEAL_TO_OOBE" in "".join(printed)
    assert not bed.machine.files.exists("C:\\Windows\\Panther\\unattend.xml")
    assert "DefaultPassword" not in everything(bed.machine)

    assert vm.system.power_off(vm, deadline)
    left = bed.machine
    assert left.unknown == []
    assert (left.remoting.listeners, dict(left.remoting.certificates), left.remoting.firewall) == ([], {}, [])
    assert set(left.accounts.users) == {"Administrator", "Guest"}
    assert left.tasks.table == {}
    assert left.remoting.config["service"]["Basic"] == fresh["basic"]
    assert left.registry.values(POLICIES) == fresh["policies"]
    assert not left.registry.exists("HKLM\\SOFTWARE\\aib")
    assert left.services.table["WinRM"]["start"] == fresh["services"]["start"]
    assert not left.files.exists("C:\\Users\\packer")
    assert bed.identity.password not in everything(left)
    assert [
        name for name in left.files.names("C:\\Windows\\Temp") if name.startswith(("aib", "packer", "script"))
    ] == []


def test_an_answer_file_in_the_disk_comes_before_the_medium(bed: Bed) -> None:
    files = WindowsGuest(on_disk=True).files_on_disk(bed.identity)
    for name, data in files.items():
        bed.machine.files.write(f"C:\\Windows\\Panther\\{name}", data)
    (bed.folder / "cd/Unattend.xml").write_text("not even XML")
    bed.set_up()
    assert [each.transport for each in bed.machine.remoting.working()] == ["HTTPS"]
    assert b"SENSITIVE" in bed.machine.files.read("C:\\Windows\\Panther\\unattend.xml")
    assert WindowsGuest().files_on_disk(bed.identity) == {}


def test_a_build_whose_way_in_cannot_be_closed_has_no_image(bed: Bed) -> None:
    bed.set_up()
    deadline = soon()
    vm = bed.vm(deadline)
    bed.machine.registry.remove("HKLM\\SOFTWARE\\aib")
    with pytest.raises(BuildError, match="way into the guest was not removed"):
        vm.system.power_off(vm, soon(15))
    assert not bed.off.is_set()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("<TimeZone>UTC</TimeZone>", "<Themes/>", "Themes"),
        ("Import-PfxCertificate", "Import-Something", "Import-Something"),
        ("<Group>Administrators</Group>", "<Group>Wheel</Group>", "Wheel"),
    ],
)
def test_the_stand_in_refuses_what_it_does_not_know(bed: Bed, old: str, new: str, said: str) -> None:
    changed = 0
    for path in (bed.folder / "cd").rglob("*.*"):
        data = path.read_bytes()
        if old.encode() in data:
            path.write_bytes(data.replace(old.encode(), new.encode()))
            changed += 1
    assert changed == 1
    with pytest.raises(setup.Refused, match=said):
        bed.set_up()
    assert bed.machine.remoting.working() == []
