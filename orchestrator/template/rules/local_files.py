"""Scripts and files that lie beside the template: are they there, are they small enough, do their sums match."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.template.node import Node
from orchestrator.template.placeholders import is_open
from orchestrator.template.regular_file import chunks, open_regular
from orchestrator.template.report import Report
from orchestrator.template.rules.downloads import uris
from orchestrator.template.shell_finding import MAX_SCRIPT
from orchestrator.template.subject import Subject

FILE_LIMIT = 20 * 1024 * 1024  # bytes, S23
READ_LIMIT = 256 * 1024 * 1024  # bytes: nothing larger is read for a checksum
TOTAL_LIMIT = 1024 * 1024 * 1024  # bytes: what is read for the checksums of one template, a second or two
_NEAR_TEXT = 8 * 1024 * 1024  # bytes: larger files are no scripts, their line ends are not tried


@dataclass(frozen=True, slots=True)
class LocalScript:
    """A shell script that a step names by a local path; `data` is its content."""

    step: Node
    at: Node
    path: Path
    data: bytes


@dataclass(frozen=True, slots=True)
class _Content:
    """What is known of one file: its size, its start, and sums as it is, with LF and with CRLF (where wanted)."""

    size: int
    data: bytes = b""
    sums: tuple[str, ...] = ()


def check(subject: Subject, base: Path, report: Report) -> Iterator[LocalScript]:
    """AIB034, AIB039 and AIB040 for local paths relative to `base`; yields the shell scripts among them."""
    left = TOTAL_LIMIT
    for step, at in uris(subject):
        if "://" in at.value:
            continue
        path = base / at.value
        wanted = _wanted_sum(step)
        is_script = step.string("type") == "Shell" and at.key != "sourceUri"
        try:
            content = _read(path, hashed=bool(wanted), kept=is_script, most=min(READ_LIMIT, left))
        except FileNotFoundError:
            hint = f"looked for it in {base}"
            report.error("AIB039", at, f"there is no file {at.value}", hint=hint, source="aib")
            continue
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            reason = error.strerror if isinstance(error, OSError) else str(error)
            report.error("AIB039", at, f"{at.value} cannot be read: {reason}", source="aib")
            continue
        _size(step, at, content.size, report)
        if wanted and content.sums:
            left -= content.size
            _checksum(step, wanted, content.sums, report)
        elif wanted:
            message = f"{at.value} has {content.size} bytes: too much to compute its sum here; it was not checked"
            report.warning("AIB040", at, message, hint="a build checks it")
        if is_script:
            yield LocalScript(step, at, path, content.data)


def _read(path: Path, *, hashed: bool, kept: bool, most: int) -> _Content:
    """The file's size, its start when `kept`, its sums when `hashed` and it is no larger than `most`."""
    with open_regular(path) as (file, size):
        if not hashed or size > most:
            return _Content(size, file.read(min(size, MAX_SCRIPT + 1)) if kept and size else b"")
        if size <= _NEAR_TEXT:
            data = file.read(size) if size else b""
            unix = data.replace(b"\r\n", b"\n")
            forms = (data, unix, unix.replace(b"\n", b"\r\n"))
            sums = tuple(hashlib.sha256(form).hexdigest() for form in forms)
            return _Content(size, data[: MAX_SCRIPT + 1] if kept else b"", sums)
        digest = hashlib.sha256()
        start = b""
        for data in chunks(file, size):
            start = start or data[: MAX_SCRIPT + 1]
            digest.update(data)
        return _Content(size, start if kept else b"", (digest.hexdigest(),))


def _size(step: Node, at: Node, size: int, report: Report) -> None:
    if step.string("type") == "File" and size >= FILE_LIMIT:
        report.warning(
            "AIB040", at, f"the file has {size} bytes; the File customizer is for files under 20 MB",
            hint="download it in a script", source="SEED S23",
        )  # fmt: skip


def _wanted_sum(step: Node) -> str:
    wanted = step.string("sha256Checksum").lower()
    return "" if is_open(wanted) else wanted


def _checksum(step: Node, wanted: str, sums: tuple[str, ...], report: Report) -> None:
    found, *others = sums
    at = step.get("sha256Checksum")
    if at is None or found == wanted:
        return
    hint = "update sha256Checksum"
    if wanted in others:
        have, other = ("CRLF", "LF") if others.index(wanted) == 0 else ("LF", "CRLF")
        hint = f"the file was saved with {have} line ends; with {other} the sum matches"
    report.error("AIB034", at, f"sha256Checksum is {wanted}, the file has {found}", hint=hint, source="SEED S19")
