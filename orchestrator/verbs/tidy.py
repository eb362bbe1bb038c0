"""What killed runs have left is put right by the next call: machines, folders, and the last word in their records."""

from __future__ import annotations

import shutil

from hypervisor.errors import HostError
from hypervisor.sweep import sweep
from orchestrator.build.template_status import settle
from orchestrator.record import files
from orchestrator.record.record import finish_abandoned
from orchestrator.record.runs import RunFolder
from orchestrator.record.store import Store
from orchestrator.views.customization_log import rewrite_logs

ENDED_STATES = frozenset({"Succeeded", "PartiallySucceeded", "Failed", "Canceled"})


def tidy(store: Store) -> list[str]:
    """End what dead owners left running and close the records of dead runs; returns the ids of those runs."""
    sweep()
    closed = []
    for run in store.runs():
        if _unfinished(run):
            with run.if_dead() as dead:
                if dead:
                    finish_abandoned(run.path, "every process of this run was killed")
                    rewrite_logs(run.path)
                    settle(store, run)
                    shutil.rmtree(run.work, ignore_errors=True)
                    closed.append(run.id)
    return closed


def _unfinished(run: RunFolder) -> bool:
    try:
        record = files.read_json(run.record) or {}
    except HostError:  # a damaged record is written anew from the events
        return True
    return record.get("lastRunStatus", {}).get("runState") not in ENDED_STATES
