"""What a customizer changed in the image: the disks of two checkpoints, read and compared."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from hypervisor import accel, appliance
from hypervisor.connection import open_hypervisor
from hypervisor.deadline import Deadline
from hypervisor.errors import InputError
from hypervisor.inspect import Inspection, Request, read
from hypervisor.spec import DiskSpec
from orchestrator.build import changes
from orchestrator.build.changes import Changes
from orchestrator.build.checkpoint_choice import BOOTED
from orchestrator.build.requirements import require_build_extra
from orchestrator.build.visit import Place, checkpoint_at, place, plan_of
from orchestrator.record import files
from orchestrator.record.checkpoints import DISK, Checkpoint
from orchestrator.record.store import Store
from orchestrator.verbs.runs import find_run

LONGEST_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Compared:
    """Two moments, in words, and what differs between them."""

    before: str
    after: str
    changes: Changes


def diff(
    store: Store,
    run: str,
    step: str,
    *,
    since: str = "",
    source: bool = False,
    against: str = "",
    everything: bool = False,
    say: Callable[[str], None],
) -> Compared:
    """Compare the disk after `step` with the one before it.

    `since`: with the one after that step; `source`: with the booted source image; `against`: with the one after the
    same step of another run. Raises `UsageError` for what is not there, `InputError` when no whole checkpoint
    was kept.
    """
    require_build_extra()
    plan = plan_of(find_run(store, run))
    after = place(plan, step, "after")
    if against:
        before = place(plan_of(find_run(store, against)), step, "after")
    elif source:
        before = Place(plan, BOOTED)
    else:
        before = place(plan, since, "after") if since else place(plan, step, "before")
    sides = _read(store, (before, after), say)
    found = changes.compare(*sides, everything=everything)
    name = f"{before.name} of run {against}" if against else before.name
    return Compared(name, after.name, found)


def _read(store: Store, places: Sequence[Place], say: Callable[[str], None]) -> list[Inspection]:
    """The disks as they were at these moments, read at once by an inspection VM each; no checkpoint is written."""
    deadline = Deadline.after(LONGEST_SECONDS, "the hour that reading a disk may take")
    tools = appliance.ensure(store.home / "appliance", deadline, say)
    chosen = accel.choose("auto", kernel=tools.kernel, cache=store.home / "accel")
    checkpoints = [checkpoint_at(store, where).checkpoint for where in places]
    for where in places:
        say(f"Reading the disk: {where.name}")
    with ExitStack() as stack:
        for where, checkpoint in zip(places, checkpoints, strict=True):
            stack.enter_context(store.reading(where.plan.source.digest))
            stack.enter_context(store.checkpoints.held(checkpoint))
            _require_whole(store, checkpoint)
        works = [stack.enter_context(_folder(store.home / "sessions")) for _ in places]
        hypervisor = stack.enter_context(open_hypervisor(cache=store.home / "libvirt"))
        pool = stack.enter_context(ThreadPoolExecutor(len(places), thread_name_prefix="reading"))

        def one(checkpoint: Checkpoint, work: Path) -> Inspection:
            hypervisor.discard(work)
            return read(
                hypervisor,
                DiskSpec(checkpoint.disk, "qcow2"),
                # The guest was running: what its journal holds belongs to the disk.
                Request(changes.READ, largest=changes.LARGEST, replay=True),
                appliance=tools,
                work=work,
                deadline=deadline,
                accel=chosen.name,
            )

        return list(pool.map(one, checkpoints, works))


def _require_whole(store: Store, checkpoint: Checkpoint) -> None:
    for link in store.checkpoints.chain(checkpoint):
        if damage := link.damage([DISK]):
            raise InputError(
                f"the checkpoint {link.id} is damaged: {damage}",
                hint=f"`aib checkpoints remove {link.id}`, then build again",
            )


@contextmanager
def _folder(parent: Path) -> Iterator[Path]:
    work = parent / secrets.token_hex(8)
    with files.translating("creating", work):
        work.mkdir(mode=0o700, parents=True)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
