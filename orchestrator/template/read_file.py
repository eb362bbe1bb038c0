"""The text of a template file, whatever its encoding; marks and wrong bytes are reported."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hypervisor.errors import InputError
from orchestrator.template.diagnostics import Severity
from orchestrator.template.report import Report
from orchestrator.template.source_text import SourceText

MAX_FILE_SIZE = 32 * 1024 * 1024  # bytes; ARM refuses templates beyond 4 MB


def read_text(path: Path | None, report: Report) -> str:
    """The text of a file (None: standard input). UTF-8, or UTF-16 with its mark; AIB002 for marks and wrong bytes."""
    try:
        data = sys.stdin.buffer.read(MAX_FILE_SIZE + 1) if path is None else _bounded(path)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}", hint="check the path") from error
    if len(data) > MAX_FILE_SIZE:
        raise InputError(f"{path} is larger than {MAX_FILE_SIZE} bytes", hint="ARM refuses templates beyond 4 MB")
    return _decode(data, SourceText("", str(path or "<stdin>")), report)


def _bounded(path: Path) -> bytes:
    with path.open("rb") as file:
        # A read of the limit itself would make room for all of it each time.
        size = os.fstat(file.fileno()).st_size
        return file.read(size + 1 if 0 < size <= MAX_FILE_SIZE else MAX_FILE_SIZE + 1)


def _decode(data: bytes, source: SourceText, report: Report) -> str:
    start = source.position(0)
    for mark, encoding, word in (
        (b"\xef\xbb\xbf", "utf-8-sig", "UTF-8"),
        (b"\xff\xfe", "utf-16", "UTF-16"),
        (b"\xfe\xff", "utf-16", "UTF-16"),
    ):
        if data.startswith(mark):
            hint = "save it as UTF-8 without a mark; `az` and other strict readers refuse it"
            report.at_position(
                Severity.WARNING, "AIB002", start, f"the file begins with a {word} byte order mark", hint=hint
            )  # fmt: skip
            return data.decode(encoding, errors="replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = SourceText(data[: error.start].decode("utf-8", errors="replace"), source.file)
        place = before.position(len(before.text))
        message = f"the byte 0x{data[error.start]:02X} is not UTF-8"
        report.at_position(Severity.ERROR, "AIB001", place, message, hint="save the file as UTF-8", source="RFC 8259")
        return data.decode("utf-8", errors="replace")


def encodable(text: str, file: str, report: Report) -> str:
    """`text` without lone surrogates and without a byte order mark, each reported."""
    start = SourceText("", file).position(0)
    if text.startswith("\ufeff"):
        report.at_position(Severity.WARNING, "AIB002", start, "the text begins with a byte order mark")
        text = text[1:]
    try:
        text.encode()
    except UnicodeEncodeError as error:
        place = SourceText(text[: error.start], file).position(error.start)
        report.at_position(Severity.ERROR, "AIB001", place, "half of a surrogate pair, which is no character")
        return text.encode("utf-8", errors="replace").decode("utf-8")
    return text
