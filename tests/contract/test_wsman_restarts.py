"""The WS-Management server of a Windows guest that goes down: what a client sees, and whether it comes back."""

from __future__ import annotations

import http.client
import socket
import threading

import pytest

from fixtures.guests.windows.server import running
from fixtures.guests.windows.wsman import faults, serving
from tests.contract.winrm_bed import Machine, wait
from tests.contract.wsman_client import Client, stdout

pytestmark = pytest.mark.usefixtures("closed_clients")


class Restarting(Machine):
    """One that can be told to restart."""

    boots = 1

    def __init__(self, folder) -> None:
        super().__init__(folder)
        self.may_boot = threading.Event()
        self.may_boot.set()

    def on_power(self, act) -> None:
        self.power = act

    def boot(self) -> None:
        self.may_boot.wait(20)
        self.boots += 1


@pytest.fixture
def served(tmp_path):
    with running(Restarting(tmp_path)) as served:
        yield served


def test_a_restart_ends_everything_and_opens_the_same_port(served, client):
    shell = client.create().shell
    command = client.command(shell, "sleep 60").text("CommandId")
    served.guest.may_boot.clear()
    try:
        served.guest.power("restart")
        with pytest.raises((http.client.HTTPException, OSError)):
            client.receive(shell, command, timeout="PT15S")
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", served.port), timeout=5)
    finally:
        served.guest.may_boot.set()
    assert served.up.wait(10)
    assert (served.guest.boots, served.shells, served.power) == (2, {}, ["restart"])
    assert Client(served.port).receive(shell, command).code == faults.UNKNOWN
    assert Client(served.port).run("echo again") == (b"again\n", 0)


@pytest.mark.parametrize("act", ["shutdown", "restart"])
def test_a_machine_that_does_not_come_back(served, client, act):
    served.trouble.comes_back = False
    served.trouble.down_seconds = 0.0
    client.create()
    served.guest.power(act)
    assert served.down.wait(10)
    assert not served.up.wait(0.3)
    assert served.guest.boots == 1
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", served.port), timeout=5)


def test_a_client_that_is_told_the_end_of_the_command_that_restarts(served, client, monkeypatch):
    monkeypatch.setattr(serving, "SETTLE_SECONDS", 20.0)
    served.guest.start = lambda *_: served.guest.power("restart") or 3
    shell = client.create().shell
    answer = client.receive(shell, client.command(shell, "shutdown /r").text("CommandId"))
    assert (stdout(answer), answer.text("ExitCode")) == (b"", "3")
    wait(lambda: served.guest.boots == 2)
    assert served.up.wait(10)
