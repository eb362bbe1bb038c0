"""The isolated network: SSH and the steps work, and the guest reaches nothing of the host."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.vm.conftest import TemplateWriter
from tests.vm.support import CACHED, Home, shell

pytestmark = pytest.mark.vm
SECRET = b"HTTP/1.0 200 OK\r\n\r\nonly for this host\n"


@contextmanager
def only_for_this_host() -> Iterator[int]:
    """A service on the host's loopback; its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(4096)
                    connection.sendall(SECRET)

        threading.Thread(target=answer, daemon=True).start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)


def asking(host: str, port: int) -> str:
    """A line that tells whether a service of the host answers; bash speaks TCP by itself."""
    speak = f"exec 3<>/dev/tcp/{host}/{port} && echo hello >&3 && cat <&3"
    return f"busybox timeout 20 bash -c '{speak}' && echo reached {host} || echo closed {host}"


def test_the_hosts_loopback_is_open_in_the_user_mode_network_and_closed_in_the_isolated_one(
    home: Home, write_template: TemplateWriter
) -> None:
    with only_for_this_host() as port:
        first = shell(asking("10.0.2.2", port), asking("169.254.169.254", 80), name="first")
        template = write_template("isolated", first, shell("echo second", name="second"))
        home.ok("build", template, "--network", "user", "--until", "first")
        assert "reached 10.0.2.2" in printed(home)
        assert deviations(home) >= {"network-user-mode"}

        home.ok("build", template, "--network", "isolated", "--until", "first", CACHED)
        assert "closed 10.0.2.2" in printed(home)
        assert "closed 169.254.169.254" in printed(home)
        assert "only for this host" not in printed(home)
        assert "network-isolated" in deviations(home)
        assert "network-user-mode" not in deviations(home)

    # The memory of a checkpoint goes on in a new isolated network, with another socket.
    template = write_template("isolated", first, shell("echo changed", name="second"))
    home.ok("build", template, "--network", "isolated", "--until", "second", CACHED)
    told = (home.runs()[-1] / "events.jsonl").read_text()
    assert "Going on from the checkpoint after first" in told
    assert "disk-only" not in told
    assert "changed" in printed(home)


def printed(home: Home) -> str:
    return (home.runs()[-1] / "customization.log").read_text()


def deviations(home: Home) -> set[str]:
    return {each["code"] for each in home.record()["deviations"]}
