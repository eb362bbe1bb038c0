"""Which step broke it: a command tried in the build VM after ever fewer steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hypervisor.deadline import Deadline
from hypervisor.errors import InputError
from orchestrator.build.checkpoint_choice import BOOTED
from orchestrator.build.requirements import require_build_extra
from orchestrator.build.visit import Place, checkpoint_at, plan_of, visiting
from orchestrator.plan.model import RunPlan
from orchestrator.record.store import Store
from orchestrator.verbs.runs import find_run

LONGEST_SECONDS = 24 * 3600.0
CHECK_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Bisected:
    """The first step (index from 0) after which the check fails. `tried`: index -> exit code (None: it was ended)."""

    plan: RunPlan
    index: int
    tried: dict[int, int | None]

    @property
    def step(self) -> str:
        """The step's name."""
        return self.plan.steps[self.index].name


def bisect(store: Store, run: str, check: str, *, say: Callable[[str], None]) -> Bisected:
    """Find the step after which `check` exits with another code than 0.

    Raises `InputError` when the check fails on the source image already, or succeeds after the last step that has a
    checkpoint; `UsageError` for an unknown run.
    """
    require_build_extra()
    plan = plan_of(find_run(store, run))
    deadline = Deadline.after(LONGEST_SECONDS, "the day that a search may last")
    places = [Place(plan, index) for index in range(BOOTED, len(plan.steps)) if _kept(store, Place(plan, index))]
    if len(places) < 2:
        raise InputError(f"run {run} has too few checkpoints to search", hint="`aib build TEMPLATE` makes them")
    tried: dict[int, int | None] = {}

    def good(at: int) -> bool:
        where = places[at]
        with visiting(store, where, deadline, say=lambda _: None) as vm:
            limit = deadline.limited(CHECK_SECONDS, "the hour that a check may take")
            tried[where.index] = vm.communicator.run(check, deadline=limit).exit_code
        say(f"{where.name}: exit code {tried[where.index]}")
        return tried[where.index] == 0

    if not good(0):
        raise InputError(f"the check fails at the beginning already ({places[0].name})", hint="try it: aib shell")
    if good(len(places) - 1):
        raise InputError(f"the check succeeds at the end as well ({places[-1].name})", hint="try it: aib shell")
    well, ill = 0, len(places) - 1
    while ill - well > 1:
        middle = (well + ill) // 2
        well, ill = (middle, ill) if good(middle) else (well, middle)
    return Bisected(plan, places[ill].index, tried)


def _kept(store: Store, where: Place) -> bool:
    try:
        checkpoint_at(store, where)
    except InputError:
        return False
    return True
