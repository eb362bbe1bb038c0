"""Going back to a moment of a run: its checkpoint restored in this process, looked at, and thrown away."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal

from hypervisor import accel, appliance
from hypervisor.connection import open_hypervisor
from hypervisor.deadline import Deadline
from hypervisor.errors import InputError
from orchestrator.build.build_vm import BuildVm
from orchestrator.build.checkpoint_choice import BOOTED, Candidate, candidates, find_step, uncacheable
from orchestrator.build.linux_guest import LinuxGuest
from orchestrator.build.session import CachePolicy, Starter
from orchestrator.plan import digests
from orchestrator.plan.model import RunPlan
from orchestrator.plan.plan_json import from_json
from orchestrator.record import files
from orchestrator.record.runs import RunFolder
from orchestrator.record.store import Store

Moment = Literal["before", "after", "failed"]


@dataclass(frozen=True, slots=True)
class Place:
    """A moment of a run: after the step `index` of its plan (`BOOTED`: before the first)."""

    plan: RunPlan
    index: int
    failed: bool = False
    """As the step left the guest when it failed (kept by `--on-error ask`)."""

    @property
    def name(self) -> str:
        """The moment in words."""
        if self.failed:
            return f"as {self.plan.steps[self.index].name} failed"
        return "the booted source image" if self.index == BOOTED else f"after {self.plan.steps[self.index].name}"


def plan_of(folder: RunFolder) -> RunPlan:
    """What the run did; raises `InputError` for a run that never came to plan."""
    data = files.read_json(folder.plan)
    if data is None:
        raise InputError(f"run {folder.id} failed before it had a plan", hint=f"aib show {folder.id}")
    return from_json(data)


def place(plan: RunPlan, step: str, moment: Moment) -> Place:
    """The moment before, after or at the failure of a step (name or number from 1).

    Raises `UsageError` when there is no such step.
    """
    index = find_step(plan, step, "--at")
    return Place(plan, index - 1 if moment == "before" else index, failed=moment == "failed")


def checkpoint_at(store: Store, where: Place) -> Candidate:
    """The best checkpoint of that moment; raises `InputError` when none was kept."""
    if where.plan.source.os == "windows":
        raise InputError(
            f"{where.plan.source.requested} is a Windows image: no checkpoints of its builds are kept",
            hint="`--on-error abort` keeps the build VM after a failure",
        )
    every = store.checkpoints.all()
    if where.failed:
        step = where.plan.steps[where.index]
        key = step.digest if step.excused else digests.failed(step.digest)
        kept = [one for one in every if one.key == key]
        if not kept:
            raise InputError(f"there is no checkpoint: {where.name}", hint="`--on-error ask` keeps it")
        return Candidate(where.index, kept[-1])
    for candidate in candidates(where.plan, every, before=where.index + 1, oldest=0.0):
        if candidate.index == where.index:
            return candidate
    why = uncacheable(where.plan.steps[where.index]) if where.index != BOOTED else ""
    raise InputError(
        f"there is no checkpoint: {where.name}{' (' + why + ')' if why else ''}",
        hint="only steps that succeeded leave one; `aib build TEMPLATE --until STEP` makes those up to a step anew",
    )


@contextmanager
def visiting(
    store: Store, where: Place, deadline: Deadline, *, say: Callable[[str], None], ssh_port: int = 0
) -> Iterator[BuildVm]:
    """A build VM as it was at that moment. Whatever is done to it, the checkpoint stays what it is.

    Raises `InputError` when there is no checkpoint or its source image was removed, `BuildError` when it cannot be gone
    on from.
    """
    candidate = checkpoint_at(store, where)
    folder = RunFolder(store.home / "sessions" / secrets.token_hex(8))
    tools = appliance.ensure(store.home / "appliance", deadline, say)
    chosen = accel.choose("auto", kernel=tools.kernel, cache=store.home / "accel")
    with files.translating("creating", folder.work):
        folder.work.mkdir(mode=0o700, parents=True)
    with (
        store.reading(where.plan.source.digest),
        ExitStack() as hold,
        open_hypervisor(cache=store.home / "libvirt") as hypervisor,
    ):
        hypervisor.discard(folder.path)
        starter = Starter(
            hypervisor=hypervisor,
            plan=where.plan,
            system=LinuxGuest(),
            tools=tools,
            folder=folder,
            checkpoints=store.checkpoints,
            policy=CachePolicy(),
            accel=chosen.name,
            ssh_port=ssh_port,
            deadline=deadline,
            hold=hold,
            say=say,
            phase=lambda name, _: None,
            hide=lambda identity: None,
        )
        with starter.resumed_at(candidate) as session:
            yield session.vm
