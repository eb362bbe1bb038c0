"""The checkpoints of the store: which there are, what they take up, keeping them below a size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from hypervisor.errors import UsageError
from orchestrator.plan.config import Config
from orchestrator.record.checkpoints import Checkpoint, Checkpoints
from orchestrator.record.store import Store


@dataclass(frozen=True, slots=True)
class Shown:
    """One line of `aib checkpoints`. `size` in bytes as allocated on the disk."""

    checkpoint: Checkpoint
    size: int

    def to_json(self) -> dict[str, Any]:
        """The object that `--json` lists."""
        one = self.checkpoint
        return {
            "id": one.id,
            "after": one.step,
            "created": _time(one.created),
            "oldestStep": _time(one.oldest),
            "parent": one.parent,
            "lineage": one.lineage,
            "source": one.source,
            "key": one.key,
            "memory": one.memory is not None,
            "bytes": self.size,
        }


def list_checkpoints(store: Store) -> list[Shown]:
    """Every checkpoint, the oldest first."""
    return [Shown(one, one.allocated()) for one in store.checkpoints.all()]


def remove(store: Store, ids: tuple[str, ...]) -> Iterator[Shown]:
    """Remove these checkpoints and what rests on them (all of them when none is named), except what is in use.

    Raises `UsageError` when there is no such checkpoint.
    """
    every = store.checkpoints.all()
    known = {one.id for one in every}
    if unknown := [one for one in ids if one not in known]:
        raise UsageError(f"there is no checkpoint {unknown[0]}", hint="`aib checkpoints` lists them")
    doomed = set(ids) or known
    for one in every:  # parents come before their children
        if one.parent in doomed:
            doomed.add(one.id)
    for one in reversed(every):
        if one.id in doomed:
            size = one.allocated()
            if store.checkpoints.remove(one):
                yield Shown(one, size)
    for folder in store.checkpoints.debris():
        store.checkpoints.remove_debris(folder)


@dataclass(frozen=True, slots=True)
class Freed:
    """What keeping below the cap removed: a memory, or a whole checkpoint. `size` in bytes."""

    what: str
    checkpoint: Checkpoint
    size: int


def trim(checkpoints: Checkpoints, cap: int, *, dry_run: bool = False) -> Iterator[Freed]:
    """Bring the checkpoints below `cap` bytes: memories first, then disks that nothing rests on, the least used first.

    What somebody uses stays, whatever the cap says.
    """
    total = sum(one.allocated() for one in checkpoints.all())
    for what, sizes, remove in (
        ("memory of a checkpoint", _memory_size, checkpoints.drop_memory),
        ("checkpoint", Checkpoint.allocated, checkpoints.remove),
    ):
        for one in _leaves_first(checkpoints):
            if total <= cap:
                return
            size = sizes(one)
            if size and (dry_run or remove(one)):
                total -= size
                yield Freed(what, one, size)


def tidy_checkpoints(store: Store) -> None:
    """After a build: what dead runs were writing goes, and what is above the cap that the configuration sets."""
    cap = Config.load(store.home).checkpoints_max
    for folder in store.checkpoints.debris():
        store.checkpoints.remove_debris(folder)
    for _ in trim(store.checkpoints, cap):
        pass


def _leaves_first(checkpoints: Checkpoints) -> list[Checkpoint]:
    """The least used first, but a child always before its parent."""
    every = checkpoints.all()
    used = {one.id: one.last_used for one in every}
    for one in reversed(every):  # a parent is at least as young as its children
        if one.parent in used:
            used[one.parent] = max(used[one.parent], used[one.id])
    children_last = {one.id: place for place, one in enumerate(every)}
    return sorted(every, key=lambda one: (used[one.id], -children_last[one.id]))


def _memory_size(one: Checkpoint) -> int:
    memory = one.memory
    return memory.stat().st_blocks * 512 if memory else 0


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
