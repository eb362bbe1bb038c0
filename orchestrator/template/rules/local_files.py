"""Scripts and files that lie beside the template: are they there, are they small enough, do their sums match."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.template.node import Node
from orchestrator.template.placeholders import is_open
from orchestrator.template.report import Report
from orchestrator.template.rules.downloads import uris
from orchestrator.template.subject import Subject

FILE_LIMIT = 20 * 1024 * 1024  # bytes, S23
READ_LIMIT = 256 * 1024 * 1024  # bytes: nothing larger is read for a checksum


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file that a step names by a local path; `data` is its content."""

    step: Node
    at: Node
    path: Path
    data: bytes


def check(subject: Subject, base: Path, report: Report) -> Iterator[LocalFile]:
    """AIB034, AIB039 and AIB040 for local paths relative to `base`; yields what could be read."""
    for step, at in uris(subject):
        if "://" in at.value:
            continue
        path = base / at.value
        try:
            if not path.is_file():
                report.error(
                    "AIB039", at, f"there is no file {at.value}", hint=f"looked for it in {base}", source="aib"
                )
                continue
            if path.stat().st_size > READ_LIMIT:
                report.warning("AIB040", at, f"{at.value} is larger than {READ_LIMIT} bytes; its sum was not checked")
                continue
            data = path.read_bytes()
        except OSError as error:
            report.error("AIB039", at, f"{at.value} cannot be read: {error.strerror}", source="aib")
            continue
        _size(step, at, len(data), report)
        _checksum(step, data, report)
        yield LocalFile(step, at, path, data)


def _size(step: Node, at: Node, size: int, report: Report) -> None:
    if step.string("type") == "File" and size >= FILE_LIMIT:
        report.warning(
            "AIB040", at, f"the file has {size} bytes; the File customizer is for files under 20 MB",
            hint="download it in a script", source="SEED S23",
        )  # fmt: skip


def _checksum(step: Node, data: bytes, report: Report) -> None:
    at = step.get("sha256Checksum")
    wanted = step.string("sha256Checksum").lower()
    if at is None or not wanted or is_open(wanted):
        return
    found = hashlib.sha256(data).hexdigest()
    if found == wanted:
        return
    hint = "update sha256Checksum"
    if hashlib.sha256(data.replace(b"\r\n", b"\n")).hexdigest() == wanted:
        hint = "the file was saved with CRLF line ends; with LF the sum matches"
    elif hashlib.sha256(data.replace(b"\n", b"\r\n")).hexdigest() == wanted:
        hint = "the file was saved with LF line ends; with CRLF the sum matches"
    report.error("AIB034", at, f"sha256Checksum is {wanted}, the file has {found}", hint=hint, source="SEED S19")
