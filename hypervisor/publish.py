"""Files that appear complete or not at all."""

from __future__ import annotations

import os
from pathlib import Path


def publish(part: Path, target: Path) -> None:
    """Move the finished `part` to `target` on the same file system so that a crash leaves one or the other whole."""
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(target)
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
