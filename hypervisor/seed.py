"""Seed images: an ISO 9660 file system with named bytes, as cloud-init's NoCloud and Windows Setup read it.

What the files say belongs to the provisioners.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from hypervisor.errors import UsageError

if TYPE_CHECKING:
    import pycdlib

_DEEPEST = 8  # folders ISO 9660 allows


def write_iso(path: Path, files: Mapping[str, bytes], volume: str = "cidata") -> None:
    """Write an ISO with Joliet and Rock Ridge names to `path`, readable by its owner alone: seeds hold secrets.

    `files` maps names such as `user-data` or `openstack/latest/meta_data.json` to contents; `volume` is the label the
    guest looks for. The file appears complete or not at all.
    """
    import pycdlib

    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident=volume)
    try:
        _fill(iso, files)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                iso.write_fp(file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    finally:
        iso.close()


def _fill(iso: pycdlib.PyCdlib, files: Mapping[str, bytes]) -> None:
    """Add folders and files. The plain ISO names are never seen by a guest that reads Joliet or Rock Ridge: numbers."""
    plain: dict[str, str] = {"": ""}
    for number, (name, data) in enumerate(files.items()):
        parts = name.split("/")
        if not all(parts) or ".." in parts or "." in parts or len(parts) > _DEEPEST:
            raise UsageError(f"{name!r} cannot be the name of a file in a seed image")
        for depth in range(1, len(parts)):
            folder, parent = "/".join(parts[:depth]), "/".join(parts[: depth - 1])
            if folder not in plain:
                plain[folder] = f"{plain[parent]}/D{len(plain):07}"
                iso.add_directory(plain[folder], rr_name=parts[depth - 1], joliet_path=f"/{folder}")
        folder = plain["/".join(parts[:-1])]
        iso.add_fp(io.BytesIO(data), len(data), f"{folder}/F{number:07}.;1", rr_name=parts[-1], joliet_path=f"/{name}")
