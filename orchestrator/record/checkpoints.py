"""Checkpoints: a build VM after a step, its disk and (as long as there is room) its memory. Files are the truth.

    checkpoints/<id>/disk.qcow2      frozen overlay on the parent's disk or on the source image, mode 0444
    checkpoints/<id>/memory          what libvirt saved; may be dropped, the disk can be booted cold
    checkpoints/<id>/nvram           a UEFI guest's variables
    checkpoints/<id>/manifest.json   written last: without it the folder is debris of a run
    checkpoints/<id>/lock            flock: shared by whoever writes or uses it, exclusive for removing it
    lineages/<id>/                   keys and seed of the build VM that the checkpoints of one lineage are of

The folder of the segment that a guest writes is made at its final path, so that no disk is ever moved or renamed.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypervisor.errors import HostError
from orchestrator.record import files, locks

MANIFEST = "manifest.json"
FORMAT = 1
DISK, MEMORY, NVRAM = "disk.qcow2", "memory", "nvram"


class CheckpointGone(HostError):
    """Somebody removed a checkpoint, or one that it rests on, before it could be held."""


@dataclass(frozen=True, slots=True)
class FileSum:
    """What a file of a checkpoint must be: length in bytes, and sha256."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A whole checkpoint. `key` is the digest of the step it was taken after; times are seconds since 1970.

    `oldest`: when the oldest step in it was run. `fingerprint`: what its memory can be resumed on. `machine` is the
    saved VM's name, `uuid` its id.
    """

    id: str
    folder: Path
    key: str
    step: str
    parent: str
    lineage: str
    source: str
    created: float
    oldest: float
    fingerprint: str
    machine: str
    uuid: str
    script_replaced: bool
    files: Mapping[str, FileSum]

    @property
    def disk(self) -> Path:
        """The frozen disk."""
        return self.folder / DISK

    @property
    def memory(self) -> Path | None:
        """The saved memory; None when it was dropped."""
        path = self.folder / MEMORY
        return path if path.exists() else None

    @property
    def nvram(self) -> Path | None:
        """A UEFI guest's variables."""
        return self.folder / NVRAM if NVRAM in self.files else None

    @property
    def last_used(self) -> float:
        """When it was made or last resumed."""
        return (self.folder / MANIFEST).stat().st_mtime

    def allocated(self) -> int:
        """Bytes that its files take up on the disk."""
        return sum(path.stat().st_blocks * 512 for path in self.folder.iterdir() if path.is_file())

    def damage(self, names: Iterable[str]) -> str:
        """What is wrong with these files of it, by length and sha256; "" when nothing is."""
        for name in names:
            path, wanted = self.folder / name, self.files[name]
            try:
                if path.stat().st_size != wanted.size or files.sha256(path) != wanted.sha256:
                    return f"{path} is not what was written"
            except (FileNotFoundError, HostError) as error:
                return str(error)
        return ""


class Checkpoints:
    """All checkpoints of a store."""

    def __init__(self, home: Path) -> None:
        self.folder = home / "checkpoints"
        self.lineages = home / "lineages"

    def all(self) -> list[Checkpoint]:
        """Every whole checkpoint, the oldest first."""
        found = [self._load(folder) for folder in self._folders()]
        return sorted((one for one in found if one is not None), key=lambda one: (one.created, one.id))

    def find(self, id: str) -> Checkpoint | None:
        """The checkpoint of this id; None when there is none that is whole."""
        return self._load(self.folder / id) if id and "/" not in id else None

    def chain(self, checkpoint: Checkpoint) -> list[Checkpoint]:
        """The checkpoint and all it rests on, itself first; raises `CheckpointGone` when a link is missing."""
        links = [checkpoint]
        while links[-1].parent:
            parent = self.find(links[-1].parent)
            if parent is None or len(links) > 10_000:
                raise CheckpointGone(f"the checkpoint {checkpoint.id} rests on {links[-1].parent}, which is gone")
            links.append(parent)
        return links

    @contextmanager
    def held(self, checkpoint: Checkpoint) -> Iterator[Checkpoint]:
        """Keep the checkpoint and all it rests on from being removed during the block; raises `CheckpointGone`."""
        with ExitStack() as stack:
            for link in self.chain(checkpoint):
                stack.enter_context(self._shared(link.folder))
            self.chain(checkpoint)  # nothing of it went between the look and the locks
            os.utime(checkpoint.folder / MANIFEST)
            yield checkpoint

    @contextmanager
    def segment(self) -> Iterator[Path]:
        """A new folder for the disk that a guest is about to write; removed at the end unless it was published."""
        with self._claimed(lambda: self.folder / f"{int(time.time()):010x}{secrets.token_hex(4)}") as folder:
            try:
                yield folder
            finally:
                if not (folder / MANIFEST).exists():
                    shutil.rmtree(folder, ignore_errors=True)

    def publish(self, checkpoint: Checkpoint) -> None:
        """Make a segment whose files are complete into a checkpoint. Their sums say later whether they still are."""
        sums = {name: {"size": one.size, "sha256": one.sha256} for name, one in checkpoint.files.items()}
        value: dict[str, Any] = {"format": FORMAT, "files": sums}
        for name in _FIELDS:
            value[name] = getattr(checkpoint, name)
        files.publish_json(checkpoint.folder / MANIFEST, value)

    @contextmanager
    def new_lineage(self) -> Iterator[Path]:
        """A private folder for what belongs to one build VM and its checkpoints: its name is the lineage. It is removed
        at the end unless there is a checkpoint of it."""
        with ExitStack() as stack:
            folder = stack.enter_context(self._claimed(lambda: self.lineages / secrets.token_hex(8)))
            try:
                yield folder
            finally:
                stack.close()
                self.prune_lineage(folder)

    def lineage(self, checkpoint: Checkpoint) -> Path:
        """The folder of the checkpoint's lineage."""
        return self.lineages / checkpoint.lineage

    def prune_lineage(self, folder: Path) -> None:
        """Remove a lineage that has no checkpoint and that nobody uses."""
        if all(one.lineage != folder.name for one in self.all()):
            self.remove_debris(folder)

    def remove(self, checkpoint: Checkpoint) -> bool:
        """Remove a checkpoint that nobody uses and nothing rests on; true when it was removed."""
        if any(one.parent == checkpoint.id for one in self.all()):
            return False
        return self._if_unused(checkpoint.folder, lambda: _remove_folder(checkpoint.folder))

    def drop_memory(self, checkpoint: Checkpoint) -> bool:
        """Remove the memory of a checkpoint that nobody uses; its disk can still be booted."""
        memory = checkpoint.folder / MEMORY
        return memory.exists() and self._if_unused(checkpoint.folder, lambda: memory.unlink(missing_ok=True))

    def debris(self) -> list[Path]:
        """Folders of segments whose run died, and lineages without a checkpoint; both unused now."""
        whole = self.all()
        dead = [path for path in self._folders() if self._load(path) is None and self._if_unused(path, lambda: None)]
        used = {one.lineage for one in whole}
        lineages = sorted(self.lineages.iterdir()) if self.lineages.is_dir() else []
        return dead + [path for path in lineages if path.name not in used and self._if_unused(path, lambda: None)]

    def remove_debris(self, folder: Path) -> bool:
        """Remove what `debris` named, if that is still so."""
        return self._if_unused(folder, lambda: _remove_folder(folder))

    def using_lineage(self, folder: Path) -> Any:
        """Keep a lineage's folder from being removed during the block."""
        return self._shared(folder, create=True)

    def _folders(self) -> list[Path]:
        return sorted(path for path in self.folder.iterdir() if path.is_dir()) if self.folder.is_dir() else []

    def _load(self, folder: Path) -> Checkpoint | None:
        try:
            value = files.read_json(folder / MANIFEST)
            if value is None or value.get("format") != FORMAT:
                return None
            sums = {name: FileSum(one["size"], one["sha256"]) for name, one in value["files"].items()}
            return Checkpoint(id=folder.name, folder=folder, files=sums, **{name: value[name] for name in _FIELDS})
        except (HostError, KeyError, TypeError, AttributeError):
            return None  # a manifest that cannot be read is none: the folder is debris

    @contextmanager
    def _claimed(self, name: Callable[[], Path]) -> Iterator[Path]:
        """A new folder under a shared lock. Before it is locked another process may take it for debris: then one more
        is made."""
        with ExitStack() as stack:
            while True:
                folder = name()
                with files.translating("creating", folder):
                    folder.mkdir(mode=0o700, parents=True)
                with suppress(CheckpointGone):
                    stack.enter_context(self._shared(folder, create=True))
                    break
            yield folder

    @contextmanager
    def _shared(self, folder: Path, *, create: bool = False) -> Iterator[None]:
        path = folder / "lock"
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o600)
        except FileNotFoundError:
            raise CheckpointGone(f"{folder} is gone") from None
        try:
            locks.lock(fd, path, exclusive=False)
            if not locks.is_linked(fd, path):
                raise CheckpointGone(f"{folder} is gone")
            yield
        finally:
            os.close(fd)

    def _if_unused(self, folder: Path, action: Any) -> bool:
        path = folder / "lock"
        with files.translating("removing", folder):
            try:
                fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_CREAT, 0o600)
            except FileNotFoundError:
                return False
            try:
                if not locks.try_lock(fd, exclusive=True):
                    return False
                action()
            finally:
                os.close(fd)
        return True


_FIELDS = (
    "key", "step", "parent", "lineage", "source", "created", "oldest", "fingerprint", "machine", "uuid",
    "script_replaced",
)  # fmt: skip


def _remove_folder(folder: Path) -> None:
    """The manifest goes first: a half-removed checkpoint must not look whole."""
    (folder / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(folder)
