"""Reclaim space: what dead runs and killed processes left, disks that no image refers to, old fetched files.

Nothing that somebody has locked is touched: living runs, layers that are read or being added, files being written.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.record import arm_ids, files, galleries
from orchestrator.record.layers import remove_unlocked, unlocked
from orchestrator.record.run_outputs import submission
from orchestrator.record.runs import RunFolder
from orchestrator.record.store import Store
from orchestrator.verbs.checkpoints import trim

DAY = 24 * 3600.0
_YOUNG = 3600.0
"""Seconds for which a fetched file is left alone in any case: whoever fetched it may be about to start a run."""
_ABANDONED = DAY
"""Seconds after which an import or download that nobody writes to any more has been given up."""
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Reclaimed:
    """Something that was removed (or would be). `size` is what it took up on the disk, in bytes."""

    what: str
    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Limits:
    """What may go. `unused_for` seconds and `fetched_bytes` (None: any) are for fetched files, the least used first."""

    unused_for: float = 30 * DAY
    fetched_bytes: int | None = None
    checkpoint_bytes: int | None = None
    """So much may checkpoints take up (None: any); memories go first, then the least used."""
    artifacts: bool = False
    """Also the exported disks in the folders of runs that have ended; what was distributed stays."""


def collect(store: Store, limits: Limits | None = None, *, dry_run: bool = False) -> Iterator[Reclaimed]:
    """Remove what nobody needs, and tell of each thing; with `dry_run` only tell."""
    limits = limits or Limits()
    if not dry_run:
        store.rebuild_index()
    yield from _runs(store, dry_run=dry_run, artifacts=limits.artifacts)
    yield from _reservations(store, dry_run=dry_run)
    living = [run for run in store.runs() if run.alive()]
    in_use = frozenset(digest for run in living for digest in _DIGEST.findall(_plan(run)))
    yield from _layers(store, in_use, dry_run=dry_run)
    yield from _unfinished(store, dry_run=dry_run)
    yield from _checkpoints(store, limits.checkpoint_bytes, dry_run=dry_run)
    if all(_plan(run) for run in living):  # a run that still plans may have fetched anything
        yield from _fetched(store, in_use | _submitted(store), limits, dry_run=dry_run)


def _submitted(store: Store) -> frozenset[str]:
    """Digests of the scripts and files that submitted templates will be run with."""
    templates = store.list(arm_ids.TEMPLATE)
    return frozenset(digest for each in templates for digest in submission(each).get("payloads", {}).values())


def _plan(run: RunFolder) -> str:
    try:
        return run.plan.read_text(errors="replace")
    except FileNotFoundError:
        return ""


def _runs(store: Store, *, dry_run: bool, artifacts: bool) -> Iterator[Reclaimed]:
    """What dead runs left: run folders that never came to be, work files, unfinished exports, login keys."""
    for run in store.unborn_runs():
        with run.if_dead() as dead:
            if dead:
                yield from _remove("unfinished run folder", [run.path], shutil.rmtree, dry_run=dry_run)
    for run in store.runs():
        with run.if_dead() as dead:
            if not dead:
                continue
            left = [*_inside(run.work), *run.path.glob(f"{files.PARTIAL}*"), *run.path.glob("login_key")]
            kept = _inside(run.artifacts)
            left += kept if artifacts else [path for path in kept if path.name.startswith(".")]
            yield from _remove("left by a run", left, _remove_tree, dry_run=dry_run)


def _reservations(store: Store, *, dry_run: bool) -> Iterator[Reclaimed]:
    """Gallery versions whose run died before it had published them."""
    versions = store.list(arm_ids.IMAGE_VERSION)
    stale = [version for version in versions if galleries.is_stale(store, version)]
    for version in stale if dry_run else galleries.release_stale(store, stale):
        yield Reclaimed("reserved by a dead run", version.id, 0)


def _layers(store: Store, in_use: frozenset[str], *, dry_run: bool) -> Iterator[Reclaimed]:
    """Disks that no resource refers to; a parent goes after its last child."""
    removed = True
    while removed:
        removed = False
        needed = store.referenced() | in_use
        for layer in [layer for layer in store.layers.all() if layer.digest not in needed]:
            size = _allocated(layer.path)
            if unlocked(layer.path) if dry_run else store.remove_layer(layer.digest):
                removed = not dry_run
                yield Reclaimed("disk of no image", layer.path.name, size)
    debris = [path for path in store.layers.debris() if unlocked(path)]
    yield from _remove("unfinished disk", debris, remove_unlocked, dry_run=dry_run)


def _unfinished(store: Store, *, dry_run: bool) -> Iterator[Reclaimed]:
    """VHDs whose writer was killed; imports and downloads that were given up."""
    vhds = files.walk(store.home / "vhds")
    partial = [path for path in vhds if path.name.startswith(files.PARTIAL) and unlocked(path)]
    yield from _remove("unfinished VHD", partial, remove_unlocked, dry_run=dry_run)
    for folder in ("incoming", "downloads"):
        given_up = [path for path in _inside(store.home / folder) if time.time() - _last_write(path) > _ABANDONED]
        yield from _remove("given up", given_up, _remove_tree, dry_run=dry_run)


def _checkpoints(store: Store, cap: int | None, *, dry_run: bool) -> Iterator[Reclaimed]:
    """What dead runs were writing, checkpoints whose source image is gone, and what is above the cap."""
    checkpoints = store.checkpoints
    yield from _remove("unfinished checkpoint", checkpoints.debris(), checkpoints.remove_debris, dry_run=dry_run)
    for one in reversed(checkpoints.all()):
        if store.layer(one.source) is None:
            size = one.allocated()
            if dry_run or checkpoints.remove(one):
                yield Reclaimed("checkpoint of a removed image", one.id, size)
    if cap is not None:
        for freed in trim(checkpoints, cap, dry_run=dry_run):
            yield Reclaimed(freed.what, freed.checkpoint.id, freed.size)


def _fetched(store: Store, in_use: frozenset[str], limits: Limits, *, dry_run: bool) -> Iterator[Reclaimed]:
    """Fetched scripts and files that were not used for long, and the least used of what is above the size cap."""
    now = time.time()
    found = [path for path in _inside(store.home / "fetched") if _DIGEST.fullmatch(path.name)]
    total = sum(map(_allocated, found))
    for path in sorted(found, key=_last_use):
        unused_for, size = now - _last_use(path), _allocated(path)
        above = limits.fetched_bytes is not None and total > limits.fetched_bytes
        if path.name in in_use or unused_for < _YOUNG or not (above or unused_for > limits.unused_for):
            continue
        for reclaimed in _remove("fetched", [path], remove_unlocked, dry_run=dry_run):
            total -= size
            yield reclaimed


def _remove(
    what: str, paths: Iterable[Path], remove: Callable[[Path], object], *, dry_run: bool
) -> Iterator[Reclaimed]:
    for path in paths:
        size = _size(path)
        with files.translating("removing", path):
            if dry_run or remove(path) is not False:
                yield Reclaimed(what, str(path), size)


def _remove_tree(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _inside(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _tree(path: Path) -> list[Path]:
    return [path, *files.walk(path)] if path.is_dir() and not path.is_symlink() else [path]


def _size(path: Path) -> int:
    return sum(map(_allocated, _tree(path)))


def _last_write(path: Path) -> float:
    return max((one.lstat().st_mtime for one in _tree(path) if one.exists()), default=time.time())


def _last_use(path: Path) -> float:
    status = path.stat()
    return max(status.st_atime, status.st_mtime)


def _allocated(path: Path) -> int:
    try:
        return path.lstat().st_blocks * 512
    except FileNotFoundError:
        return 0
