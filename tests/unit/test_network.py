"""hypervisor.network: forwarded ports, with somebody else always quicker."""

from __future__ import annotations

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
