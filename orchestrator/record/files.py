"""Files that are published whole or not at all, and what the system says when it cannot.

Publish = write beside the target, fsync, rename, fsync the folder.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hypervisor.deadline import Deadline
from hypervisor.errors import HostError, InputError
from orchestrator.record import locks

PARTIAL = ".partial-"
"""Every unfinished file is called this; its writer holds a shared lock on it, so what is not locked is debris."""

_CHUNK = 4 << 20
_FICLONE = 0x40049409
"""ioctl of <linux/fs.h>: share the extents of another file, copy on write (Btrfs, XFS, bcachefs)."""
_NO_CLONE = {errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EPERM}


class NoSpaceLeft(HostError):
    """The file system or the quota is full."""


class NotPermitted(HostError):
    """The user may not read or write a file."""


def host_error(error: OSError, doing: str, path: Path) -> HostError:
    """The error the user should see when the system refuses `doing` (a verb phrase) on `path`."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return NoSpaceLeft(
            f"no space left while {doing} {path} ({_free(path) >> 20} MiB free)",
            hint="free some: `aib gc --artifacts` removes exported copies of finished runs, `aib gc` only leftovers; "
            "or move AIB_HOME to a larger disk",
        )
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return NotPermitted(
            f"not permitted while {doing} {path}: {error.strerror}",
            hint=f"`namei -l {path}` shows the owners and modes; or set AIB_HOME to a folder of your own",
        )
    return HostError(f"failed while {doing} {path}: {error.strerror or error}")


@contextmanager
def translating(doing: str, path: Path) -> Iterator[None]:
    """Turn what the system refuses inside the block into a `HostError`."""
    try:
        yield
    except OSError as error:
        raise host_error(error, doing, Path(error.filename) if isinstance(error.filename, str) else path) from error


def _free(path: Path) -> int:
    existing = next((p for p in (path, *path.parents) if p.exists()), Path("/"))
    return shutil.disk_usage(existing).free


def sync_folder(folder: Path) -> None:
    """Make renames and removals in `folder` survive a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def partial(target: Path, mode: int = 0o600) -> Iterator[tuple[int, Path]]:
    """A new locked file beside `target`, as (descriptor, path); removed at the end unless it was renamed away."""
    while True:
        path = target.parent / f"{PARTIAL}{secrets.token_hex(8)}"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        locks.lock(fd, path, exclusive=False)
        if locks.is_linked(fd, path):  # else gc came between the two calls
            break
        os.close(fd)
    try:
        yield fd, path
    finally:
        with suppress(FileNotFoundError):
            path.unlink()
        os.close(fd)


def publish(target: Path, data: bytes, mode: int = 0o600) -> None:
    """Put `data` at `target`, replacing what is there; readers see the old or the new file, never a part."""
    with translating("writing", target), partial(target, mode) as (fd, path):
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.fsync(fd)
        path.replace(target)
        sync_folder(target.parent)


def publish_json(target: Path, value: Mapping[str, Any]) -> None:
    """`publish` of indented JSON."""
    publish(target, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in `path`, or None when there is no such file; `HostError` when it is damaged."""
    with translating("reading", path):
        try:
            value = json.loads(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError as error:
            raise HostError(f"{path} is damaged: {error}", hint="restore it from a backup or remove it") from error
    if not isinstance(value, dict):
        raise HostError(f"{path} is damaged: not a JSON object", hint="restore it from a backup or remove it")
    return value


def walk(folder: Path) -> Iterator[Path]:
    """Every file below `folder`; what others remove meanwhile is passed over, anything else is raised."""

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error

    with translating("listing", folder):
        for parent, folders, names in os.walk(folder, onerror=refuse):
            folders.sort()
            yield from (Path(parent, name) for name in sorted(names))


def extents(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """(start, end) of each part of the file that is not a hole."""
    position = 0
    while position < size:
        try:
            start = os.lseek(fd, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                return
            raise
        position = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, min(position, size)


def sha256(path: Path, deadline: Deadline | None = None) -> str:
    """SHA-256 of the whole file, in lower-case hex; holes are hashed without being read."""
    digest, zeros, buffer = hashlib.sha256(), memoryview(bytes(_CHUNK)), memoryview(bytearray(_CHUNK))

    def skip(count: int) -> None:
        while count:
            digest.update(zeros[: min(count, _CHUNK)])
            count -= min(count, _CHUNK)
            if deadline:
                deadline.check(f"hashing {path}")

    with translating("reading", path), path.open("rb", buffering=0) as file:
        size, done = os.fstat(file.fileno()).st_size, 0
        for start, end in extents(file.fileno(), size):
            skip(start - done)
            file.seek(start)
            done = start
            while done < end:
                count = file.readinto(buffer[: min(_CHUNK, end - done)])
                if not count:
                    raise InputError(f"{path} got shorter while it was read")
                digest.update(buffer[:count])
                done += count
                if deadline:
                    deadline.check(f"hashing {path}")
        skip(size - done)
    return digest.hexdigest()


def copy_into(source: Path, fd: int, deadline: Deadline | None = None) -> None:
    """Copy `source` to the empty file `fd`: by sharing extents copy-on-write where it can, else sparse, then fsync.

    The two never share an inode, so changing one cannot change the other.
    """
    with source.open("rb", buffering=0) as file:
        try:
            fcntl.ioctl(fd, _FICLONE, file.fileno())
        except OSError as error:
            if error.errno not in _NO_CLONE:
                raise
            _copy_extents(file.fileno(), fd, source, deadline)
        os.fsync(fd)


def _copy_extents(source_fd: int, fd: int, source: Path, deadline: Deadline | None) -> None:
    size = os.fstat(source_fd).st_size
    os.ftruncate(fd, size)
    for start, end in extents(source_fd, size):
        position = start
        while position < end:
            data = memoryview(os.pread(source_fd, min(_CHUNK, end - position), position))
            if not data:
                raise InputError(f"{source} got shorter while it was copied")
            while data:
                written = os.pwrite(fd, data, position)
                data, position = data[written:], position + written
            if deadline:
                deadline.check(f"copying {source}")


def publish_copy(source: Path, target: Path, mode: int = 0o600, deadline: Deadline | None = None) -> None:
    """Put a copy of `source` at `target`, replacing what is there."""
    with translating("writing", target), partial(target) as (fd, path):
        copy_into(source, fd, deadline)
        os.fchmod(fd, mode)
        path.replace(target)
        sync_folder(target.parent)
