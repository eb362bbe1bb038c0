"""Stop a run from another terminal."""

from __future__ import annotations

import contextlib

from hypervisor.deadline import Deadline
from hypervisor.errors import HostError, InputError
from orchestrator.build import control
from orchestrator.record.store import Store
from orchestrator.verbs.runs import find_run

PATIENCE = 15.0
"""Seconds until a cancelled run must have ended: its worker undoes everything within ten."""


def cancel(store: Store, name: str) -> str:
    """Ask the run that `name` means (see `find_run`) to stop and wait until it has; returns the run's id.

    The worker is asked at once; one that does not hear (it hangs, or is about to start) is ended by its supervisor.

    Raises `UsageError` for a run that is not there, `InputError` for one that has ended, `HostError` for one that
    does not end.
    """
    folder = find_run(store, name)
    if not folder.alive():
        raise InputError(f"run {folder.id} has ended already", hint=f"aib show {folder.id}")
    folder.cancel_asked.touch()
    with contextlib.suppress(InputError):
        if error := control.ask(folder.path, {"do": "cancel"}).get("error"):
            raise HostError(f"run {folder.id} refused: {error}")
    limit = Deadline.after(PATIENCE, f"the {PATIENCE:.0f} s in which a cancelled run must end")
    limit.wait_until(lambda: not folder.alive(), f"waiting for run {folder.id} to end")
    return folder.id
