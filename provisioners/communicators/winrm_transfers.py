"""Files to and from a Windows guest: through a command's standard input and output, or as Packer sends them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol

from hypervisor.deadline import Deadline
from provisioners import windows_payloads
from provisioners.communicators.base import CommandResult, CommunicatorError, ConnectionLost, OutputCallback, Stream
from provisioners.communicators.winrm_requests import envelope_kilobytes
from provisioners.communicators.winrm_wire import NothingYet

UploadWay = Literal["stdin", "packer"]
SMALL_CHUNK = 80 * 1024
"""Raw bytes of one message: Base64 twice, as a line and as an element, makes 142 KiB of 150."""
MOST_CHUNK = 2 * 1024 * 1024
ANSWER_LIMIT = 64 * 1024
PACKER_COMMAND = 8000
PACKER_COMMANDS_PER_SHELL = 15
"""Packer's uploader keeps to the smallest MaxConcurrentOperationsPerUser that it knows of (PKR winrmcp)."""

_WHY = {
    "is-folder": "it is a folder",
    "denied": "permission denied for the login user",
    "no-space": "no space left on the guest's disk",
}


class Runner(Protocol):
    """What transfers need of a communicator."""

    def stream(
        self, command: str, stdin: Iterable[bytes], *, deadline: Deadline, output: OutputCallback | None = None
    ) -> CommandResult: ...

    def exchange(self, action: Any, deadline: Deadline, doing: str) -> int: ...

    def release(self) -> None: ...


class Transfers(Protocol):
    """One way of moving files."""

    def upload(self, source: Path | bytes, destination: str, deadline: Deadline) -> None: ...

    def download(self, source: str, destination: Path, deadline: Deadline) -> None: ...


class StdinTransfers:
    """Large chunks through one command's standard input; the guest compares the SHA-256 before it replaces a file."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._chunk: int | None = None

    def upload(self, source: Path | bytes, destination: str, deadline: Deadline) -> None:
        """See `Communicator.upload`."""
        deadline.check(f"sending {destination}")
        header = windows_payloads.settings(path=destination, sha256=_sha256(source), **{"from": ""})
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        chunk = SMALL_CHUNK if size <= SMALL_CHUNK else self._large_chunk(deadline)
        self._receive(_messages(header, source, chunk), destination, deadline)

    def _large_chunk(self, deadline: Deadline) -> int:
        """As much as one message may hold, which the service says itself; asked once."""
        if self._chunk is None:
            kilobytes = 0
            with suppress(CommunicatorError, NothingYet):
                kilobytes = self._runner.exchange(envelope_kilobytes, deadline, "reading the limits of the guest")
            # Base64 twice is 16/9; the envelope around it is about 2 KiB.
            self._chunk = max(SMALL_CHUNK, min(MOST_CHUNK, (kilobytes - 8) * 1024 * 9 // 16 // 3 * 3))
        return self._chunk

    def _receive(self, stdin: Iterable[bytes], destination: str, deadline: Deadline) -> None:
        said = _Answer()
        command = windows_payloads.command("receive-file.ps1")
        result = self._runner.stream(command, stdin, deadline=deadline, output=said)
        answer = said.judged(result, f"sending {destination}")
        if (word := answer.get("result")) != "ok":
            raise CommunicatorError(f"cannot write {destination} in the guest: {_reason(word, answer, destination)}")

    def download(self, source: str, destination: Path, deadline: Deadline) -> None:
        """See `Communicator.download`; a file that did not arrive whole never gets its name."""
        deadline.check(f"fetching {source}")
        part = destination.with_name(destination.name + ".part")
        try:
            with part.open("wb") as file:
                self._fetch(source, file, deadline)
                file.flush()
                os.fsync(file.fileno())
            part.replace(destination)
        finally:
            part.unlink(missing_ok=True)

    def _fetch(self, source: str, file: BinaryIO, deadline: Deadline) -> None:
        said = _Answer(file)
        command = windows_payloads.command("send-file.ps1")
        stdin = [windows_payloads.settings(path=source)]
        result = self._runner.stream(command, stdin, deadline=deadline, output=said)
        answer = said.judged(result, f"fetching {source}")
        match answer.get("result"):
            case "ok" if answer.get("sha256") == said.sha256:
                return
            case "ok":
                why = "it did not arrive as it was sent (SHA-256 differs)"
            case "missing":
                raise CommunicatorError(f"{source} does not exist in the guest")
            case word:
                why = _reason(word, answer, source)
        raise CommunicatorError(f"cannot fetch {source} from the guest: {why}")


class EchoTransfers(StdinTransfers):
    """Uploads as Packer's: `echo` appends Base64 to a file, a command line at a time, and a script decodes it."""

    def upload(self, source: Path | bytes, destination: str, deadline: Deadline) -> None:
        """See `Communicator.upload`."""
        deadline.check(f"sending {destination}")
        collected = f"%TEMP%\\winrmcp-{uuid.uuid4()}.tmp"
        chunk = (PACKER_COMMAND - len(collected)) // 4 * 3
        self._runner.release()
        for number, piece in enumerate(_chunks(source, chunk), 1):
            line = f'echo {base64.b64encode(piece).decode()} >> "{collected}"'
            result = self._runner.stream(line, (), deadline=deadline)
            if result.connection_lost:
                raise ConnectionLost(f"the connection to the guest was lost while sending {destination}")
            if result.exit_code != 0:
                raise CommunicatorError(
                    f"cannot write {destination} in the guest: an echo into {collected} ended with {result.exit_code}",
                    hint="is the guest's disk full?",
                )
            if number % PACKER_COMMANDS_PER_SHELL == 0:
                self._runner.release()
        header = {"path": destination, "sha256": _sha256(source), "from": collected if chunk and _size(source) else ""}
        self._receive([windows_payloads.settings(**header)], destination, deadline)


class _Answer:
    """The output of a transfer script: Base64 lines go to `file`, the line of JSON is the verdict."""

    def __init__(self, file: BinaryIO | None = None) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self._line = b""
        self._verdict: dict[str, Any] = {}
        self._errors = b""

    def __call__(self, stream: Stream, data: bytes) -> None:
        if stream == "stderr":
            self._errors = (self._errors + data)[-ANSWER_LIMIT:]
            return
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            self._take(line.strip())

    def _take(self, line: bytes) -> None:
        if line.startswith(b"{"):
            with suppress(ValueError):
                self._verdict = json.loads(line)
        elif line and self._file is not None:
            try:
                piece = base64.b64decode(line, validate=True)
            except binascii.Error as error:
                raise CommunicatorError("the guest sent a piece of a file that is no Base64") from error
            self._hash.update(piece)
            self._file.write(piece)

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def judged(self, result: CommandResult, doing: str) -> dict[str, Any]:
        """The verdict; raises when the script gave none."""
        if result.connection_lost:
            raise ConnectionLost(f"the connection to the guest was lost while {doing}")
        self._take(self._line.strip())
        if not self._verdict:
            said = self._errors.decode(errors="replace").strip()[-500:]
            raise CommunicatorError(
                f"{doing} failed: the guest's PowerShell ended with {result.exit_code} and no verdict"
                + (f": {said}" if said else ""),
                hint="does PowerShell 5.1 run in the guest, and may it run scripts from a command line?",
            )
        return self._verdict


def _reason(word: Any, answer: dict[str, Any], path: str) -> str:
    if word == "no-folder":
        return f"the folder {_parent(path)} does not exist"
    if word == "corrupt":
        return "it did not arrive as it was sent (SHA-256 differs)"
    return _WHY.get(str(word)) or str(answer.get("message") or word)


def _parent(path: str) -> str:
    cut = max(path.rfind("/"), path.rfind("\\"))
    return path[:cut] if cut > 0 else path


def _messages(header: bytes, source: Path | bytes, chunk: int) -> Iterator[bytes]:
    """The header with the first chunk (they fit: the header is small), then chunk by chunk."""
    held = header
    for piece in _chunks(source, chunk):
        yield held + base64.b64encode(piece) + b"\r\n"
        held = b""
    if held:
        yield held


def _chunks(source: Path | bytes, size: int) -> Iterator[bytes]:
    if isinstance(source, bytes):
        for start in range(0, len(source), size):
            yield source[start : start + size]
        return
    with source.open("rb") as file:
        while piece := file.read(size):
            yield piece


def _size(source: Path | bytes) -> int:
    return len(source) if isinstance(source, bytes) else source.stat().st_size


def _sha256(source: Path | bytes) -> str:
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    with source.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
