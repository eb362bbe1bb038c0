"""What a plan cannot promise, because it differs from run to run: the `varies` of its document."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from orchestrator.plan.document import script_names
from orchestrator.plan.gallery_versions import next_version
from orchestrator.plan.model import RunPlan
from orchestrator.record import arm_ids, galleries
from orchestrator.record.durations import Durations, Known
from orchestrator.record.store import Store
from orchestrator.template.model import SharedImageTarget


def varies(plan: RunPlan, store: Store, durations: Durations, now: datetime) -> dict[str, Any]:
    """Durations of earlier runs against the budget, versions chosen while distributing, random names."""
    boot = durations.boot(plan.source.digest)
    after = durations.after_steps(plan.template_name)
    steps = [_step(plan, index, durations) for index in range(len(plan.steps))]
    known = [boot, after] if not plan.source_validation_only else [boot]
    total = sum(each.seconds for each in known if each) + sum(step["seconds"] or 0.0 for step in steps)
    complete = all(known) and all(step["seconds"] is not None for step in steps)
    return {
        "time": {
            "boot": _json(boot),
            "steps": steps,
            "afterSteps": _json(after),
            "knownSeconds": round(total, 3),
            "complete": complete,
            "budgetShare": round(total / plan.budget, 4) if plan.budget else None,
        },
        "versions": list(_versions(plan, store, now)),
        "scriptNames": script_names(plan.source.os),
    }


def _step(plan: RunPlan, index: int, durations: Durations) -> dict[str, Any]:
    step = plan.steps[index]
    found = durations.step(plan.template_name, step.kind, step.name, step.digest)
    if found is None:
        return {"index": index, "seconds": None, "runs": 0, "known": None}
    return {"index": index, "seconds": found[0].seconds, "runs": found[0].runs, "known": found[1]}


def _versions(plan: RunPlan, store: Store, now: datetime) -> Iterator[dict[str, Any]]:
    """The version that each gallery distributor would get now; several into one definition follow each other."""
    promised: dict[str, set[tuple[int, int, int]]] = {}
    for planned in plan.distributions:
        target = planned.target
        if not isinstance(target, SharedImageTarget) or planned.version:
            continue
        definition = arm_ids.parse(planned.artifact_id)
        taken = promised.setdefault(
            planned.artifact_id.lower(),
            {
                arm_ids.parse_version(found.name)
                for found in galleries.versions(store, definition)
                if not galleries.is_stale(store, found)
            },
        )
        version = next_version(target.versioning, taken, now, plan.source.version)
        taken.add(version)
        yield {
            "runOutputName": target.run_output_name,
            "version": ".".join(map(str, version)),
            "at": now.isoformat(timespec="seconds"),
        }


def _json(known: Known | None) -> dict[str, Any] | None:
    return {"seconds": known.seconds, "runs": known.runs} if known else None
