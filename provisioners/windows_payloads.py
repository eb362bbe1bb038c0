"""Our own PowerShell scripts, as files and as command lines."""

from __future__ import annotations

import base64
import json
from functools import cache
from importlib import resources
from typing import Any

LONGEST_COMMAND = 8191
"""What cmd.exe takes (microsoft.com: maximum length of a command line)."""


@cache
def text(name: str) -> str:
    """The payload as it is in the package."""
    return (resources.files("provisioners.payloads") / name).read_text(encoding="utf-8")


@cache
def command(name: str) -> str:
    """The command line that runs a small payload without sending it first; comments and indentation stay here."""
    lines = (line.strip() for line in text(name).splitlines())
    script = "\n".join(line for line in lines if line and not line.startswith("#"))
    encoded = base64.b64encode(script.encode("utf-16-le")).decode()
    made = f"powershell -NoProfile -NonInteractive -ExecutionPolicy Bypass -OutputFormat Text -EncodedCommand {encoded}"
    if len(made) > LONGEST_COMMAND:
        raise ValueError(f"the payload {name} is too long for a command line: {len(made)} characters")
    return made


def settings(**values: Any) -> bytes:
    """One line of JSON for a payload's standard input; plain ASCII, whatever the guest's code page is."""
    return json.dumps(values).encode() + b"\r\n"


def literal(value: str) -> str:
    """A PowerShell string in single quotes; it takes the typographic ones for quotes too."""
    return "'" + "".join(2 * char if char in "'\u2018\u2019\u201a\u201b" else char for char in value) + "'"
