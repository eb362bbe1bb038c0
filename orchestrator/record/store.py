"""The store: AIB_HOME with layers, resources and run folders. Several aib processes may work in it at once.

Files are the truth and are published whole; the sqlite index is rebuilt from them when it is missing or damaged.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import platformdirs

from hypervisor.deadline import Deadline
from hypervisor.errors import HostError, InputError
from orchestrator.record import files, locks
from orchestrator.record.checkpoints import Checkpoints
from orchestrator.record.index import Index, IndexDamaged
from orchestrator.record.layers import Layer, Layers
from orchestrator.record.resources import Resource, ResourceExists, ResourceFiles, resource_key
from orchestrator.record.runs import RunFolder, Runs

__all__ = ["Layer", "Resource", "ResourceExists", "RunFolder", "Store"]

_T = TypeVar("_T")
_R = TypeVar("_R", bound=Resource | None)


def default_home() -> Path:
    """Where `Store.default` is, without making it."""
    named = os.environ.get("AIB_HOME", "")
    return Path(named) if named else platformdirs.user_data_path("aib")


class Store:
    """AIB_HOME, created (mode 0700) when missing. Every method raises `HostError` when the machine refuses."""

    def __init__(self, home: Path) -> None:
        self.home = home.expanduser().absolute()
        with files.translating("creating", self.home):
            self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
            for name in ("layers", "resources", "runs", "fetched", "vhds", "locks", "checkpoints"):
                (self.home / name).mkdir(mode=0o700, exist_ok=True)
        self.layers = Layers(self.home / "layers")
        self.checkpoints = Checkpoints(self.home)
        self._runs = Runs(self.home / "runs")
        self._files = ResourceFiles(self.home / "resources")
        self._index = Index(self.home / "index.sqlite")

    @classmethod
    def default(cls) -> Store:
        """The store that the environment names (AIB_HOME), else the platform's data folder."""
        return cls(default_home())

    # Layers

    def add_layer(
        self,
        path: Path,
        format: str,
        *,
        move: bool,
        virtual_size: int,
        digest: str = "",
        deadline: Deadline | None = None,
    ) -> Layer:
        """Make the disk `path` a layer: reflinked or copied, or moved when `move` and nothing else shares its inode.

        `format` is its proved format, `virtual_size` the disk's size in bytes; `digest` the sha256 of this very file
        when the caller has just computed it. The layer is protected from `aib gc` by this process until a resource
        that refers to it is put or created, or until `release_layer`.
        """
        return self.layers.add(path, format, move=move, virtual_size=virtual_size, digest=digest, deadline=deadline)

    def layer(self, digest: str) -> Layer | None:
        """The layer of this digest, or None."""
        return self.layers.find(digest)

    def reading(self, digest: str) -> AbstractContextManager[Layer]:
        """Hold the layer (and what it rests on) for reading: nobody can remove it during the block."""
        return self.layers.reading(digest)

    def release_layer(self, digest: str) -> None:
        """Give up the protection that `add_layer` gave a layer which no resource will refer to."""
        self.layers.release(digest)

    def remove_layer(self, digest: str) -> bool:
        """Remove the layer unless somebody reads it, a resource refers to it, or another layer rests on it."""
        layer = self.layers.find(digest)
        return layer is not None and self.layers.remove(layer, lambda: digest not in self.referenced())

    def referenced(self) -> frozenset[str]:
        """Digests of the layers that resources refer to, and of those they rest on. Read from the files.

        `HostError` when one of them is damaged: nobody knows what it refers to.
        """
        wanted = {resource.digest for resource in self._files.all()} - {""}
        backing = {layer.digest: layer.backing for layer in self.layers.all()}
        return frozenset(wanted | set(backing.values()) - {""})

    # Resources

    def put(self, resource: Resource) -> None:
        """Create or replace the resource."""
        self.upsert(resource.id, lambda _: resource)

    def create(self, resource: Resource) -> None:
        """Create the resource; `ResourceExists` when the id is taken, in whichever process that happened."""

        def reserve(existing: Resource | None) -> Resource:
            if existing is not None:
                raise ResourceExists(existing.id)
            return resource

        self.upsert(resource.id, reserve)

    def update(self, resource_id: str, change: Callable[[Resource], Resource]) -> Resource:
        """Replace the resource by `change` of it, with no other change in between; `InputError` when there is none."""

        def changed(existing: Resource | None) -> Resource:
            if existing is None:
                raise InputError(f"there is no {resource_id}")
            return change(existing)

        return self.upsert(resource_id, changed)

    def upsert(self, resource_id: str, change: Callable[[Resource | None], Resource]) -> Resource:
        """Replace the resource by `change` of it (of None when there is none), with no other change in between."""
        resource = self._change(resource_id, change)
        self.layers.release(resource.digest)
        return resource

    def get(self, resource_id: str) -> Resource | None:
        """The resource of this id, in whatever case it is written, or None."""
        return self._files.read(resource_id)

    def list(self, type: str | None = None, under: str = "") -> list[Resource]:
        """Resources of one type (any case; None: all) whose ids lie under the id `under`, in the order of their ids."""
        prefix = resource_key(under) if under else ""
        while True:
            with self._lock(exclusive=False):
                try:
                    if not self._index.pending():
                        return self._index.select(type, prefix)
                except IndexDamaged:
                    pass
                except HostError:
                    return _matching(self._files.readable(), type, prefix)  # sqlite cannot even read on a full disk
            try:
                self._repair()
            except HostError:
                return _matching(self._files.readable(), type, prefix)

    def delete(self, resource_id: str, only_if: Callable[[Resource], bool] = lambda _: True) -> bool:
        """Remove the resource if it is there and `only_if`, asked under the lock, agrees; resources under it stay."""
        removed = False

        def gone(existing: Resource | None) -> Resource | None:
            nonlocal removed
            removed = existing is not None and only_if(existing)
            return None if removed else existing

        self._change(resource_id, gone)
        return removed

    def rebuild_index(self) -> None:
        """Read every resource file again, and drop what killed writers left unfinished."""
        with self._lock(exclusive=True):
            self._files.sweep()
            self._index.discard()
            with suppress(files.NoSpaceLeft):  # asked without an index then, and rebuilt when there is space again
                self._index.rebuild(self._files.readable())

    # Runs

    def new_run(self, template_name: str) -> RunFolder:
        """A new run folder, alive (held by this process) until released."""
        return self._runs.new(template_name)

    def run(self, run_id: str) -> RunFolder:
        """The run of this id, or of an unambiguous beginning of it, or the newest for `last`; else `UsageError`."""
        return self._runs.get(run_id)

    def runs(self) -> tuple[RunFolder, ...]:
        """Every run, oldest first."""
        return tuple(self._runs.all())

    def unborn_runs(self) -> tuple[RunFolder, ...]:
        """Run folders whose creation was cut off (or is under way)."""
        return tuple(self._runs.unborn())

    # How a change is made

    def _change(self, resource_id: str, change: Callable[[Resource | None], _R]) -> _R:
        """Make one change: `change` gets the resource and returns what shall be there; None removes it."""
        key = resource_key(resource_id)
        with self._lock(exclusive=True):
            with suppress(files.NoSpaceLeft):
                self._reconcile()
            existing = self._files.read(resource_id)
            resource = change(existing)
            if resource == existing:
                return resource
            try:
                self._indexed(lambda: self._index.note(key))
            except files.NoSpaceLeft:
                self._index.discard()  # so that a full disk can still be emptied; the index is rebuilt later
            if resource is None:
                self._files.remove(resource_id)
            else:
                self._files.write(resource)
            with suppress(files.NoSpaceLeft, IndexDamaged):  # noted as pending, or discarded: the file counts
                self._index.store(key, resource)
        return resource

    def _reconcile(self) -> None:
        """Read again what a killed writer may have changed; the caller holds the lock exclusively."""
        for key in self._indexed(self._index.pending):
            resource = None
            with suppress(HostError):  # a damaged file is reported to who asks for it, and stops nobody else
                resource = self._files.read(key)
            self._index.store(key, resource)

    def _repair(self) -> None:
        with self._lock(exclusive=True):
            self._reconcile()

    def _indexed(self, question: Callable[[], _T]) -> _T:
        try:
            return question()
        except IndexDamaged:
            self._index.rebuild(self._files.readable())
            return question()

    @contextmanager
    def _lock(self, *, exclusive: bool) -> Iterator[None]:
        path = self.home / "locks" / "store"
        with files.translating("locking", path), locks.locked(path, exclusive=exclusive):
            yield


def _matching(resources: Iterable[Resource], type: str | None, prefix: str) -> list[Resource]:
    """What the index would select."""
    found = [
        resource
        for resource in resources
        if (type is None or resource.type.lower() == type.lower())
        and (not prefix or resource_key(resource.id).startswith(f"{prefix}/"))
    ]
    return sorted(found, key=lambda resource: resource_key(resource.id))
