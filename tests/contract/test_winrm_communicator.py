"""What only WinRM has: shells and their quotas, NTLM, certificates, services that fall silent or break off."""

from __future__ import annotations

import dataclasses
import ipaddress
import socket
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fixtures.guests.windows.wsman import OPEN
from fixtures.guests.windows.wsman.faults import ACCESS_DENIED, BUSY, NOTHING_YET
from fixtures.guests.windows.wsman.faults import TOO_MANY_OPERATIONS as QUOTA
from hypervisor.deadline import CancelToken, Deadline
from hypervisor.errors import Cancelled, DeadlineExceeded
from provisioners.communicators import winrm, winrm_connect, winrm_wire
from provisioners.communicators.base import (
    AuthenticationRefused,
    CommunicatorError,
    ConnectionLost,
    GuestGone,
    HostKeyMismatch,
)
from provisioners.communicators.winrm_connect import connect
from provisioners.communicators.winrm_tls import PinnedCertificate
from tests.contract.winrm_bed import PASSWORD, USER, Impatient, WinRMBed, pem_files, wait

MEGABYTE = bytes(range(256)) * 4096


@pytest.fixture
def deadline():
    return Deadline.after(30, "the test")


@pytest.fixture
def make(tmp_path):
    beds = []

    def made(**server) -> WinRMBed:
        beds.append(WinRMBed(tmp_path, **server))
        return beds[-1]

    yield made
    for bed in beds:
        bed.cut()


@pytest.fixture
def bed(make):
    return make()


def certificate(begins: timedelta, ends: timedelta, *, address: str = "") -> tuple[bytes, bytes]:
    """(certificate, key) in PEM, self-signed, valid from and until so long after now, for an address."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "pkrvm")])
    now = datetime.now(UTC)
    names = [x509.IPAddress(ipaddress.ip_address(address))] if address else [x509.DNSName("pkrvm")]
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins)
        .not_valid_after(now + ends)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return signed.public_bytes(serialization.Encoding.PEM), secret


@pytest.fixture(scope="module")
def pem():
    return certificate(timedelta(days=-1000), timedelta(days=1000))


def established(port: int) -> bool:
    """Whether a client of the port has a connection that, as the kernel knows, nobody has closed yet."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(remote.endswith(f":{port:04X}") and state == "01" for _, _, remote, state, *_ in rows)


def said(guest, command, deadline, **given) -> bytes:
    heard = bytearray()
    assert guest.run(command, deadline=deadline, output=lambda _, data: heard.extend(data), **given).exit_code == 0
    return bytes(heard)


def test_one_shell_serves_all_commands_until_it_is_released(bed, deadline):
    guest = bed.connect()
    for _ in range(3):
        assert said(guest, "echo x", deadline) == b"x\n"
    assert bed.server.requests.count("Create") == 1
    guest.release()
    assert bed.server.shells == {}
    said(guest, "echo x", deadline)
    guest.close()
    assert bed.server.shells == {}
    assert bed.server.requests.count("Create") == 2


@pytest.mark.parametrize("fault", [QUOTA, BUSY, winrm.UNKNOWN_SHELL, winrm.TOO_MANY_SHELLS])
def test_a_refused_start_gets_another_shell(bed, deadline, monkeypatch, fault):
    monkeypatch.setattr(winrm, "POLL_SECONDS", 0.01)
    guest = bed.connect()
    bed.server.trouble.faults = {"Command": [fault, fault]}
    assert said(guest, "echo x", deadline) == b"x\n"
    guest.close()
    assert len(bed.server.shells) == 0 if fault == QUOTA else True


def test_what_refused_a_start_is_told_also_when_the_time_ends_in_the_middle_of_another(bed, monkeypatch):
    monkeypatch.setattr(winrm, "POLL_SECONDS", 0.01)
    guest = bed.connect()
    bed.server.trouble.faults = {"Command": [QUOTA]}
    bed.server.trouble.slow = {"Command": 0.5}  # longer than between two looks at the deadline
    before = bed.server.requests.count("Command")

    class Spent(Deadline):
        """Used up as soon as the command is started for the second time."""

        def remaining(self) -> float:
            return 0.0 if bed.server.requests.count("Command") > before + 1 else super().remaining()

    with pytest.raises(winrm.NoFreeShell, match=r"the budget is used up .*; the last answer: .*concurrent operations"):
        guest.run("true", deadline=Spent.after(20, "the budget"))


def test_a_quota_that_never_frees_is_an_error(bed, deadline, monkeypatch):
    monkeypatch.setattr(winrm, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(winrm, "QUOTA_SECONDS", 0.1)
    guest = bed.connect()
    guest.release()
    bed.server.trouble.faults = {"Create": [winrm.TOO_MANY_SHELLS] * 1000}
    with pytest.raises(DeadlineExceeded, match="for a free shell"):
        guest.run("echo x", deadline=deadline)


def test_another_fault_is_told_with_its_number(bed, deadline):
    guest = bed.connect()
    bed.server.trouble.faults = {"Command": [ACCESS_DENIED]}
    with pytest.raises(CommunicatorError, match=r"refused: Access is denied. \(0x00000005\)"):
        guest.run("echo x", deadline=deadline)


def test_a_shell_that_is_gone_means_a_reboot(bed, deadline):
    guest = bed.connect()
    bed.server.trouble.faults = {"Receive": [winrm.UNKNOWN_SHELL]}
    result = guest.run("sleep 5", deadline=deadline)
    assert (result.exit_code, result.connection_lost) == (None, True)


def test_a_busy_service_gets_the_input_again(bed, deadline, monkeypatch):
    monkeypatch.setattr(winrm, "POLL_SECONDS", 0.01)
    guest = bed.connect()
    bed.server.trouble.faults = {"Send": [BUSY, BUSY], "Receive": [NOTHING_YET, NOTHING_YET]}
    assert said(guest, "cat", deadline, stdin=b"given") == b"given"


def test_a_command_that_does_not_read_may_end(bed, deadline):
    guest = bed.connect()
    assert said(guest, "exec 0<&-; echo ended", deadline, stdin=MEGABYTE) == b"ended\n"


def test_a_cancelled_command_is_signalled_and_its_shell_is_gone_within_seconds(bed):
    guest = bed.connect()
    token = CancelToken()
    began = time.monotonic()
    with pytest.raises(Cancelled):
        guest.run("echo started; sleep 60", deadline=Deadline.after(60, "x", token), output=lambda *_: token.cancel())
    assert time.monotonic() - began < 6
    assert bed.server.signals[-2:] == ["ctrl_c", "terminate"]
    assert bed.server.shells == {}


def test_cancelling_under_a_silent_service_takes_seconds(bed, monkeypatch):
    assert winrm.GOODBYE_SECONDS <= 5
    monkeypatch.setattr(winrm, "GOODBYE_SECONDS", 1.0)  # leaves the rest of the time below to a slow machine
    guest = bed.connect()
    token = CancelToken()
    bed.server.trouble.silent = {"Receive", "Signal", "Delete"}
    threading.Timer(0.2, token.cancel).start()
    began = time.monotonic()
    with pytest.raises(Cancelled):
        guest.run("sleep 60", deadline=Deadline.after(60, "x", token))
    assert time.monotonic() - began < 7


def test_a_broken_answer_is_an_error(bed, deadline):
    guest = bed.connect()
    bed.server.trouble.half = {"Receive"}
    with pytest.raises(CommunicatorError, match="makes no sense"):
        guest.run("echo x", deadline=deadline)
    assert bed.server.shells == {}


def test_a_service_that_falls_silent_is_lost(bed, deadline, monkeypatch):
    monkeypatch.setattr(winrm_wire, "READ_SECONDS", 2)
    monkeypatch.setattr(winrm_wire, "OPERATION_SECONDS", 1)
    guest = bed.connect()
    guest._wire = winrm_wire.Wire(guest._endpoint, operation=1, read=2)
    bed.server.trouble.silent = {"Receive"}
    assert guest.run("echo x", deadline=deadline).connection_lost
    assert not guest.alive()


def test_uploads_take_few_messages_as_large_as_the_service_allows(bed, deadline):
    guest = bed.connect()

    def messages(envelope: int, content: bytes) -> int:
        bed.server.settings = dataclasses.replace(OPEN, max_envelope_kb=envelope or 150)
        bed.server.trouble.faults = {} if envelope else {"Get": [ACCESS_DENIED]}
        fresh = bed.connect()
        before = len(bed.server.requests)
        fresh.upload(content, f"{bed.folder}/large", deadline=deadline)
        assert bed.read(f"{bed.folder}/large") == content
        return bed.server.requests[before:].count("Send")

    assert messages(150, MEGABYTE) == 13
    assert messages(500, MEGABYTE) == 4
    assert messages(0, MEGABYTE) == 13
    assert messages(500, b"") == messages(500, b"small") == 1
    guest.close()


def test_uploads_as_packers_go_by_echo(bed, deadline):
    guest = bed.connect(upload="packer")
    bed.machine.start = echo(bed)
    before = len(bed.server.requests)
    guest.upload(MEGABYTE, f"{bed.folder}/large", deadline=deadline)
    assert bed.read(f"{bed.folder}/large") == MEGABYTE
    assert bed.server.requests[before:].count("Command") > 150
    assert bed.server.requests[before:].count("Create") > 10


def echo(bed):
    """cmd's echo with Base64, and the decoding of what it collected."""
    import base64
    import json
    import re

    collected = bytearray()
    start = bed.machine.start

    def run(line, output, stdin, interrupted):
        if found := re.fullmatch(r'echo ([A-Za-z0-9+/=]+) >> "%TEMP%\\winrmcp-[0-9a-f-]{36}\.tmp"', line):
            assert len(line) < 8191
            collected.extend(base64.b64decode(found[1]))
            return 0
        if line == "echo WinRM connected.":
            return start(line, output, stdin, interrupted)
        settings = json.loads(b"".join(iter(stdin, b"")))
        assert settings["from"].startswith("%TEMP%")
        bed.write(settings["path"], bytes(collected))
        output("stdout", b'{"result": "ok"}\r\n')
        return 0

    return run


def test_damage_on_the_way_is_found_in_both_directions(bed, deadline, tmp_path):
    guest = bed.connect()
    bed.write(f"{bed.folder}/there", b"content")
    bed.machine.damage = True
    with pytest.raises(CommunicatorError, match="did not arrive as it was sent"):
        guest.upload(b"content", f"{bed.folder}/file", deadline=deadline)
    with pytest.raises(CommunicatorError, match="did not arrive as it was sent"):
        guest.download(f"{bed.folder}/there", tmp_path / "here", deadline=deadline)
    assert not list(tmp_path.glob("here*"))


def test_a_guest_without_powershell_is_told(bed, deadline):
    guest = bed.connect()
    bed.machine.start = lambda line, output, stdin, interrupted: output("stderr", b"not recognized\r\n") or 9009
    with pytest.raises(CommunicatorError, match="ended with 9009 and no verdict: not recognized"):
        guest.upload(b"x", f"{bed.folder}/file", deadline=deadline)


def test_a_wrong_password_is_refused(make):
    for auth in ("basic", "ntlm"):
        with pytest.raises(AuthenticationRefused, match="refused the user packer or its password"):
            make(auth=auth).connect(password="wrong")


def test_an_account_that_is_made_late_gets_in(bed, monkeypatch):
    monkeypatch.setattr(winrm_connect, "PAUSE_SECONDS", 0.05)
    bed.machine.password = "not yet"
    threading.Timer(0.3, lambda: setattr(bed.machine, "password", PASSWORD)).start()
    bed.connect(patience=10).close()


def test_ntlm_encrypts_every_message(make, deadline):
    bed = make(auth="ntlm")
    guest = bed.connect()
    assert said(guest, "cat", deadline, stdin=MEGABYTE) == MEGABYTE
    guest.close()
    assert bed.server.shells == {}


def test_ntlm_logs_in_again_where_the_service_closed_the_connection(make, deadline):
    bed = make(auth="ntlm")
    guest = bed.connect()
    bed.server.trouble.hang_up = {"Signal"}
    for _ in range(3):
        assert said(guest, "echo x", deadline) == b"x\n"
        wait(lambda: not established(bed.port))  # the client finds the connection closed, not closing


def test_the_pinned_certificate_is_the_only_one(make, deadline, pem, tmp_path):
    bed = make(tls=pem_files(tmp_path, *pem))
    guest = bed.connect(tls=PinnedCertificate(pem[0].decode()))
    guest.upload(MEGABYTE, f"{bed.folder}/large", deadline=deadline)
    assert said(guest, "echo x", deadline) == b"x\n"
    other = certificate(timedelta(days=-1), timedelta(days=1))[0].decode()
    with pytest.raises(HostKeyMismatch, match="another certificate"):
        bed.connect(tls=PinnedCertificate(other))
    bed.connect(tls="any").close()


@pytest.mark.parametrize(("begins", "ends", "message"), [(-10, -1, "expired on"), (1, 10, "is not valid before")])
def test_a_certificate_out_of_its_time_is_told_at_once(bed, begins, ends, message):
    pem = certificate(timedelta(days=begins), timedelta(days=ends))[0].decode()
    with pytest.raises(CommunicatorError, match=message):
        bed.connect(tls=PinnedCertificate(pem))


def test_a_port_that_is_closed(bed):
    bed.cut()
    with pytest.raises(DeadlineExceeded, match=r"is used up while waiting for .*Connection refused"):
        bed.connect(deadline=Impatient.after(20, "the budget"))


def test_a_listener_that_says_nothing():
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(DeadlineExceeded, match="says nothing"):
        connect(
            "127.0.0.1", silent.getsockname()[1], user=USER, password=PASSWORD, tls=None, auth="basic",
            deadline=Deadline.after(0.5, "the budget"),
        )  # fmt: skip


def test_a_machine_that_is_off_is_not_waited_for(bed):
    bed.cut()
    with pytest.raises(GuestGone, match="the build VM has powered off"):
        bed.connect(abort=lambda: "the build VM has powered off")


def test_http_where_https_is_expected(bed, pem):
    with pytest.raises(DeadlineExceeded, match=r"could not agree on TLS|TLS handshake"):
        bed.connect(tls=PinnedCertificate(pem[0].decode()), deadline=Impatient.after(20, "the budget"))


def test_a_second_connection_asks_while_a_command_runs(bed, deadline):
    guest = bed.connect()
    other = guest.sibling()
    answers = []
    before = len(bed.server.requests)

    def ask() -> bool:
        if "Receive" not in bed.server.requests[before:]:  # it is asked during slow requests of other kinds, too
            return False
        answers.append(said(other, "echo there", deadline))
        return True

    assert guest.run("sleep 30", deadline=deadline, interrupted=ask).connection_lost
    assert answers == [b"there\n"]
    other.close()


def test_nothing_starts_after_close(bed, deadline):
    guest = bed.connect()
    guest.close()
    with pytest.raises(ConnectionLost):
        guest.run("echo x", deadline=deadline)


def test_secrets_are_not_shown(bed):
    assert PASSWORD not in repr(bed.connect()._endpoint)
