"""Which checkpoints a plan may go on from."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hypervisor.errors import UsageError
from orchestrator.build.checkpoint_choice import BOOTED, candidates, find_step, keys_of, uncacheable
from orchestrator.plan.digests import chained, first_digest
from orchestrator.plan.model import MachinePlan, ResolvedSource, RunPlan, Step
from orchestrator.record.checkpoints import Checkpoint

SOURCE = ResolvedSource("PlatformImage", "a:b:c:1", "", "1", "ab" * 32, Path("/x"), "qcow2", 1 << 30)
MACHINE = MachinePlan("Standard_B1s", 1, 1024, 1, 1024, 1 << 30)


def plan_of(*kinds: str) -> RunPlan:
    steps = [Step(i, f"step {i}", "Customizing", kind, {"inline": [str(i)]}) for i, kind in enumerate(kinds)]
    return cast(
        RunPlan,
        SimpleNamespace(source=SOURCE, machine=MACHINE, steps=chained(first_digest(SOURCE, MACHINE), steps)),
    )


def kept(key: str, *, created: float = 1.0, oldest: float = 1.0, memory: bool = True) -> Checkpoint:
    values: dict[str, Any] = dict.fromkeys(("step", "parent", "lineage", "source", "fingerprint", "machine"), "")

    class Folder:
        def __truediv__(self, name: str) -> Any:
            return SimpleNamespace(exists=lambda: memory)

    return Checkpoint(
        id=f"{key[:8]}-{created}", folder=cast(Path, Folder()), key=key, created=created, oldest=oldest, uuid="",
        script_replaced=False, files={}, **values,
    )  # fmt: skip


def test_the_longest_prefix_comes_first_then_memory_then_the_newest() -> None:
    plan = plan_of("Shell", "File", "Generalize")
    first, second = plan.steps[0].digest, plan.steps[1].digest
    booted = kept(first_digest(SOURCE, MACHINE))
    old, new, bare = kept(first, created=1), kept(first, created=2), kept(first, created=3, memory=False)
    longest = kept(second)
    found = [each.checkpoint for each in candidates(plan, [booted, old, new, bare, longest], before=None, oldest=0)]
    assert found == [longest, new, old, bare, booted]


def test_nothing_of_another_plan_or_too_old_or_beyond_what_is_wanted() -> None:
    plan = plan_of("Shell", "Shell", "Generalize")
    first, second = (kept(step.digest) for step in plan.steps[:2])
    foreign, stale = kept("ff" * 32), kept(plan.steps[0].digest, oldest=0.5)
    found = list(candidates(plan, [first, second, foreign, stale], before=1, oldest=1.0))
    assert [(each.index, each.checkpoint) for each in found] == [(0, first)]
    assert list(candidates(plan, [first, second], before=0, oldest=0)) == []


def test_a_change_of_a_step_changes_all_keys_from_there_on() -> None:
    one, other = plan_of("Shell", "Shell"), plan_of("Shell", "File")
    same = set(keys_of(one)) & set(keys_of(other))
    assert {keys_of(one)[key] for key in same} == {BOOTED, 0}


def test_after_windows_update_and_generalize_nothing_is_kept() -> None:
    plan = plan_of("PowerShell", "WindowsUpdate", "PowerShell", "Generalize")
    assert sorted(keys_of(plan).values()) == [BOOTED, 0]
    assert all(uncacheable(plan.steps[index]) for index in (1, 3))


def test_a_step_is_found_by_name_and_number() -> None:
    plan = plan_of("Shell", "File")
    assert find_step(plan, "step 1", "--from") == 1
    assert find_step(plan, "1", "--from") == 0
    with pytest.raises(UsageError, match="--from step 9") as caught:
        find_step(plan, "step 9", "--from")
    assert "1 step 0, 2 step 1" in caught.value.hint
