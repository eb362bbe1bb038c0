"""The provisioners on a real guest: reboots of every kind, killed scripts, prompts, much output, full disk, no sshd."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hypervisor import disk, seed
from hypervisor.connection import open_hypervisor
from hypervisor.deadline import Deadline
from hypervisor.machine import DiskSpec, Machine, MachineSpec, running
from provisioners import generalize
from provisioners.base import Context, Outcome, StepError
from provisioners.communicators.base import Communicator, CommunicatorError, ConnectionLost, Stream
from provisioners.communicators.ssh_connect import connect
from provisioners.file import File
from provisioners.generalize import Generalize, default_script
from provisioners.identity import BuildIdentity
from provisioners.powershell import LinuxPowerShell
from provisioners.provisioning import nocloud_documents
from provisioners.shell import Shell

pytestmark = pytest.mark.vm
BOOT_SECONDS = 300.0


@dataclass
class LiveGuest:
    """A machine, its identity and the present connection: `provisioners.base.Guest`."""

    machine: Machine
    identity: BuildIdentity
    address: tuple[str, int]
    current: Communicator
    connections: int = 1

    @property
    def communicator(self) -> Communicator:
        return self.current

    def reconnect(self, deadline: Deadline) -> None:
        self.current.close()
        self.current = login(self.machine, self.identity, self.address, deadline)
        self.connections += 1

    def reboots(self) -> int:
        return self.machine.reboots()


@dataclass
class Told:
    """A context's callbacks, and what came through them."""

    output: bytearray = field(default_factory=bytearray)
    said: list[str] = field(default_factory=list)
    deviations: list[str] = field(default_factory=list)
    bytes_seen: int = 0

    def context(self, seconds: float = BOOT_SECONDS) -> Context:
        return Context(
            deadline=Deadline.after(seconds, "the test"),
            output=self.take,
            say=self.said.append,
            deviation=lambda code, _: self.deviations.append(code),
        )

    def take(self, stream: Stream, data: bytes) -> None:
        self.bytes_seen += len(data)
        if len(self.output) < 100_000:
            self.output += data


def login(machine: Machine, identity: BuildIdentity, address: tuple[str, int], deadline: Deadline) -> Communicator:
    return connect(
        *address,
        identity.user,
        identity.login_private,
        identity.host_public,
        deadline=deadline,
        abort=lambda: "" if machine.is_running() else "the machine is off",
    )


@contextmanager
def booted(image: Path, cache: Path, work: Path) -> Iterator[LiveGuest]:
    deadline = Deadline.after(BOOT_SECONDS, "booting the tiny guest")
    identity = BuildIdentity.create()
    disk.create_overlay(image, "qcow2", work / "os.qcow2", None, deadline)
    seed.write_iso(work / "seed.iso", nocloud_documents(identity))
    spec = MachineSpec(
        name=f"aib-test-{identity.hostname}",
        vcpus=1,
        memory_mib=256,
        disks=(DiskSpec(work / "os.qcow2", "qcow2"), DiskSpec(work / "seed.iso", "raw", readonly=True)),
        console_log=work / "console.log",
        mac=identity.mac,
    )
    with open_hypervisor(cache=cache) as hypervisor, running(hypervisor, spec, deadline) as machine:
        address = machine.forward(22)
        live = LiveGuest(machine, identity, address, login(machine, identity, address, deadline))
        yield live
        live.current.close()


@pytest.fixture(scope="module")
def guest(tiny_image: Path, build_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGuest]:
    """One guest for the tests that leave it usable."""
    with booted(tiny_image, build_cache, tmp_path_factory.mktemp("guest")) as live:
        yield live


@pytest.fixture
def own_guest(tiny_image: Path, build_cache: Path, tmp_path: Path) -> Iterator[LiveGuest]:
    """A guest for a test that leaves it unusable."""
    with booted(tiny_image, build_cache, tmp_path) as live:
        yield live


@pytest.fixture
def told() -> Told:
    return Told()


def boot_id(guest: LiveGuest) -> bytes:
    said = bytearray()
    guest.communicator.run(
        "cat /proc/sys/kernel/random/boot_id",
        deadline=Deadline.after(60, "the test"),
        output=lambda _, data: said.extend(data),
    )
    return bytes(said)


Runner = Callable[..., Outcome]


@pytest.fixture
def run(guest: LiveGuest, told: Told) -> Runner:
    """Run inline lines on the shared guest."""

    def apply(*lines: str, as_root: bool = False) -> Outcome:
        return Shell.inline(lines, as_root=as_root).apply(guest, told.context())

    return apply


def test_a_script_runs_as_the_service_runs_it(run: Runner, told: Told) -> None:
    run('echo "$0 $PACKER_BUILDER_TYPE $PACKER_BUILD_NAME $(whoami) $PWD $-"', "tty || :", "ls -l $0 | cut -c1-10")
    words = told.output.decode().split()
    assert words[0].startswith("/tmp/script_")
    assert words[1:5] == ["azure-arm", "azure-arm", "packer", "/home/packer"]
    assert "e" in words[5]
    assert told.output.decode().splitlines()[1:] == ["not a tty", "-rwxr-xr-x"]


def test_the_script_is_gone_afterwards_and_root_is_root(run: Runner, told: Told) -> None:
    run('ls /tmp/script_* 2>/dev/null | grep -v "$0" | wc -l; whoami; echo $PACKER_BUILD_NAME', as_root=True)
    assert told.output.decode().split() == ["0", "root", "azure-arm"]


def test_the_failing_line_is_named(run: Runner) -> None:
    with pytest.raises(StepError) as caught:
        run("true", "no-such-command --now", "echo unreachable")
    assert caught.value.guest_exit_code == 127
    assert caught.value.line == 3
    assert "no-such-command --now" in caught.value.message


def test_quotes_newlines_and_unicode_arrive(run: Runner, told: Told) -> None:
    run("cat <<'END'", 'it\'s "quoted" \\ $HOME {{ .Vars }} – 漢字 🚀', "END")
    assert told.output.decode() == 'it\'s "quoted" \\ $HOME {{ .Vars }} – 漢字 🚀\n'


def test_two_hundred_kilobytes_of_inline(run: Runner, told: Told) -> None:
    run(*[f"# line {number:06d} {'x' * 80}" for number in range(2000)], "wc -c <$0")
    assert int(told.output) > 200_000 - 13_000


def test_a_prompt_sees_the_end_of_its_input(run: Runner, told: Told) -> None:
    with pytest.raises(StepError) as caught:
        run("read -r answer", "echo unreachable")
    assert caught.value.guest_exit_code == 1


def test_much_output_arrives_whole(run: Runner, told: Told) -> None:
    run("head -c 20000000 /dev/zero")
    assert told.bytes_seen == 20_000_000


def test_a_killed_script_is_a_failure_and_not_a_reboot(run: Runner, guest: LiveGuest) -> None:
    before, connections = boot_id(guest), guest.connections
    with pytest.raises(StepError, match=r"ended by SIGKILL"):
        run("kill -9 $$", "sleep 60")
    assert boot_id(guest) == before
    assert guest.connections == connections


def test_killing_the_own_connection_is_not_a_reboot(run: Runner) -> None:
    with pytest.raises(StepError, match="did not reboot"):
        run("tr '\\0' ' ' </proc/$PPID/cmdline; kill -9 $PPID", "sleep 60")


def test_a_full_disk_is_told_and_the_guest_stays_usable(run: Runner, guest: LiveGuest, told: Told) -> None:
    run("sudo mount -o remount,size=4m /tmp")
    try:
        with pytest.raises(StepError, match=r"exit code 1\b"):
            run("head -c 8000000 /dev/zero >/tmp/fill")
        with pytest.raises(StepError, match="no space left"):
            Shell.inline(["#" + "x" * 100_000]).apply(guest, told.context())
    finally:
        guest.communicator.run(
            "rm -f /tmp/fill; sudo mount -o remount,size=50% /tmp", deadline=Deadline.after(60, "the test")
        )
    run("true")


def test_tmp_without_exec_is_explained(run: Runner, guest: LiveGuest) -> None:
    run("sudo mount -o remount,noexec /tmp")
    try:
        with pytest.raises(StepError) as caught:
            run("true")
        assert caught.value.guest_exit_code == 126
        assert "noexec" in caught.value.hint
    finally:
        guest.communicator.run("sudo mount -o remount,exec /tmp", deadline=Deadline.after(60, "the test"))


def test_files_go_where_the_login_user_may_write(guest: LiveGuest, told: Told, tmp_path: Path) -> None:
    source = tmp_path / "payload.bin"
    source.write_bytes(bytes(range(256)) * 8192)
    File(source, "/tmp/payload.bin").apply(guest, told.context())
    guest.communicator.download("/tmp/payload.bin", tmp_path / "back.bin", deadline=Deadline.after(60, "the test"))
    assert (tmp_path / "back.bin").read_bytes() == source.read_bytes()
    for destination, reason in {
        "/etc/payload.bin": "permission denied",
        "/tmp/no/such/payload.bin": "/tmp/no/such does not exist",
        "/tmp": "it is a folder",
        "/tmp/": "full path",
    }.items():
        with pytest.raises(StepError, match=reason):
            File(source, destination).apply(guest, told.context())


def test_a_guest_without_powershell_says_so(guest: LiveGuest, told: Told) -> None:
    with pytest.raises(StepError, match="has no PowerShell"):
        LinuxPowerShell.inline(["Write-Output 1"]).apply(guest, told.context())


@pytest.mark.parametrize(
    "lines",
    [
        ["sudo reboot", "sleep 60"],
        ["echo asked; sudo reboot"],
        ["(sleep 3; sudo reboot) >/dev/null 2>&1 &"],
        ["sudo reboot -f", "sleep 60"],
        ["sudo sh -c 'echo b >/proc/sysrq-trigger'", "sleep 60"],
    ],
    ids=["reboot", "reboot-as-last-line", "background", "forced", "sysrq"],
)
def test_a_reboot_is_survived(run: Runner, guest: LiveGuest, told: Told, lines: list[str]) -> None:
    generalize.place_default_script(guest, default_script("2023-07-01"), generalize.LINUX_SCRIPT_PATH, told.context())
    before = boot_id(guest)
    assert run(*lines).rebooted
    assert boot_id(guest) != before
    state = generalize.ensure_script(guest, default_script("2023-07-01"), generalize.LINUX_SCRIPT_PATH, told.context())
    assert (state, told.deviations) == ("default", ["deprovision-script-restored"])
    run("echo the next step runs")


def test_a_guest_that_powers_off_is_told(own_guest: LiveGuest, told: Told) -> None:
    with pytest.raises(StepError, match="powered off"):
        Shell.inline(["sudo poweroff", "sleep 60"]).apply(own_guest, told.context())


def test_a_guest_whose_sshd_is_gone_is_told(own_guest: LiveGuest, told: Told) -> None:
    # The listener first: killed last, it may still fork a server for the connection that the lost session brings about.
    stop = "sudo sh -c 'chmod 0 /usr/sbin/sshd; kill -9 $(cat /run/sshd.pid) && kill -9 $(pidof sshd)'"
    script = Shell(Shell.inline([stop, "sleep 60"]).content, reboot_limit=20)
    with pytest.raises(StepError, match=r"did not answer again.*saw no reboot"):
        script.apply(own_guest, told.context())


def test_generalizing_prints_the_script_removes_the_account_and_forgets_the_seed(
    own_guest: LiveGuest, told: Told
) -> None:
    text = default_script("2023-07-01")
    generalize.place_default_script(own_guest, text, generalize.LINUX_SCRIPT_PATH, told.context())
    outcome = Generalize(text).apply(own_guest, told.context())
    printed = told.output.decode()
    assert text in printed
    assert "packer account and entire home directory will be deleted" in printed
    assert outcome.notes[0] == generalize.NOTE["default"]
    assert "aib: removed the build's seed from /var/lib/cloud/instances/" in printed
    told.output.clear()
    own_guest.communicator.run("sudo -n true; id -un", deadline=Deadline.after(60, "the test"), output=told.take)
    assert "packer" not in told.output.decode().splitlines()


def test_generalizing_without_ovf_env_fails(own_guest: LiveGuest, told: Told) -> None:
    text = default_script("2023-07-01")
    generalize.place_default_script(own_guest, text, generalize.LINUX_SCRIPT_PATH, told.context())
    Shell.inline(["sudo rm /var/lib/waagent/ovf-env.xml"]).apply(own_guest, told.context())
    with pytest.raises(StepError, match="did not delete the build account"):
        Generalize(text).apply(own_guest, told.context())


def test_losing_the_connection_in_a_transfer_is_a_typed_error(own_guest: LiveGuest, tmp_path: Path) -> None:
    source = tmp_path / "large.bin"
    source.write_bytes(bytes(60_000_000))
    own_guest.communicator.run("(sleep 1; sudo reboot -f) >/dev/null 2>&1 &", deadline=Deadline.after(60, "the test"))
    with pytest.raises((ConnectionLost, CommunicatorError)):
        own_guest.communicator.upload(source, "/tmp/large.bin", deadline=Deadline.after(BOOT_SECONDS, "the test"))
