"""hypervisor.network: forwarded ports, with somebody else always quicker."""

from __future__ import annotations

import json
import re
import socket

import pytest

from hypervisor import network
from hypervisor.errors import HostError

TAKEN = "Could not set up host forwarding rule 'tcp:127.0.0.1:1-:22'"


class Monitor:
    """QEMU's monitor: refuses the first `refusals` forwards, as when the port has just been taken."""

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals
        self.commands: list[str] = []

    def __call__(self, _domain: object, command: str) -> str:
        self.commands.append(command)
        return TAKEN if len(self.commands) <= self.refusals else ""


def ports(monitor: Monitor) -> list[int]:
    pattern = re.compile(r"hostfwd_add hostua-net0 tcp:127\.0\.0\.1:(\d+)-:22")
    return [int(match[1]) for command in monitor.commands if (match := pattern.fullmatch(command))]


def test_a_free_port_is_free() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", network.free_port()))


def test_a_taken_port_is_replaced_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monitor = Monitor(refusals=2)
    monkeypatch.setattr(network, "_monitor", monitor)
    port = network.add_forward("domain", 22)
    assert len(ports(monitor)) == 3
    assert ports(monitor)[-1] == port


def test_it_does_not_try_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "_monitor", Monitor(refusals=10**6))
    with pytest.raises(HostError, match="Could not set up"):
        network.add_forward("domain", 22)


def test_a_port_that_was_asked_for_is_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monitor = Monitor(refusals=1)
    monkeypatch.setattr(network, "_monitor", monitor)
    with pytest.raises(HostError, match="port 2222 of") as caught:
        network.add_forward("domain", 22, 2222)
    assert ports(monitor) == [2222]
    assert "2222" in caught.value.hint
    assert "choose another" in caught.value.hint


class Guard:
    """The guard process of an isolated network: answers each forward with the next of `answers`."""

    def __init__(self, *answers: str) -> None:
        self.asked: list[str] = []
        self.stdin, self.stdout = self, self
        self._answers = list(answers)

    def write(self, line: str) -> None:
        self.asked.append(line)

    def flush(self) -> None:
        pass

    def readline(self) -> str:
        return json.dumps({"error": self._answers.pop(0)}) + "\n" if self._answers else ""


def isolated(*answers: str) -> tuple[network.Isolated, Guard]:
    guard = Guard(*answers)
    return network.Isolated(guard), guard  # type: ignore[arg-type]


def test_an_isolated_network_forwards_one_port() -> None:
    net, guard = isolated("")
    port = net.forward("domain", 22)
    assert guard.asked == [f"22 {port}\n"]
    with pytest.raises(HostError, match="forwards one port"):
        net.forward("domain", 80)


def test_a_port_that_is_taken_meanwhile_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        free, taken = network.free_port(), other.getsockname()[1]
        choices = [taken, free]
        monkeypatch.setattr(network, "free_port", lambda: choices.pop(0))
        net, guard = isolated("Address already in use", "")
        assert net.forward("domain", 22) == free
        assert guard.asked == [f"22 {taken}\n", f"22 {free}\n"]
        net, _ = isolated("Address already in use")
        with pytest.raises(HostError, match=f"port {taken} of 127.0.0.1"):
            net.forward("domain", 22, taken)


def test_what_passt_says_is_told() -> None:
    net, guard = isolated("no interface with a usable address")
    with pytest.raises(HostError, match="no interface with a usable address") as caught:
        net.forward("domain", 22)
    assert len(guard.asked) == 1
    assert "--network user" in caught.value.hint
    with pytest.raises(HostError, match="guard process has ended"):
        isolated()[0].forward("domain", 22)


def test_libvirts_networks_need_a_daemon() -> None:
    for name in ("user", "isolated", "none"):
        network.check(name, "embed")
    network.check("lab", "qemu:///system")
    with pytest.raises(HostError, match="'lab'") as caught:
        network.check("lab", "embed")
    assert "--connect qemu:///system --network lab" in caught.value.hint
