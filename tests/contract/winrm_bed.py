"""A guest behind WinRM for the contract suite: real commands of /bin/sh, real files, and our two transfer scripts."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from fixtures.guests.windows.server import Served
from fixtures.guests.windows.wsman import OPEN, Listener, Settings
from hypervisor.deadline import Deadline
from hypervisor.errors import DeadlineExceeded
from provisioners import windows_payloads
from provisioners.communicators.base import Communicator
from provisioners.communicators.winrm_connect import connect

USER, PASSWORD = "packer", "a password: with a colon"
ENCRYPTED = Settings()
"""As Windows is shipped: Negotiate, and no message in the clear."""
RECEIVE, SEND = windows_payloads.command("receive-file.ps1"), windows_payloads.command("send-file.ps1")


class Machine:
    """Runs a command line in /bin/sh, and does in Python what the two scripts do in PowerShell: a `seam.Guest`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.password = PASSWORD
        self.left: int | None = None
        self.damage = False

    def passwords(self) -> dict[str, str]:
        return {"Administrator": "another", USER: self.password}

    def on_power(self, act) -> None:
        """It never restarts."""

    def boot(self) -> None:
        raise AssertionError("it never restarts")

    def run(self, call, output, stdin, interrupted) -> int:
        assert call.user == USER
        return self.start(call.line, output, stdin, interrupted)

    def start(self, line, output, stdin, interrupted) -> int:
        if line in (RECEIVE, SEND):
            text = b"".join(iter(stdin, b""))
            answer = self._receive(text) if line == RECEIVE else self._send(text, output)
            output("stdout", json.dumps(answer).encode() + b"\r\n")
            return 0
        return self._shell(line, output, stdin, interrupted)

    def _receive(self, text: bytes) -> dict[str, str]:
        first, *lines = text.split(b"\r\n")
        settings = json.loads(first)
        path = Path(settings["path"])
        if path.is_dir():
            return {"result": "is-folder"}
        if not path.parent.is_dir():
            return {"result": "no-folder"}
        content = b"".join(map(base64.b64decode, lines))[: -1 if self.damage else None]
        if self.left is not None and len(content) > self.left:
            return {"result": "no-space"}
        if hashlib.sha256(content).hexdigest() != settings["sha256"]:
            return {"result": "corrupt"}
        path.write_bytes(content)
        return {"result": "ok"}

    def _send(self, text: bytes, output) -> dict[str, str]:
        path = Path(json.loads(text)["path"])
        if not path.is_file():
            return {"result": "is-folder" if path.is_dir() else "missing"}
        content = path.read_bytes()
        for at in range(0, len(content), 49152):
            output("stdout", base64.b64encode(content[at : at + 49152]) + b"\r\n")
        return {"result": "ok", "sha256": hashlib.sha256(content[: -1 if self.damage else None]).hexdigest()}

    def _shell(self, line, output, stdin, interrupted) -> int:
        process = subprocess.Popen(
            ["/bin/sh", "-c", line],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.folder,
            start_new_session=True,
        )
        pumps = [
            threading.Thread(target=_pump, args=(source, name, output), daemon=True)
            for source, name in ((process.stdout, "stdout"), (process.stderr, "stderr"))
        ]
        for pump in pumps:
            pump.start()
        threading.Thread(target=_feed, args=(process.stdin, stdin), daemon=True).start()
        while process.poll() is None:
            if interrupted.wait(0.01):
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        for pump in pumps:
            pump.join()
        return process.returncode & 0xFFFFFFFF


def _pump(source, name: str, output) -> None:
    with source:
        while data := source.read1(65536):
            output(name, data)


def _feed(target, stdin) -> None:
    with suppress(OSError), target:
        while data := stdin():
            target.write(data)
            target.flush()


class WinRMBed:
    """The suite's view of a guest behind WinRM. With `tls` (certificate and key) it listens on HTTPS."""

    kind = "winrm"

    def __init__(
        self,
        folder: Path,
        *,
        auth: str = "basic",
        tls: tuple[Path, Path] | None = None,
        settings: Settings | None = None,
    ) -> None:
        self.folder = str(folder)
        self.machine = Machine(folder)
        self.auth = auth
        listeners = [Listener("HTTPS", 0, certificate=tls[0], key=tls[1])] if tls else [Listener("HTTP", 0)]
        self.server = Served(self.machine, listeners, settings or (ENCRYPTED if auth == "ntlm" else OPEN))
        self.port = self.server.https_port if tls else self.server.port

    def connect(self, **options) -> Communicator:
        given = {"tls": None, "auth": self.auth, "deadline": Deadline.after(20, "the test"), "patience": 0.0}
        return connect("127.0.0.1", self.port, user=USER, **{"password": PASSWORD, **given, **options})

    def cut(self) -> None:
        self.server.cut()

    def fill(self, left: int) -> None:
        self.machine.left = left

    def read(self, path: str) -> bytes:
        return Path(path).read_bytes()

    def write(self, path: str, content: bytes) -> None:
        Path(path).write_bytes(content)

    def make_folder(self, path: str) -> None:
        Path(path).mkdir()


class Impatient(Deadline):
    """Time for whatever is asked, and none for asking again."""

    def pause(self, seconds: float, doing: str = "") -> None:
        raise DeadlineExceeded(f"{self.what} is used up while {doing}")


def pem_files(folder: Path, certificate: bytes, key: bytes) -> tuple[Path, Path]:
    """The two as files, for a listener."""
    paths = folder / "listener.pem", folder / "listener.key"
    paths[0].write_bytes(certificate)
    paths[1].write_bytes(key)
    return paths


def wait(ready: Callable[[], bool], seconds: float = 10) -> None:
    """Wait for something that another thread does."""
    end_at = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end_at, f"it did not happen within {seconds} s"
        time.sleep(0.01)
