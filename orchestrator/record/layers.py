"""Layers: immutable disks, named by what they hold: `<sha256>.<format>`, mode 0444, never replaced.

Whoever reads a layer holds a shared flock on it and on the layers it rests on; removing one takes the exclusive lock.
Who adds a layer keeps a shared lock until a resource refers to it, so that `aib gc` cannot come between.
"""

from __future__ import annotations

import os
import re
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from hypervisor.deadline import Deadline
from hypervisor.errors import InputError
from orchestrator.record import files, locks

_QCOW2_MAGIC = b"QFI\xfb"
_DIGEST = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Layer:
    """A disk of the store. `size` is the file's length, `virtual_size` the disk's, in bytes.

    `backing` is the digest of the layer that this one rests on, "" when it stands alone.
    """

    digest: str
    path: Path
    format: str
    virtual_size: int
    size: int
    backing: str = ""


class Layers:
    """The folder of layers, each with a small JSON file beside it that says what the bytes mean."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._held: dict[str, int] = {}
        self._holding = threading.RLock()

    def find(self, digest: str) -> Layer | None:
        """The layer of this digest, or None."""
        if not _DIGEST.fullmatch(digest):
            return None
        for notes in sorted(self.folder.glob(f"{digest}.*.json")):
            if (layer := self._load(notes)) is not None:
                return layer
        return None

    def all(self) -> Iterator[Layer]:
        """Every whole layer."""
        for notes in sorted(self.folder.glob("*.json")):
            if (layer := self._load(notes)) is not None:
                yield layer

    def add(
        self, source: Path, format: str, *, move: bool, virtual_size: int, digest: str, deadline: Deadline | None
    ) -> Layer:
        """See `Store.add_layer`."""
        with files.translating(f"adding the disk {source} to", self.folder):
            digest = digest or files.sha256(source, deadline)
            target = self.folder / f"{digest}.{format}"
            while not self._hold(digest, target):
                self._bring(source, target, digest, move=move, deadline=deadline)
            backing = self._backing(target)
            notes = {"format": format, "virtualSize": virtual_size, "size": target.stat().st_size, "backing": backing}
            files.publish_json(target.with_name(target.name + ".json"), notes)
            if move:
                source.unlink(missing_ok=True)
        return Layer(digest, target, format, virtual_size, target.stat().st_size, backing)

    def release(self, digest: str) -> None:
        """Give up the lock that adding the layer left with this process, if there is one."""
        with self._holding:
            fd = self._held.pop(digest, None)
            if fd is not None:
                os.close(fd)

    @contextmanager
    def reading(self, digest: str) -> Iterator[Layer]:
        """Hold shared locks on the layer and all it rests on; `InputError` when one of them is gone."""
        with ExitStack() as stack:
            first, wanted = None, digest
            while wanted:
                layer = self.find(wanted)
                fd = self._open_shared(layer.path) if layer else None
                if layer is None or fd is None:
                    raise InputError(
                        f"the layer {wanted} is not in {self.folder}",
                        hint="the image that it held was removed: import, pull or build it again",
                    )
                stack.callback(os.close, fd)
                first, wanted = first or layer, layer.backing
            if first is None:
                raise InputError("no layer was named")
            yield first

    def remove(self, layer: Layer, still_unused: Callable[[], bool]) -> bool:
        """Remove the layer unless somebody reads it or `still_unused`, asked under its exclusive lock, says no."""
        with files.translating("removing", layer.path):
            try:
                fd = os.open(layer.path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return False
            try:
                if not locks.try_lock(fd, exclusive=True) or not still_unused():
                    return False
                layer.path.with_name(layer.path.name + ".json").unlink(missing_ok=True)
                layer.path.unlink(missing_ok=True)
                files.sync_folder(self.folder)
            finally:
                os.close(fd)
        return True

    def debris(self) -> Iterator[Path]:
        """Unfinished files, disks without notes and notes without disks (some may have a living writer: lock first)."""
        for path in sorted(self.folder.iterdir()):
            other = path.with_name(path.name.removesuffix(".json") if path.suffix == ".json" else f"{path.name}.json")
            whole = path.name.startswith(".") or other.exists()
            if path.name.startswith(files.PARTIAL) or not whole:
                yield path

    def _load(self, notes: Path) -> Layer | None:
        path = notes.with_name(notes.name.removesuffix(".json"))
        value = files.read_json(notes)
        if value is None or not path.exists():
            return None
        digest = path.name.split(".")[0]
        return Layer(digest, path, value["format"], value["virtualSize"], value["size"], value.get("backing", ""))

    def _hold(self, digest: str, target: Path) -> bool:
        """Keep a shared lock on `target`; false when it is not there."""
        with self._holding:
            if digest in self._held and locks.is_linked(self._held[digest], target):
                return True
            self.release(digest)
            fd = self._open_shared(target)
            if fd is not None:
                self._held[digest] = fd
            return fd is not None

    @staticmethod
    def _open_shared(path: Path) -> int | None:
        """A descriptor with a shared lock on a file that is there to stay, or None."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        locks.lock(fd, path, exclusive=False)
        if locks.is_linked(fd, path):
            return fd
        os.close(fd)
        return None

    def _bring(self, source: Path, target: Path, digest: str, *, move: bool, deadline: Deadline | None) -> None:
        """Publish the bytes of `source` at `target` and hold them; another process may do so at the same moment."""
        movable = move and source.stat().st_nlink == 1 and source.stat().st_dev == self.folder.stat().st_dev
        with ExitStack() as stack:
            if movable and not source.is_symlink():
                fd = stack.enter_context(source.open("rb")).fileno()
                locks.lock(fd, source, exclusive=False)
                path = source
                os.fsync(fd)
            else:
                fd, path = stack.enter_context(files.partial(target))
                files.copy_into(source, fd, deadline)
            os.fchmod(fd, 0o444)
            stack.enter_context(locks.locked(self.folder / ".lock", exclusive=True))
            if not target.exists():  # never replaced: an overlay may rest on the one that is there
                path.rename(target)
                with self._holding:
                    self.release(digest)
                    self._held[digest] = os.dup(fd)  # the lock goes with the description: it is never given up
                files.sync_folder(self.folder)

    def _backing(self, path: Path) -> str:
        """The digest that a qcow2 layer rests on; `InputError` when its backing file is not a layer beside it."""
        with path.open("rb") as file:
            header = file.read(20)
            if header[:4] != _QCOW2_MAGIC:
                return ""
            offset, length = struct.unpack(">QI", header[8:20])
            if not offset:
                return ""
            file.seek(offset)
            name = file.read(length).decode(errors="replace")
        if "/" in name or self.find(name.split(".")[0]) is None:
            path.unlink()
            raise InputError(
                f"the disk rests on {name}, which is no layer of the store", hint="flatten it: `qemu-img convert`"
            )
        return name.split(".")[0]


def unlocked(path: Path) -> bool:
    """Whether the file is there and nobody holds a lock on it at this moment."""
    return _if_unlocked(path, lambda: None)


def remove_unlocked(path: Path) -> bool:
    """Remove a file unless somebody holds a lock on it; true when it was removed."""
    return _if_unlocked(path, path.unlink)


def _if_unlocked(path: Path, action: Callable[[], None]) -> bool:
    with files.translating("removing", path), suppress(FileNotFoundError):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if locks.try_lock(fd, exclusive=True) and locks.is_linked(fd, path):
                action()
                return True
        finally:
            os.close(fd)
    return False
