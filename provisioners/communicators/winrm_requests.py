"""The WS-Management messages that pywinrm's protocol object lacks."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import xmltodict
from winrm.protocol import Protocol

_CMD = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell/cmd"
_SHELL = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell"
_CONFIG = "http://schemas.microsoft.com/wbem/wsman/1/config"
_GET = "http://schemas.xmlsoap.org/ws/2004/09/transfer/Get"


def interrupt(protocol: Protocol, shell: str, command: str) -> None:
    """Signal ctrl_c, which gives a command a moment to clean up; pywinrm knows `terminate` alone."""
    header = protocol.build_wsman_header(f"{_SHELL}/Signal", _CMD, shell)
    signal = {"@CommandId": command, "rsp:Code": f"{_SHELL}/signal/ctrl_c"}
    protocol.send_message(xmltodict.unparse({"env:Envelope": {**header, "env:Body": {"rsp:Signal": signal}}}))


def envelope_kilobytes(protocol: Protocol) -> int:
    """`MaxEnvelopeSizekb` of the service (an administrator may read it); 0 when it does not say."""
    header = protocol.build_wsman_header(_GET, _CONFIG)
    answer = protocol.send_message(xmltodict.unparse({"env:Envelope": {**header, "env:Body": None}}))
    sizes = [node.text for node in ET.fromstring(answer).iter() if node.tag.endswith("MaxEnvelopeSizekb")]  # noqa: S314 - of the guest that we run; expat expands no entities beyond its limits
    return int(sizes[0]) if sizes and sizes[0] and sizes[0].isdigit() else 0
