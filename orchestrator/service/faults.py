"""Where a bug of ours is written down when a request runs into it: a private file, never the answer or a terminal."""

from __future__ import annotations

import secrets
import traceback
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.record.redact import Redactor

MOST = 100


def report_fault(home: Path, error: BaseException) -> Path:
    """Write the traceback of `error` into the server's folder; returns the file. At most `MOST` are kept."""
    folder = home / "service" / "faults"
    path = folder / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}.txt"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for old in sorted(folder.iterdir())[: -(MOST - 1)]:
            old.unlink(missing_ok=True)
        path.write_text(Redactor().text("".join(traceback.format_exception(error))))
    except OSError:
        pass  # a full disk: the answer says what kind of error it was
    return path
