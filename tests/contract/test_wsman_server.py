"""The WS-Management server of the Windows guest by itself: what it demands, what it refuses and how, its quotas,
logins, listeners and troubles. Restarts are in test_wsman_restarts.py; that it is what real clients expect is in
test_wsman_clients.py."""

from __future__ import annotations

import dataclasses
import http.client
import socket
import struct
import time

import pytest

from fixtures.guests.windows.server import running
from fixtures.guests.windows.wsman import OPEN, Listener, Settings, faults, serve
from tests.contract.test_winrm_communicator import certificate, timedelta
from tests.contract.winrm_bed import PASSWORD, USER, Machine, pem_files, wait
from tests.contract.wsman_client import TRANSFER, Client, basic, stdout

pytestmark = pytest.mark.usefixtures("closed_clients")

ALL_HEADERS = ("To", "ReplyTo", "Action", "MessageID", "ResourceURI")
FIN_WAIT2 = 5
"""The state of a connection (TCP_INFO) whose end the other side's kernel has."""
IDENTIFY = (
    b'<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"><s:Header/><s:Body>'
    b'<i:Identify xmlns:i="http://schemas.dmtf.org/wbem/wsman/identity/1/wsmanidentity.xsd"/></s:Body></s:Envelope>'
)


@pytest.fixture
def served(tmp_path):
    with running(Machine(tmp_path)) as served:
        yield served


def test_a_command_from_start_to_end(served, client):
    assert client.run("printf 'out'; printf bad >&2; exit 7") == (b"out", 7)
    assert served.shells == {}
    assert set(served.requests) == {"Create", "Command", "Receive", "Delete"}


def test_answers_are_about_the_request(client):
    answer = client.create("<rsp:WorkingDirectory>/</rsp:WorkingDirectory>")
    assert answer.text("RelatesTo") == client.message_id
    assert answer.text("Action") == f"{TRANSFER}/CreateResponse"
    assert answer.headers["Content-Type"] == "application/soap+xml;charset=UTF-8"
    assert (answer.text("Owner"), answer.text("WorkingDirectory"), answer.text("IdleTimeOut")) == (
        USER, "/", "PT7200.000S",
    )  # fmt: skip


def test_identify_needs_no_login(served):
    stranger = Client(served.port, authorization="")
    answer = stranger.post(IDENTIFY, WSMANIDENTIFY="unauthenticated")
    assert (answer.status, answer.text("ProductVersion")) == (200, "OS: 0.0.0 SP: 0.0 Stack: 3.0")
    assert stranger.post(IDENTIFY).status == 401
    assert stranger.post(b"<x/>", WSMANIDENTIFY="unauthenticated").status == 401
    assert Client(served.port).post(IDENTIFY).text("ProductVersion").startswith("OS: 10.0.")


@pytest.mark.parametrize("missing", ALL_HEADERS)
def test_every_header_is_needed(client, missing):
    answer = client.send(f"{TRANSFER}/Create", without=missing)
    assert (answer.status, answer.code) == (500, faults.HEADER_REQUIRED)
    assert "a:MessageInformationHeaderRequired" in answer.body.decode()


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"more": '<x:Y xmlns:x="urn:x" s:mustUnderstand="true"/>'}, faults.MUST_UNDERSTAND),
        ({"resource": "urn:nothing"}, faults.INVALID_RESOURCE),
        ({"envelope": 100}, faults.MIN_ENVELOPE),
        ({"timeout": "soon"}, faults.INVALID_TIMEOUT),
        ({"body": "<rsp:CommandLine/>"}, faults.SCHEMA),
        ({"body": "<rsp:Shell><rsp:InputStreams>pr</rsp:InputStreams></rsp:Shell>"}, faults.INVALID_PARAMETER),
        ({"action": f"{TRANSFER}/Put"}, faults.ACTION_NOT_SUPPORTED),
        ({"action": f"{TRANSFER}/Delete"}, faults.NO_SELECTORS),
        ({"action": f"{TRANSFER}/Delete", "shell": "none"}, faults.UNKNOWN),
    ],
)
def test_a_wrong_request_gets_the_fault_of_windows(client, given, code):
    answer = client.send(**{"action": f"{TRANSFER}/Create", **given})
    assert (answer.status, answer.code) == (500, code)


def test_what_is_no_message(served, client):
    assert client.post(b"nothing").code == faults.INVALID_XML
    old = b'<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body/></s:Envelope>'
    assert client.post(old).code == faults.SOAP_VERSION
    assert client.post(b"x" * 600 * 1024).code == faults.ENCODING_LIMIT
    assert client.post(b"x", kind="text/xml").status == 415
    assert client.post(b"x", path="/other").status == 404
    assert client.post(b"").status == 200
    client.connection.request("GET", "/wsman")
    assert client.connection.getresponse().status == 405


def test_commands_that_are_not_there(client):
    shell = client.create().shell
    for answer in (
        client.receive(shell, "x"), client.input(shell, "x", b"", end=True), client.signal(shell, "x", "terminate"),
    ):  # fmt: skip
        assert answer.code == faults.UNKNOWN
        assert "command identifier that does not exist" in answer.body.decode()
    command = client.command(shell, "true").text("CommandId")
    while client.receive(shell, command).text("ExitCode") is None:
        pass
    assert client.receive(shell, command).code == faults.UNKNOWN
    assert client.input(shell, command, b"x", end=True).code == faults.UNKNOWN
    assert client.signal(shell, command, "kill").code == faults.INVALID_PARAMETER
    assert client.signal(shell, command, "ctrl_c").status == 200


def test_without_cmd_a_program_is_named_by_its_path(client):
    shell = client.create().shell
    skip = '<w:OptionSet><w:Option Name="WINRS_SKIP_CMD_SHELL">True</w:Option></w:OptionSet>'
    assert client.command(shell, "true", more=skip).code == faults.FILE_NOT_FOUND
    assert client.command(shell, "/bin/true", more=skip).status == 200


def test_a_shell_is_its_owners(served, client):
    shell = client.create().shell
    other = Client(served.port, authorization=basic("administrator", "another"))
    assert other.delete(shell).code == faults.ACCESS_DENIED
    assert client.delete(shell).status == 200


def test_shells_are_counted_by_user(served, client):
    served.settings = dataclasses.replace(OPEN, max_shells_per_user=2)
    shells = [client.create().shell for _ in range(2)]
    answer = client.create()
    assert answer.code == faults.TOO_MANY_SHELLS
    assert "maximum number of 2 concurrent shells" in answer.body.decode()
    assert Client(served.port, authorization=basic("Administrator", "another")).create().status == 200
    client.delete(shells[0])
    assert client.create().status == 200


def test_commands_are_counted_until_their_shell_is_closed(served, client):
    served.settings = dataclasses.replace(OPEN, max_operations_per_user=3)
    shell = client.create().shell
    for _ in range(3):
        command = client.command(shell, "true").text("CommandId")
        client.signal(shell, command, "terminate")
    refused = client.command(shell, "true")
    assert refused.code == faults.TOO_MANY_OPERATIONS
    assert "MSFT_WmiError" in refused.body.decode()
    client.delete(shell)
    assert client.command(client.create().shell, "true").status == 200


def test_processes_are_counted_in_a_shell(served, client):
    served.settings = dataclasses.replace(OPEN, max_processes_per_shell=1)
    shell = client.create().shell
    command = client.command(shell, "sleep 60").text("CommandId")
    assert client.command(shell, "true").code == faults.TOO_MANY_COMMANDS
    client.signal(shell, command, "terminate")
    assert client.command(shell, "true").status == 200


def test_no_remote_shells(served, client):
    served.settings = dataclasses.replace(OPEN, allow_remote_shells=False)
    assert client.create().code == faults.NO_REMOTE_SHELLS


def test_an_idle_shell_is_closed_but_not_one_that_is_waited_for(served, client):
    shell = client.create("<rsp:IdleTimeOut>PT60S</rsp:IdleTimeOut>").shell
    [opened] = served.shells.values()
    assert opened.idle_seconds == 60
    start = served.guest.start

    def run(*given):
        wait(lambda: opened.busy)  # until then it may be idle for as long as this machine is slow
        opened.idle_seconds = 0.3
        return start(*given)

    served.guest.start = run
    command = client.command(shell, "sleep 0.8; echo done").text("CommandId")
    assert stdout(client.receive(shell, command)) == b"done\n"
    wait(lambda: served.shells == {})
    assert client.command(shell, "true").code == faults.UNKNOWN


def test_answers_keep_to_the_envelope_and_a_command_waits_for_its_reader(served, client):
    shell = client.create().shell
    command = client.command(shell, "head -c 3000000 /dev/zero | tr '\\0' x").text("CommandId")
    heard = b""
    while True:
        answer = client.receive(shell, command, envelope=200_000)
        assert len(answer.body) <= 200_000
        heard += stdout(answer)
        if answer.text("ExitCode") is not None:
            break
        [running] = served.shells[shell].commands.values()
        assert running._waiting <= 1 << 21
    assert heard == b"x" * 3_000_000


def test_a_receive_without_news_times_out(client):
    shell = client.create().shell
    command = client.command(shell, "cat").text("CommandId")
    answer = client.receive(shell, command, timeout="PT0.2S")
    assert (answer.status, answer.code) == (500, faults.NOTHING_YET)
    assert "OperationTimeout" in answer.body.decode()
    assert client.input(shell, command, b"x", end=False).status == 200
    answer = client.receive(shell, command)
    assert (stdout(answer), answer.text("ExitCode")) == (b"x", None)
    client.input(shell, command, b"", end=True)
    assert client.receive(shell, command).text("ExitCode") == "0"


def test_output_is_kept_for_a_client_that_went_away(served, client, tmp_path):
    shell = client.create().shell
    command = client.command(shell, "until [ -e go ]; do sleep 0.02; done; echo kept").text("CommandId")
    hasty = Client(served.port)
    hasty.connection.connect()
    connection = hasty.connection.sock
    connection.settimeout(0.2)
    with pytest.raises(TimeoutError):
        hasty.receive(shell, command, timeout="PT60S")
    wait(lambda: served.shells[shell].busy)
    connection.shutdown(socket.SHUT_RDWR)
    wait(lambda: connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == FIN_WAIT2)  # the server has it
    hasty.close()
    (tmp_path / "go").touch()
    [running] = served.shells[shell].commands.values()
    wait(lambda: running.code is not None)
    assert stdout(client.receive(shell, command)) == b"kept\n"


def test_what_is_offered_is_what_gets_in(served):
    served.settings = Settings()
    client = Client(served.port)
    refused = client.create()
    assert (refused.status, refused.headers.get_all("WWW-Authenticate")) == (401, ["Negotiate"])
    served.settings = Settings(basic=True)
    assert Client(served.port).create().status == 500  # a message in the clear
    served.settings = dataclasses.replace(OPEN, negotiate=False)
    assert Client(served.port, authorization="Negotiate TlRMTVNTUAABAAAA").create().headers.get_all(
        "WWW-Authenticate"
    ) == ['Basic realm="WSMAN"']
    for wrong in ("Basic ?", basic("nobody"), basic(password="wrong"), "Bearer x"):
        assert Client(served.port, authorization=wrong).create().status == 401


def test_a_password_may_change_at_any_time(served):
    served.guest.password = "another one"
    assert Client(served.port).create().status == 401
    assert Client(served.port, authorization=basic(password="another one")).create().status == 200


@pytest.fixture(scope="module")
def pems():
    return [certificate(timedelta(days=-1), timedelta(days=1)) for _ in range(2)]


def test_https_takes_messages_in_the_clear(tmp_path, pems):
    with running(Machine(tmp_path), tls=pem_files(tmp_path, *pems[0]), settings=Settings(basic=True)) as served:
        assert Client(served.https_port, tls=True).run("echo x") == (b"x\n", 0)
        assert Client(served.port).create().status == 500


def test_listeners_come_and_go_and_the_others_keep_their_connections(tmp_path, pems):
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    pair = [pem_files(folder, *pem) for folder, pem in zip(folders, pems, strict=True)]
    plain = Listener("HTTP", 0)
    server = serve(Machine(tmp_path), [plain])
    client = Client(server.ports["HTTP"])
    shell = client.create().shell
    connection = client.connection.sock
    secure = [Listener("HTTPS", 0, certificate=certificate, key=key) for certificate, key in pair]
    shown = []
    for listener in secure:
        server.configure([plain, listener])
        other = Client(server.ports["HTTPS"], tls=True)
        other.connection.connect()
        shown.append(other.connection.sock.getpeercert(binary_form=True))
    assert len(set(shown)) == 2
    assert client.delete(shell).status == 200
    assert client.connection.sock is connection
    server.configure([secure[1]], Settings(basic=True))
    assert list(server.ports) == ["HTTPS"]
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", client.connection.port), timeout=5)
    with pytest.raises(ValueError, match="certificate"):
        server.configure([Listener("HTTPS", 0)])
    server.close()
    assert server.ports == {}


def test_the_troubles(served):
    trouble = served.trouble
    trouble.slow = {"Create": 0.3}
    began = time.monotonic()
    Client(served.port).create()
    assert time.monotonic() - began >= 0.3
    trouble.slow = {}
    trouble.drop = {"Create": 1}
    with pytest.raises(http.client.RemoteDisconnected):
        Client(served.port).create()
    assert Client(served.port).create().status == 200
    trouble.reset = {"Create": 1}
    with pytest.raises(ConnectionResetError):
        Client(served.port).create()
    trouble.short = {"Create": 1}
    with pytest.raises(http.client.IncompleteRead):
        Client(served.port).create()
    trouble.faults = {"Create": [faults.BUSY, 1234]}
    assert [Client(served.port).create().code for _ in range(3)] == [faults.BUSY, 1234, None]
    trouble.mute = True
    silent = socket.create_connection(("127.0.0.1", served.port), timeout=5)
    silent.settimeout(0.3)
    silent.sendall(b"POST /wsman HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
    with pytest.raises(TimeoutError):
        silent.recv(1)
    silent.close()


def test_negotiate_belongs_to_a_connection_and_encryption_to_the_login(served):
    import base64

    import spnego
    from spnego.iov import BufferType

    served.settings = Settings()
    client = Client(served.port, authorization="")
    context = spnego.client(USER, PASSWORD, protocol="ntlm", options=spnego.NegotiateOptions.use_ntlm)
    token = context.step()
    while True:
        client.authorization = "Negotiate " + base64.b64encode(token).decode()
        answer = client.post(b"")
        if answer.status == 200:
            break
        token = context.step(base64.b64decode(answer.headers["WWW-Authenticate"].partition(" ")[2]))
    client.authorization = ""
    assert client.post(b"").status == 200
    assert Client(served.port, authorization="").post(b"").status == 401
    assert client.create().status == 500  # in the clear

    def sealed(message: bytes, length: int) -> bytes:
        done = context.wrap_iov([BufferType.header, message])
        head, data = done.buffers[0].data, done.buffers[1].data
        return (
            b"--Encrypted Boundary\r\n\tContent-Type: application/HTTP-SPNEGO-session-encrypted\r\n"
            b"\tOriginalContent: type=application/soap+xml;charset=UTF-8;Length=" + str(length).encode() + b"\r\n"
            b"--Encrypted Boundary\r\n\tContent-Type: application/octet-stream\r\n"
            + struct.pack("<i", len(head)) + head + data + b"--Encrypted Boundary--\r\n"
        )  # fmt: skip

    kind = 'multipart/encrypted;protocol="application/HTTP-SPNEGO-session-encrypted";boundary="Encrypted Boundary"'
    good = client.post(sealed(IDENTIFY, len(IDENTIFY)), kind=kind)
    assert good.status == 200
    assert good.body.startswith(b"--Encrypted Boundary\r\n")
    assert b"Identify" not in good.body
    assert client.post(sealed(IDENTIFY, 1), kind=kind).status == 400
    assert served.requests == ["Identify"]
