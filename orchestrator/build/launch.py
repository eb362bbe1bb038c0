"""Starting the supervisor of a run that shall outlive whoever starts it."""

from __future__ import annotations

import select
import subprocess
import sys
import threading

from hypervisor.errors import HostError
from orchestrator.build.detached import HELD, LOG, Detached
from orchestrator.record.runs import RunFolder

PATIENCE = 60.0
"""Seconds that a Python process may take to begin on a busy machine."""


def launch(told: Detached, folder: RunFolder) -> None:
    """Hand the run, whose folder the caller holds, over to a process of its own; the caller's hold is released.

    Raises `HostError` when that process does not take over: the folder is still the caller's then, and no build runs.
    """
    log = folder.path / LOG
    with log.open("ab") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "orchestrator.build.detached"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=sink,
            start_new_session=True,
        )
    assert process.stdin is not None and process.stdout is not None
    try:
        with process.stdin as stdin:
            stdin.write(told.to_lines())
    except BrokenPipeError:
        pass  # it died before it read its job: it will not say that it holds the run
    with process.stdout as stdout:
        ready, _, _ = select.select([stdout], [], [], PATIENCE)
        held = bool(ready) and stdout.readline() == HELD
    if not held:
        process.kill()
        code = process.wait()
        raise HostError(f"the process that supervises the run did not begin (exit code {code})", hint=f"see {log}")
    folder.release()
    # Somebody must take note of its end, or it stays in the list of processes for as long as this one.
    threading.Thread(target=process.wait, name=f"reap {folder.id}", daemon=True).start()
