"""A client of WS-Management that sends what it is told to, right or wrong: over one connection, which it keeps."""

from __future__ import annotations

import base64
import http.client
import ssl
import uuid
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import ClassVar
from xml.sax.saxutils import escape

from tests.contract.winrm_bed import PASSWORD, USER

SHELL = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell"
TRANSFER = "http://schemas.xmlsoap.org/ws/2004/09/transfer"
SOAP_TYPE = "application/soap+xml;charset=UTF-8"
NAMES = (
    'xmlns:s="http://www.w3.org/2003/05/soap-envelope" xmlns:a="http://schemas.xmlsoap.org/ws/2004/08/addressing" '
    'xmlns:w="http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd" '
    'xmlns:rsp="http://schemas.microsoft.com/wbem/wsman/1/windows/shell"'
)
ANONYMOUS = "http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous"


@dataclass
class Answer:
    """What came back. `code` is that of a fault, None where there is none."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def xml(self) -> ET.Element:
        return ET.fromstring(self.body)

    def text(self, name: str) -> str | None:
        return next((node.text for node in self.xml.iter() if node.tag.endswith(f"}}{name}")), None)

    @property
    def code(self) -> int | None:
        for node in self.xml.iter():
            if node.tag.endswith("}WSManFault"):
                return int(node.get("Code", ""))
            if node.tag.endswith("}error_Code"):
                return int(node.text or "")
        return None

    @property
    def shell(self) -> str:
        return next(node.text or "" for node in self.xml.iter() if node.get("Name") == "ShellId")


def basic(user: str = USER, password: str = PASSWORD) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def header(name: str, text: str, **attributes: str) -> str:
    extra = "".join(f' {key.replace("_", ":")}="{value}"' for key, value in attributes.items())
    return f"<{name}{extra}>{text}</{name}>"


class Client:
    made: ClassVar[list[Client]] = []
    """All of them, for a fixture to close."""

    def __init__(self, port: int, *, tls: bool = False, authorization: str | None = None) -> None:
        context = ssl.create_default_context() if tls else None
        if context:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        self.connection = (
            http.client.HTTPSConnection("127.0.0.1", port, timeout=20, context=context)
            if context
            else http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        )
        self.authorization = basic() if authorization is None else authorization
        self.made.append(self)

    def close(self) -> None:
        self.connection.close()

    def post(self, body: bytes, *, kind: str = SOAP_TYPE, path: str = "/wsman", **headers: str) -> Answer:
        given = {"Content-Type": kind, **headers}
        if self.authorization:
            given["Authorization"] = self.authorization
        self.connection.request("POST", path, body, given)
        answer = self.connection.getresponse()
        return Answer(answer.status, answer.headers, answer.read())

    def send(
        self,
        action: str,
        body: str = "",
        *,
        shell: str = "",
        resource: str = f"{SHELL}/cmd",
        timeout: str = "PT5S",
        envelope: int = 153_600,
        without: str = "",
        more: str = "",
    ) -> Answer:
        """One request, `without` one of its headers, with `more`."""
        self.message_id = f"uuid:{uuid.uuid4()}"
        headers = {
            "To": header("a:To", f"http://127.0.0.1:{self.connection.port}/wsman"),
            "ReplyTo": header("a:ReplyTo", header("a:Address", ANONYMOUS, s_mustUnderstand="true")),
            "Action": header("a:Action", action, s_mustUnderstand="true"),
            "MessageID": header("a:MessageID", self.message_id),
            "ResourceURI": header("w:ResourceURI", resource, s_mustUnderstand="true"),
            "MaxEnvelopeSize": header("w:MaxEnvelopeSize", str(envelope), s_mustUnderstand="true"),
            "OperationTimeout": header("w:OperationTimeout", timeout),
        }
        if shell:
            headers["Selector"] = header("w:SelectorSet", header("w:Selector", shell, Name="ShellId"))
        headers.pop(without, None)
        head = f"<s:Header>{''.join(headers.values())}{more}</s:Header>"
        return self.post(f"<s:Envelope {NAMES}>{head}<s:Body>{body}</s:Body></s:Envelope>".encode())

    def create(self, body: str = "", **more: str) -> Answer:
        streams = "<rsp:InputStreams>stdin</rsp:InputStreams><rsp:OutputStreams>stdout stderr</rsp:OutputStreams>"
        return self.send(f"{TRANSFER}/Create", f"<rsp:Shell>{body}{streams}</rsp:Shell>", **more)

    def command(self, shell: str, line: str, **more: str) -> Answer:
        body = f"<rsp:CommandLine><rsp:Command>{escape(line)}</rsp:Command></rsp:CommandLine>"
        return self.send(f"{SHELL}/Command", body, shell=shell, **more)

    def receive(self, shell: str, command: str, **more) -> Answer:
        stream = f'<rsp:DesiredStream CommandId="{command}">stdout stderr</rsp:DesiredStream>'
        return self.send(f"{SHELL}/Receive", f"<rsp:Receive>{stream}</rsp:Receive>", shell=shell, **more)

    def input(self, shell: str, command: str, data: bytes, *, end: bool) -> Answer:
        text = base64.b64encode(data).decode()
        stream = f'<rsp:Stream Name="stdin" CommandId="{command}" End="{str(end).upper()}">{text}</rsp:Stream>'
        return self.send(f"{SHELL}/Send", f"<rsp:Send>{stream}</rsp:Send>", shell=shell)

    def signal(self, shell: str, command: str, name: str) -> Answer:
        body = f'<rsp:Signal CommandId="{command}"><rsp:Code>{SHELL}/signal/{name}</rsp:Code></rsp:Signal>'
        return self.send(f"{SHELL}/Signal", body, shell=shell)

    def delete(self, shell: str) -> Answer:
        return self.send(f"{TRANSFER}/Delete", shell=shell)

    def run(self, line: str) -> tuple[bytes, int]:
        """A command from its start to its end, in a shell of its own: (stdout, exit code)."""
        shell = self.create().shell
        command = self.command(shell, line).text("CommandId")
        heard = b""
        while True:
            answer = self.receive(shell, command or "")
            assert answer.status == 200, answer.body
            heard += stdout(answer)
            if (code := answer.text("ExitCode")) is not None:
                self.delete(shell)
                return heard, int(code)


def stdout(answer: Answer) -> bytes:
    return b"".join(
        base64.b64decode(node.text or "")
        for node in answer.xml.iter()
        if node.tag.endswith("}Stream") and node.get("Name") == "stdout"
    )
