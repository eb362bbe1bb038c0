"""What only the SSH communicator has: a network, host keys, a server that comes up late, signals."""

from __future__ import annotations

import socket
import threading
import tracemalloc
from contextlib import suppress

import pytest

from hypervisor.deadline import CancelToken, Deadline
from hypervisor.errors import Cancelled, DeadlineExceeded
from provisioners.communicators.base import AuthenticationRefused, CommunicatorError, HostKeyMismatch
from provisioners.communicators.ssh_connect import connect, wait_for_banner
from provisioners.identity import BuildIdentity


def deadline(seconds: float = 30) -> Deadline:
    return Deadline.after(seconds, "the test")


def test_another_host_key_is_refused_before_any_login(ssh_server, identity):
    stranger = BuildIdentity.create()
    with pytest.raises(HostKeyMismatch, match="not the one it was given"):
        connect(
            "127.0.0.1",
            ssh_server.port,
            "packer",
            identity.login_private,
            stranger.host_public,
            deadline=deadline(),
            patience=0,
        )
    assert not any(transport.is_authenticated() for transport in ssh_server.transports)


def test_a_key_the_guest_does_not_know_is_refused(ssh_server, identity):
    stranger = BuildIdentity.create()
    with pytest.raises(AuthenticationRefused, match="refused the build's key for the user packer"):
        connect(
            "127.0.0.1",
            ssh_server.port,
            "packer",
            stranger.login_private,
            identity.host_public,
            deadline=deadline(),
            patience=0,
        )


def test_a_guest_that_is_still_starting_may_refuse_at_first(ssh_bed):
    ssh_bed.server.refused_logins = 1
    communicator = ssh_bed.connect()
    assert communicator.alive()
    communicator.close()


def test_a_silent_port_is_not_a_guest_and_waiting_ends_with_the_deadline():
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(DeadlineExceeded, match="SSH server"):
        wait_for_banner("127.0.0.1", silent.getsockname()[1], deadline(0.5))


def test_waiting_for_the_banner_can_be_cancelled_and_aborted():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        token = CancelToken()
        threading.Timer(0.2, token.cancel).start()
        with pytest.raises(Cancelled):
            wait_for_banner("127.0.0.1", port, Deadline.after(60, "the test", token))
        with pytest.raises(CommunicatorError, match="the machine is off"):
            wait_for_banner("127.0.0.1", port, deadline(), lambda: "the machine is off")


def test_a_server_that_comes_up_late_is_found_on_a_fresh_connection():
    """The first connection is accepted and stays silent for ever, as a user-mode network does it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held = []

        def serve():
            held.append(server.accept()[0])
            second = server.accept()[0]
            held.append(second)
            second.sendall(b"Welcome\r\nSSH-2.0-late\r\n")

        threading.Thread(target=serve, daemon=True).start()
        sock = wait_for_banner("127.0.0.1", server.getsockname()[1], deadline())
        assert sock.recv(100) == b"Welcome\r\nSSH-2.0-late\r\n"
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
        for each in (sock, *held):
            each.close()


def test_a_refusing_port_is_asked_again():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))  # nobody else gets the port, and it refuses until we listen

        def listen():
            server.listen()
            with server.accept()[0] as client:
                client.sendall(b"SSH-2.0-x\r\n")
                with suppress(ConnectionResetError):  # it closes with our banner unread
                    client.recv(1)

        listener = threading.Timer(0.3, listen)
        listener.start()
        wait_for_banner("127.0.0.1", server.getsockname()[1], deadline()).close()
        listener.join()


def test_a_killed_shell_without_a_word_is_told_from_a_reboot_by_the_transport(ssh_bed, commands):
    ssh_bed.server.tells_signals = False
    with_settle = ssh_bed.connect(settle=0.3)
    result = with_settle.run(commands["kill itself"], deadline=deadline())
    assert (result.exit_code, result.signal, result.connection_lost) == (None, "", False)
    with_settle.close()


def test_a_transport_that_follows_its_closed_channel_is_a_lost_connection(ssh_bed, commands):
    ssh_bed.server.tells_signals = False
    communicator = ssh_bed.connect(settle=20)
    cut = threading.Timer(0.7, ssh_bed.server.cut)
    command = f"echo started; {commands['kill itself']}"
    result = communicator.run(command, deadline=deadline(), output=lambda *_: cut.start())
    assert (result.exit_code, result.connection_lost) == (None, True)


def test_the_deadline_ends_the_whole_process_group_in_the_guest(ssh_bed, wait_for):
    communicator = ssh_bed.connect()
    limit = Deadline.after(60, "the budget")

    def over(*_):
        object.__setattr__(limit, "at", 0.0)  # not before the command runs

    with pytest.raises(DeadlineExceeded):
        communicator.run("echo ready; sleep 100 & sleep 101", deadline=limit, output=over)
    wait_for(lambda: all(process.poll() is not None for process in ssh_bed.server.processes))
    assert ssh_bed.server.signals[0] == "TERM"
    assert communicator.alive()
    communicator.close()


def test_a_command_that_ignores_term_is_killed(ssh_bed, wait_for):
    communicator = ssh_bed.connect()
    ready = threading.Event()
    token = CancelToken()
    threading.Thread(target=lambda: (ready.wait(), token.cancel()), daemon=True).start()
    with pytest.raises(Cancelled):
        communicator.run(
            "trap '' TERM; echo ready; sleep 100; sleep 100",
            deadline=Deadline.after(60, "the budget", token),
            output=lambda *_: ready.set(),
        )
    wait_for(lambda: ssh_bed.server.signals == ["TERM", "KILL"])
    wait_for(lambda: all(process.poll() is not None for process in ssh_bed.server.processes))
    communicator.close()


def test_a_command_that_ends_but_leaves_its_output_open_is_waited_for(ssh_bed):
    """As the service's Packer does: the session ends when the streams do."""
    said = bytearray()
    communicator = ssh_bed.connect()
    result = communicator.run(
        "(sleep 0.5; echo late) & echo early", deadline=deadline(), output=lambda _, data: said.extend(data)
    )
    assert (result.exit_code, bytes(said)) == (0, b"early\nlate\n")
    communicator.close()


def test_output_is_not_kept(ssh_bed):
    communicator = ssh_bed.connect()
    total = 0

    def count(stream, data):
        nonlocal total
        total += len(data)

    tracemalloc.start()
    communicator.run("head -c 20000000 /dev/zero", deadline=deadline(60), output=count)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    communicator.close()
    assert total == 20_000_000
    # Client and server side of the windows (2 MiB each way) live in this one process.
    assert peak < 12_000_000


def test_one_connection_serves_many_commands_and_transfers(ssh_bed):
    communicator = ssh_bed.connect()
    for number in range(10):
        communicator.upload(str(number).encode(), f"{ssh_bed.folder}/n", deadline=deadline())
        said = bytearray()
        communicator.run("cat n", deadline=deadline(), output=lambda _, data, said=said: said.extend(data))
        assert said.decode() == str(number)
    assert ssh_bed.server.logins == 1  # not the connections: one more may have waited for the banner
    communicator.close()


def test_a_guest_without_sftp_says_so(ssh_bed):
    communicator = ssh_bed.connect()
    for transport in ssh_bed.server.transports:
        transport.subsystem_table.clear()
    with pytest.raises(CommunicatorError, match="no file transfer"):
        communicator.upload(b"x", f"{ssh_bed.folder}/x", deadline=deadline())
    assert communicator.alive()
    communicator.close()
