"""The digest chain: two steps with one digest find the guest in the same state.

A step's digest is sha256(previous digest, everything that can change the result). What cannot change it (its name, the
address its script came from) stays out, so that renaming a step or moving a script invalidates nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable
from dataclasses import replace

from orchestrator.plan.model import MachinePlan, ResolvedSource, Step

SCHEME = "aib-chain-1"
"""Changes whenever a step of the same data would act differently in a later version of aib."""


def first_digest(source: ResolvedSource, machine: MachinePlan) -> str:
    """What every chain begins with: the source image, and the machine as a guest can see it."""
    return _digest(
        [
            SCHEME,
            source.digest or f"{source.resource_id}:{source.version}",
            machine.vcpus,
            machine.memory_mib,
            machine.os_disk_bytes,
            machine.firmware,
            machine.network,
        ]
    )


def failed(digest: str) -> str:
    """What stands for the state in which a failed step of this digest left the guest."""
    return _digest([digest, "failed"])


def chained(first: str, steps: Iterable[Step], excused: Collection[str] = ()) -> tuple[Step, ...]:
    """The steps with their digests, each resting on the one before.

    A step whose digest is among the `excused` may fail: what follows rests on the state in which it failed.
    """
    previous, done = first, []
    for step in steps:
        payload = step.payload.sha256 if step.payload else ""
        previous = _digest([previous, step.phase, step.kind, dict(step.settings), payload])
        may_fail = previous in excused
        previous = failed(previous) if may_fail else previous
        done.append(replace(step, digest=previous, excused=may_fail))
    return tuple(done)


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
