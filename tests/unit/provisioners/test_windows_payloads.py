"""Our PowerShell on its way: command lines that fit, text that a shell cannot misread, and CLIXML as plain text."""

from __future__ import annotations

import base64
import json
from importlib import resources

import pytest

from provisioners import windows_payloads
from provisioners.communicators.clixml import ClixmlFilter

SMALL = ["receive-file.ps1", "send-file.ps1", "boot-id.ps1", "image-state.ps1", "absent-services.ps1"]
DOCUMENT = (
    '#< CLIXML\r\n<Objs Version="1.1.0.1" xmlns="http://schemas.microsoft.com/powershell/2004/04">'
    '<Obj S="progress" RefId="0"><MS><AV>Preparing modules</AV><S S="x"></S></MS></Obj>'
    '<S S="Error">boom &lt;1&gt;_x000D__x000A_</S><S S="Error">    + é_x000D__x000A_</S></Objs>'
).encode()


@pytest.mark.parametrize("name", SMALL)
def test_a_small_payload_fits_a_command_line(name):
    line = windows_payloads.command(name)
    assert len(line) <= 8191
    assert not set(line) & set('%^&|<>"\r\n')
    script = base64.b64decode(line.rsplit(" ", 1)[1]).decode("utf-16-le")
    assert "#" not in script.splitlines()[0]


def test_every_payload_is_ascii_because_powershell_reads_ansi():
    payloads = [path for path in resources.files("provisioners.payloads").iterdir() if path.name.endswith(".ps1")]
    assert len(payloads) >= 9
    for path in payloads:
        assert path.read_bytes().isascii(), path.name


def test_settings_are_ascii_and_one_line():
    line = windows_payloads.settings(path="c:\\é\n")
    assert line.isascii()
    assert line.count(b"\n") == 1
    assert json.loads(line) == {"path": "c:\\é\n"}


def test_literals_double_what_powershell_takes_for_quotes():
    assert windows_payloads.literal("it's \u2019 $x") == "'it''s \u2019\u2019 $x'"


@pytest.mark.parametrize("size", [1, 3, 7, 64, 10_000])
def test_clixml_becomes_text_wherever_it_is_cut(size):
    stream = b"before\r\n" + DOCUMENT + b"between" + DOCUMENT + b"#< CLI not one"
    clixml = ClixmlFilter()
    shown = b"".join(clixml.feed(stream[at : at + size]) for at in range(0, len(stream), size)) + clixml.flush()
    message = "boom <1>\r\n    + é\r\n".encode()
    assert shown == b"before\r\n" + message + b"between" + message + b"#< CLI not one"


def test_an_unfinished_document_keeps_its_messages():
    clixml = ClixmlFilter()
    assert clixml.feed(DOCUMENT[:-20]) + clixml.flush() == b"boom <1>\r\n"
