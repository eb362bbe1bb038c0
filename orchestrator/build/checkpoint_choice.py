"""Which checkpoints a plan could go on from, the best first; pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from hypervisor.errors import UsageError
from orchestrator.plan.digests import first_digest
from orchestrator.plan.model import RunPlan, Step
from orchestrator.record.checkpoints import Checkpoint

BOOTED = -1
"""The index of checkpoint 0: booted and connected, before the first step."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A checkpoint taken after the step `index` of this plan (`BOOTED`: before the first)."""

    index: int
    checkpoint: Checkpoint


def uncacheable(step: Step) -> str:
    """Why the state after this step is not kept; "" when it is."""
    if step.kind == "Generalize":
        return "a generalized system is not a place to go on from"
    if step.kind == "WindowsUpdate":
        return "what Windows Update finds changes from day to day"
    return ""


def keys_of(plan: RunPlan) -> dict[str, int]:
    """Digest -> step index of every point of the plan at which a checkpoint may stand, in order."""
    keys = {first_digest(plan.source, plan.machine): BOOTED}
    for step in plan.steps:
        if uncacheable(step):
            break
        keys[step.digest] = step.index
    return keys


def candidates(
    plan: RunPlan, checkpoints: Iterable[Checkpoint], *, before: int | None, oldest: float
) -> Iterator[Candidate]:
    """The checkpoints of this plan, the longest prefix first, with memory before without, the newest first.

    `before`: only those that leave the step of this index to be run. `oldest`: no step in it was run before that time
    (seconds since 1970).
    """
    keys = keys_of(plan)
    found = [
        Candidate(keys[one.key], one)
        for one in checkpoints
        if one.key in keys and one.oldest >= oldest and (before is None or keys[one.key] < before)
    ]
    found.sort(key=lambda one: (one.index, one.checkpoint.memory is not None, one.checkpoint.created), reverse=True)
    yield from found


def find_step(plan: RunPlan, wanted: str, option: str) -> int:
    """The index of the step with this name or number (from 1); `UsageError` with the steps there are."""
    for step in plan.steps:
        if wanted == step.name or wanted == str(step.index + 1):
            return step.index
    steps = ", ".join(f"{step.index + 1} {step.name}" for step in plan.steps)
    raise UsageError(f"{option} {wanted}: the plan has no such step", hint=f"its steps: {steps}")
