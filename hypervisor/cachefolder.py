"""Folders that are built once and published whole: several processes may build the same one at the same time."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def ensure_folder(final: Path, build: Callable[[Path], None]) -> Path:
    """Return `final`, made by `build(staging)` when it is not there yet.

    Staging lies beside it, is flushed and renamed into place; whoever comes second uses what the first published.
    A failed build leaves nothing.
    """
    if final.is_dir():
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
    try:
        build(staging)
        staging.chmod(0o755)
        for path in staging.rglob("*"):
            if path.is_file() and not path.is_symlink():
                _flush(path)
        _flush(staging)
        try:
            staging.rename(final)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
        _flush(final.parent)
    finally:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(staging)
    return final


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
