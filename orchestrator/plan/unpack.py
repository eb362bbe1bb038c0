"""One disk file out of what an image host serves: plain, xz, gzip, or a tar of either."""

from __future__ import annotations

import gzip
import lzma
import os
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from hypervisor.deadline import Deadline
from hypervisor.errors import InputError
from orchestrator.record import files

_CHUNK = 1024 * 1024
_LARGEST = 4096 * 1024**3  # bytes: no image is larger than Azure's largest disk; stops a decompression bomb
_DISK_SUFFIXES = (".qcow2", ".img", ".raw", ".vhd", ".vhdx", ".vmdk", ".vhdfixed")
_BROKEN = (lzma.LZMAError, zlib.error, gzip.BadGzipFile, tarfile.TarError, EOFError)


def unpack(source: Path, name: str, target: Path, deadline: Deadline) -> None:
    """Write the disk in `source`, which its host calls `name`, to `target`; what is no archive is renamed.

    A tar archive must hold exactly one disk file, a regular one; its path in the archive is not used. Nothing is left
    at `target` when this fails. Raises `InputError` for a damaged or unsuitable archive, `HostError` for no space.
    """
    try:
        with files.translating(f"unpacking {name} to", target):
            try:
                _unpack(source, name, target, deadline)
            except _BROKEN as error:  # some of these are OSErrors and no fault of this machine
                raise InputError(f"{name} cannot be unpacked: {error or type(error).__name__}") from error
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _unpack(source: Path, name: str, target: Path, deadline: Deadline) -> None:
    lower = name.lower()
    if lower.endswith((".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz")):
        with _tar_member(source, name) as stream:
            _copy(stream, target, name, deadline)
    elif lower.endswith(".xz"):
        with lzma.open(source) as stream:
            _copy(stream, target, name, deadline)
    elif lower.endswith(".gz"):
        with gzip.open(source) as stream:
            _copy(stream, target, name, deadline)
    else:
        source.replace(target)


@contextmanager
def _tar_member(source: Path, name: str) -> Iterator[IO[bytes]]:
    with tarfile.open(source) as archive:
        regular = [member for member in archive if member.isreg()]
        disks = [member for member in regular if member.name.lower().endswith(_DISK_SUFFIXES)]
        chosen = disks or regular
        if len(chosen) != 1:
            found = ", ".join(member.name for member in chosen) or "none"
            raise InputError(f"{name} must hold one disk file; found: {found}")
        stream = archive.extractfile(chosen[0])
        if stream is None:  # only for members that are not regular files
            raise InputError(f"{name}: {chosen[0].name} cannot be read")
        with stream:
            yield stream


def _copy(stream: IO[bytes] | gzip.GzipFile, target: Path, name: str, deadline: Deadline) -> None:
    """Copy to a new file, leaving holes where the disk is zero."""
    done = 0
    with target.open("xb") as file:
        while chunk := stream.read(_CHUNK):
            deadline.check(f"unpacking {name}")
            done += len(chunk)
            if done > _LARGEST:
                raise InputError(f"{name} unpacks to more than {_LARGEST} bytes")
            if chunk.count(0) == len(chunk):
                file.seek(len(chunk), os.SEEK_CUR)
            else:
                file.write(chunk)
        file.truncate(done)
