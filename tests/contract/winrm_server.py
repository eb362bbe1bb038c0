"""A small WinRM service on 127.0.0.1 that runs real commands and can be made to fail: what the SSH server of this suite
is for SSH. It is strict about what a client must send, and knows nothing of Windows."""

from __future__ import annotations

import base64
import os
import queue
import re
import socket
import ssl
import struct
import tempfile
import threading
import time
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

USER, PASSWORD = "packer", "a password"
RSP = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell"
NAMESPACES = {
    "s": "http://www.w3.org/2003/05/soap-envelope",
    "a": "http://schemas.xmlsoap.org/ws/2004/08/addressing",
    "w": "http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd",
    "x": "http://schemas.xmlsoap.org/ws/2004/09/transfer",
    "rsp": RSP,
}
UNKNOWN, NOTHING_YET, BUSY, QUOTA = 2150858843, 2150858793, 170, 2150859174
ANSWER = 100_000
"""Bytes of output in one answer: in Base64 they fit an envelope of 150 KiB."""
BOUNDARY = b"--Encrypted Boundary"
SEALED = "application/HTTP-SPNEGO-session-encrypted"


class Stdin:
    """Bytes as Send delivers them; b"" at the end."""

    def __init__(self) -> None:
        self._pieces: queue.Queue[bytes] = queue.Queue()

    def give(self, data: bytes, *, last: bool) -> None:
        if data:
            self._pieces.put(data)
        if last:
            self._pieces.put(b"")

    def read(self) -> bytes:
        piece = self._pieces.get()
        if not piece:
            self._pieces.put(b"")
        return piece


class Command:
    """One command in a thread of its own."""

    def __init__(self, start: Callable[..., int], line: str) -> None:
        self.stdin = Stdin()
        self.interrupted = threading.Event()
        self.changed = threading.Condition()
        self.output: list[tuple[str, bytes]] = []
        self.code: int | None = None
        threading.Thread(target=self._run, args=(start, line), daemon=True).start()

    def _run(self, start: Callable[..., int], line: str) -> None:
        code = 0xDEAD
        try:
            code = start(line, self._print, self.stdin, self.interrupted)
        finally:
            with self.changed:
                self.code = code
                self.changed.notify_all()

    def _print(self, stream: str, data: bytes) -> None:
        with self.changed:
            self.output.append((stream, data))
            self.changed.notify_all()

    def receive(self, seconds: float) -> tuple[list[tuple[str, bytes]], int | None]:
        with self.changed:
            self.changed.wait_for(lambda: self.output or self.code is not None, seconds)
            output, left = [], ANSWER
            while self.output and left:
                stream, data = self.output.pop(0)
                output.append((stream, data[:left]))
                if len(data) > left:
                    self.output.insert(0, (stream, data[left:]))
                left -= min(left, len(data))
            return output, None if self.output else self.code


@dataclass
class Trouble:
    """What goes wrong: each entry is used up by one request of its kind (`Command`, `Receive`, `Send`, ...)."""

    faults: dict[str, list[int]] = field(default_factory=dict)
    half: set[str] = field(default_factory=set)
    """Kinds that are answered with a message that breaks off."""
    silent: set[str] = field(default_factory=set)
    """Kinds that are never answered."""
    hang_up: set[str] = field(default_factory=set)
    """Kinds after whose answer the connection is closed, as an idle service does."""


class WinRMServer(ThreadingHTTPServer):
    """`start(line, output, stdin, interrupted)` runs a command line. `auth` is `basic` or `ntlm`."""

    daemon_threads = True

    def __init__(
        self, start: Callable[..., int], *, auth: str = "basic", tls: ssl.SSLContext | None = None, port: int = 0
    ) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.port = self.server_address[1]
        self.start, self.auth = start, auth
        self.trouble = Trouble()
        self.shells: dict[str, dict[str, Command]] = {}
        self.requests: list[str] = []
        self.signals: list[str] = []
        self.stop = threading.Event()
        self.envelope = 500
        self.open: set[socket.socket] = set()
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def get_request(self) -> tuple[Any, Any]:
        connection, address = super().get_request()
        self.open.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        self.open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, *_: object) -> None:
        """A client that went away is no news."""

    def cut(self) -> None:
        """As a machine that loses its power: no goodbye."""
        if self.stop.is_set():
            return
        self.stop.set()
        self.shutdown()
        self.server_close()
        for connection in list(self.open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for shell in list(self.shells.values()):
            end(shell)


def end(shell: dict[str, Command]) -> None:
    for command in shell.values():
        command.interrupted.set()
        command.stdin.give(b"", last=True)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: WinRMServer
    context: Any = None
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if not self._authenticated():
            return
        if not body:
            self._send(200, b"")
            return
        if self.server.auth == "ntlm":
            assert "multipart/encrypted" in self.headers["Content-Type"], "an unencrypted message"
            body = self._unsealed(body)
        else:
            assert self.headers["Content-Type"] == "application/soap+xml;charset=UTF-8"
        self._answer(ET.fromstring(body))

    def _authenticated(self) -> bool:
        given = self.headers.get("Authorization", "")
        if self.server.auth == "basic":
            if given == "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode():
                return True
            self._send(401, b"", {"WWW-Authenticate": 'Basic realm="WSMAN"'})
            return False
        return self._ntlm(given)

    def _ntlm(self, given: str) -> bool:
        import spnego

        if self.context is not None and self.context.complete and not given:
            return True
        scheme, _, token = given.partition(" ")
        if not token:
            self._send(401, b"", {"WWW-Authenticate": "Negotiate"})
            return False
        if self.context is None or self.context.complete:
            self.context = spnego.server(protocol="ntlm")
        try:
            answer = self.context.step(base64.b64decode(token))
        except spnego.exceptions.SpnegoError:
            self.context = None
            self._send(401, b"", {"WWW-Authenticate": "Negotiate"})
            return False
        if self.context.complete:
            return True
        header = {"WWW-Authenticate": f"{scheme} {base64.b64encode(answer or b'').decode()}"}
        self._send(401, b"", header)
        return False

    def _unsealed(self, body: bytes) -> bytes:
        payload = body.split(BOUNDARY + b"\r\n")[2].removesuffix(BOUNDARY + b"--\r\n")
        sealed = payload.removeprefix(b"\tContent-Type: application/octet-stream\r\n")
        size = struct.unpack("<i", sealed[:4])[0]
        from spnego.iov import BufferType

        done = self.context.unwrap_iov([(BufferType.header, sealed[4 : 4 + size]), sealed[4 + size :]])
        return bytes(done.buffers[1].data)

    def _sealed(self, body: bytes) -> bytes:
        from spnego.iov import BufferType

        done = self.context.wrap_iov([BufferType.header, body])
        header, data = done.buffers[0].data, done.buffers[1].data
        return (
            BOUNDARY + b"\r\n\tContent-Type: " + SEALED.encode() + b"\r\n"
            b"\tOriginalContent: type=application/soap+xml;charset=UTF-8;Length=" + str(len(body)).encode() + b"\r\n"
            + BOUNDARY + b"\r\n\tContent-Type: application/octet-stream\r\n"
            + struct.pack("<i", len(header)) + header + data + BOUNDARY + b"--\r\n"
        )  # fmt: skip

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _reply(self, status: int, about: str, body: str, kind: str) -> None:
        names = " ".join(f'xmlns:{key}="{value}"' for key, value in NAMESPACES.items())
        header = f"<s:Header><a:RelatesTo>{about}</a:RelatesTo></s:Header>"
        text = f"<s:Envelope {names}>{header}<s:Body>{body}</s:Body></s:Envelope>".encode()
        if kind in self.server.trouble.half:
            text = text[: len(text) // 2]
        content = "application/soap+xml;charset=UTF-8"
        if self.server.auth == "ntlm":
            text = self._sealed(text)
            content = f'multipart/encrypted;protocol="{SEALED}";boundary="Encrypted Boundary"'
        self._send(status, text, {"Content-Type": content})
        if kind in self.server.trouble.hang_up:
            self.close_connection = True

    def _fault(self, about: str, code: int, kind: str) -> None:
        detail = f'<f:WSManFault xmlns:f="http://schemas.microsoft.com/wbem/wsman/1/wsmanfault" Code="{code}"/>'
        reason = f"<s:Reason><s:Text>the fault {code}</s:Text></s:Reason><s:Detail>{detail}</s:Detail>"
        self._reply(500, about, f"<s:Fault><s:Code><s:Value>s:Sender</s:Value></s:Code>{reason}</s:Fault>", kind)

    def _answer(self, message: ET.Element) -> None:
        found = {node.tag.rpartition("}")[2]: node for node in message.iter()}
        about, kind = str(found["MessageID"].text), str(found["Action"].text).rpartition("/")[2]
        server = self.server
        server.requests.append(kind)
        if kind in server.trouble.silent:
            server.stop.wait(60)
            self.close_connection = True
            return
        if waiting := server.trouble.faults.get(kind):
            self._fault(about, waiting.pop(0), kind)
            return
        if kind == "Get":
            config = f'<c:Config xmlns:c="c"><c:MaxEnvelopeSizekb>{server.envelope}</c:MaxEnvelopeSizekb></c:Config>'
            self._reply(200, about, config, kind)
        elif kind == "Create":
            name = str(uuid.uuid4())
            server.shells[name] = {}
            selector = f'<w:SelectorSet><w:Selector Name="ShellId">{name}</w:Selector></w:SelectorSet>'
            self._reply(200, about, f"<x:ResourceCreated>{selector}</x:ResourceCreated>", kind)
        elif (shell := str(found["Selector"].text)) not in server.shells:
            self._fault(about, UNKNOWN, kind)
        elif kind == "Delete":
            end(server.shells.pop(shell))
            self._reply(200, about, "", kind)
        elif kind == "Command":
            name = str(uuid.uuid4())
            server.shells[shell][name] = Command(server.start, str(found["Command"].text))
            self._reply(
                200, about, f"<rsp:CommandResponse><rsp:CommandId>{name}</rsp:CommandId></rsp:CommandResponse>", kind
            )
        else:
            self._about_command(found, server.shells[shell], about, kind)

    def _about_command(self, found: dict[str, ET.Element], shell: dict[str, Command], about: str, kind: str) -> None:
        node = found[{"Send": "Stream", "Receive": "DesiredStream", "Signal": "Signal"}[kind]]
        name = str(node.get("CommandId"))
        if (command := shell.get(name)) is None:
            self._fault(about, UNKNOWN, kind)
        elif kind == "Send":
            command.stdin.give(base64.b64decode(node.text or ""), last=str(node.get("End")).lower() == "true")
            self._reply(200, about, "<rsp:SendResponse/>", kind)
        elif kind == "Signal":
            self.server.signals.append(str(found["Code"].text).rpartition("/")[2])
            end({name: command})
            if self.server.signals[-1] == "terminate":
                del shell[name]
            self._reply(200, about, "<rsp:SignalResponse/>", kind)
        else:
            seconds = _seconds(str(found["OperationTimeout"].text))
            self._receive(command, name, seconds, about, kind)

    def _receive(self, command: Command, name: str, seconds: float, about: str, kind: str) -> None:
        output, code = command.receive(seconds)
        if self.server.stop.is_set():
            self.close_connection = True
            return
        if not output and code is None:
            self._fault(about, NOTHING_YET, kind)
            return
        body = "".join(
            f'<rsp:Stream Name="{stream}" CommandId="{name}">{base64.b64encode(data).decode()}</rsp:Stream>'
            for stream, data in output
        )
        if code is not None:
            state = f'<rsp:CommandState CommandId="{name}" State="{RSP}/CommandState/Done">'
            body += f"{state}<rsp:ExitCode>{code}</rsp:ExitCode></rsp:CommandState>"
        self._reply(200, about, f"<rsp:ReceiveResponse>{body}</rsp:ReceiveResponse>", kind)


def _seconds(duration: str) -> float:
    """`PT1M30S` and its like."""
    found = re.fullmatch(r"PT(?:(\d+)H)?(?:(\d+)M)?(?:([\d.]+)S)?", duration)
    assert found, f"no duration: {duration}"
    hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return hours * 3600 + minutes * 60 + seconds


def ntlm_accounts(folder: Path) -> None:
    """Make the NTLM server of `spnego` know the account, under the names of the domain that clients send."""
    path = folder / "ntlm-users"
    path.write_text("".join(f"{domain}:{USER}:{PASSWORD}\n" for domain in ("", socket.gethostname().upper(), ".")))
    os.environ["NTLM_USER_FILE"] = str(path)


def tls_context(certificate: bytes, key: bytes) -> ssl.SSLContext:
    """The server's side of TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as file:
        file.write(certificate + key)
        file.flush()
        context.load_cert_chain(file.name)
    return context


def wait(ready: Callable[[], bool], seconds: float = 10) -> None:
    end_at = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end_at, f"it did not happen within {seconds} s"
        time.sleep(0.01)
