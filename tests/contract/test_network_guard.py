"""The guard of an isolated network with the real passt; the guest is ours, frame by frame."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from hypervisor import network
from hypervisor.errors import HostError
from hypervisor.frame_filter import greeting
from hypervisor.spec import MachineSpec
from tests.unit.test_frame_filter import SYN, SYN_ACK, packed, tcp

UUID = "c47b5248-6006-4301-acd0-e59d2523cb97"
SPEC = MachineSpec("x", 1, 256, (), Path("/dev/null"), network="isolated", uuid=UUID, mac="52:54:00:11:22:33")


class Guest:
    """QEMU's end of the socket."""

    def __init__(self, root: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(root / f"net-{UUID[:8]}"))
        self.socket.settimeout(20)

    def __enter__(self) -> Guest:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, frame: bytes) -> None:
        self.socket.sendall(struct.pack("!I", len(frame)) + frame)

    def receive(self) -> bytes:
        size = struct.unpack("!I", self._exactly(4))[0]
        return self._exactly(size)

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            data += (more := self.socket.recv(size - len(data)))
            assert more, "the guard closed the socket"
        return data


@pytest.fixture
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("g")


@pytest.fixture
def net(root: Path) -> Iterator[network.Network]:
    with network.opened(SPEC, root) as opened:
        yield opened


@pytest.fixture
def guest(root: Path, net: network.Network) -> Iterator[Guest]:
    with Guest(root) as connected:
        yield connected


def wait_gone(pids: list[int]) -> None:
    end = time.monotonic() + 20
    while any(_runs(pid) for pid in pids):
        assert time.monotonic() < end, pids
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        return b") Z " not in Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False


def programs(root: Path) -> list[int]:
    """The guard of this folder and what it started."""
    parents, found = {}, set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                parents[int(entry.name)] = int((entry / "stat").read_bytes().rpartition(b") ")[2].split()[1])
                if os.fsencode(root) in (entry / "cmdline").read_bytes():
                    found.add(int(entry.name))
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more  # not in one pass: process ids wrap, and a child may come before its parent
    return sorted(found)


def test_a_connection_comes_in_and_the_guest_cannot_open_one_to_this_host(net: network.Network, guest: Guest) -> None:
    port = net.forward(None, 22)
    with pytest.raises(HostError, match="one port"):
        net.forward(None, 22)
    assert guest.receive()[12:14] == b"\x08\x06"  # the answer to the introduction
    with socket.create_connection(("127.0.0.1", port), timeout=20):
        opening = guest.receive()
        assert (opening[26:30], opening[30:34]) == (packed("10.0.2.2"), packed("10.0.2.15"))
        from_port = struct.unpack_from("!H", opening, 34)[0]
        guest.send(answer := tcp("10.0.2.2", from_port, SYN_ACK, from_port=22))
        assert guest.receive() == greeting(answer)[4:]
        for address in ("10.0.2.2", "127.0.0.1", "169.254.169.254"):
            guest.send(tcp(address, port, SYN))
            refused = guest.receive()
            while refused[23] != 1:  # passt may repeat itself
                refused = guest.receive()
            assert refused[34:36] == bytes([3, 13]), address


def test_nothing_is_left_when_the_vm_has_ended(root: Path) -> None:
    with network.opened(SPEC, root) as net, Guest(root):
        net.forward(None, 22)
        running = programs(root)
        assert len(running) >= 2, "the guard and passt"
    wait_gone(running)
    assert list(root.iterdir()) == []


def test_nothing_is_left_when_the_owner_is_killed(root: Path) -> None:
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom hypervisor import network\n"
        "from tests.contract.test_network_guard import SPEC, Guest\n"
        "root = Path(sys.argv[1])\n"
        "with network.opened(SPEC, root) as net:\n"
        "    guest = Guest(root); net.forward(None, 22); print('up', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(root)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"up\n"
        running = [pid for pid in programs(root) if pid != owner.pid]
        assert len(running) >= 2
        owner.send_signal(signal.SIGKILL)
    wait_gone(running)


@pytest.mark.usefixtures("guest")
def test_a_port_that_somebody_has_is_named(net: network.Network) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        with pytest.raises(HostError, match=f"port {taken} of 127.0.0.1"):
            net.forward(None, 22, taken)
    assert net.forward(None, 22, taken) == taken


def test_an_offline_host_uses_its_loopback(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = root / "passt"
    fake.write_text('#!/bin/sh\ncase "$*" in *"--interface lo"*) exit 0 ;; esac\necho no interface >&2; exit 1\n')
    fake.chmod(0o755)
    monkeypatch.setattr(network, "require", lambda tool: fake)
    with network.opened(SPEC, root) as net, Guest(root):
        assert net.forward(None, 22) > 0
