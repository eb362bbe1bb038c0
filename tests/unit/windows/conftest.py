"""A machine, and what its commands print."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from fixtures.guests.windows.machine import Windows
from fixtures.guests.windows.seam import Call


@dataclass
class Ended:
    """How a command ended; lines end as Windows ends them."""

    code: int
    out: str
    err: str


class Shell:
    """Runs command lines on a machine."""

    def __init__(self, windows: Windows) -> None:
        self.windows = windows

    def __call__(self, line: str, stdin: bytes = b"", *, user: str = "packer") -> Ended:
        printed: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
        pieces = [stdin] if stdin else []
        code = self.windows.run(
            Call(line, user),
            lambda stream, data: printed[stream].append(data),
            lambda: pieces.pop() if pieces else b"",
            threading.Event(),
        )
        out, err = (b"".join(printed[name]).decode() for name in ("stdout", "stderr"))
        return Ended(code, out, err)

    def ps(self, script: str, stdin: bytes = b"") -> Ended:
        """`powershell -EncodedCommand`, with errors as text."""
        encoded = base64.b64encode(script.encode("utf-16-le")).decode()
        return self(f"powershell -NoProfile -OutputFormat Text -EncodedCommand {encoded}", stdin)

    def file(self, script: str | bytes, *arguments: str) -> Ended:
        """`powershell -File`."""
        data = script if isinstance(script, bytes) else script.encode("utf-8-sig")
        self.windows.files.write("C:\\script.ps1", data)
        return self(" ".join(["powershell -ExecutionPolicy Bypass -File c:\\script.ps1", *arguments]))


@pytest.fixture
def windows(tmp_path: Path) -> Windows:
    return Windows(tmp_path / "guest")


@pytest.fixture
def shell(windows: Windows) -> Callable[..., Ended]:
    return Shell(windows)
