"""The machine as an ordinary user: embedded without any daemon, or by the session daemon that libvirt starts itself."""

from __future__ import annotations

import json
import os
import pwd
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libvirt
import platformdirs
import pytest

pytestmark = [pytest.mark.vm, pytest.mark.alone]
ROOT = Path(__file__).parents[2]
NOBODY = "nobody"

PROGRAM = """
    import json, os, sys
    from pathlib import Path
    from hypervisor.connection import open_hypervisor
    from hypervisor.deadline import Deadline
    from hypervisor.machine import DiskSpec, MachineSpec, running
    from hypervisor.sweep import sweep

    connect, home = sys.argv[1], Path(sys.argv[2])
    deadline = Deadline.after(300)
    sweep()
    (home / "os.raw").write_bytes(bytes(1 << 20))
    with open_hypervisor(connect, cache=home / "cache") as hypervisor:
        spec = MachineSpec("aib-user", 1, 256, (DiskSpec(home / "os.raw", "raw", serial="os"),), home / "console.log",
                           kernel=home / "vmlinuz", initrd=home / "initrd", cmdline="console=ttyS0 quiet do=sleep",
                           firmware=sys.argv[3])
        with running(hypervisor, spec, deadline) as machine:
            address = machine.forward(22)
            deadline.wait_until(lambda: "serial os" in machine.console_tail(), "the boot")
            owner = Path(f"/proc/{machine.qemu_pid}").stat().st_uid
            alone = os.getpid() == int(Path(f"/proc/{machine.qemu_pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
            went_down = machine.power_off(deadline)
    left = [str(path) for path in (hypervisor.root, Path(f"/proc/{machine.qemu_pid}")) if path.exists()]
    print(json.dumps({"uid": os.getuid(), "owner": owner, "ours": alone, "off": went_down, "left": left,
                      "console": machine.console_tail()}))
"""


class User:
    """An account without rights, with a copy of the code that it may read and a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.switch: list[str] = []
        packages = home / "packages"
        shutil.copytree(ROOT / "hypervisor", packages / "hypervisor")
        shutil.copytree(Path(platformdirs.__file__).parent, packages / "platformdirs")
        for path in Path(libvirt.__file__).parent.glob("libvirt*"):
            if path.is_file():
                shutil.copy(path, packages)
        if os.getuid() == 0:
            account = pwd.getpwnam(NOBODY)
            # env: what setpriv starts directly, it starts with capabilities that the account has not.
            self.switch = ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups", "env"]
            for path in (home, *home.rglob("*")):
                os.chown(path, account.pw_uid, account.pw_gid)
        self.environment = {
            "HOME": str(home),
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(packages),
            "XDG_RUNTIME_DIR": str(home),
        }

    def python(self) -> str:
        """An interpreter of our version that the account may start."""
        for candidate in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
            tried = [*self.switch, candidate, "-c", "import libvirt"]
            with_libvirt = subprocess.run(tried, env=self.environment, check=False, capture_output=True, cwd="/")
            if with_libvirt.returncode == 0:
                return candidate
        raise AssertionError(f"{NOBODY} may run neither {sys.executable} nor the system's Python of that version")

    def run(self, connect: str, firmware: str) -> dict[str, Any]:
        words = [*self.switch, self.python(), "-c", textwrap.dedent(PROGRAM), connect, str(self.home), firmware]
        done = subprocess.run(words, env=self.environment, check=False, capture_output=True, text=True, cwd="/")
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stderr == ""
        result: dict[str, Any] = json.loads(done.stdout)
        return result


@pytest.fixture
def user(bare_guest: Any) -> Iterator[User]:
    home = Path(tempfile.mkdtemp(prefix="aibu", dir="/tmp"))  # short: sockets lie below it
    for source in (bare_guest.kernel, bare_guest.initrd):
        shutil.copy(source, home)
    made = User(home)
    yield made
    _end_session_daemons(home)
    shutil.rmtree(home)


def _end_session_daemons(home: Path) -> None:
    """libvirt's session daemons would stay for two minutes after the last connection."""
    for name in ("libvirtd", "virtlogd", "virtqemud"):
        file = home / "libvirt" / f"{name}.pid"
        if file.exists():
            handle = os.pidfd_open(int(file.read_text()))
            signal.pidfd_send_signal(handle, signal.SIGTERM)
            poll = select.poll()
            poll.register(handle, select.POLLIN)
            poll.poll(10_000)
            os.close(handle)


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_without_a_daemon(user: User, firmware: str) -> None:
    result = user.run("embed", firmware)
    assert result["uid"] != 0
    assert result["owner"] == result["uid"]
    assert result["ours"]  # QEMU is a child of the process that runs the build
    assert result["off"]
    assert f"firmware {firmware} nics 1" in result["console"]
    assert result["left"] == []
    assert list((user.home / "libvirt").glob("*-sock")) == []  # no daemon was started


def test_through_a_session_daemon(user: User) -> None:
    result = user.run("qemu:///session", "bios")
    assert result["owner"] == result["uid"] != 0
    assert result["off"]
    assert result["left"] == []
