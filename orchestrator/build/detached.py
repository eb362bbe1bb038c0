"""The supervisor of one run that belongs to nobody: `python -m orchestrator.build.detached`, a `Detached` on stdin.

A server starts it and may end, crash or start anew: this process is in a session of its own. It takes over the run's
folder (says `held` on its standard output), waits until this machine has room, then supervises as `aib build` does.
While it waits it answers the run's control socket itself.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from threading import Event

from orchestrator.build import control
from orchestrator.build.at_once import Stops
from orchestrator.build.job import Job
from orchestrator.build.slots import Need, Slots
from orchestrator.build.supervisor import CANCELLED, supervise
from orchestrator.build.template_status import settle
from orchestrator.record.events import Said
from orchestrator.record.journal import Journal
from orchestrator.record.messages import CANCELED
from orchestrator.record.record import finish_abandoned
from orchestrator.record.runs import RunFolder
from orchestrator.record.store import Store
from orchestrator.verbs.checkpoints import tidy_checkpoints
from orchestrator.views.customization_log import rewrite_logs

HELD = b"held\n"
LOG = "supervisor.log"
"""In the run's folder: what this process prints unexpectedly."""
WAITING = "Waiting until other builds leave this machine enough CPUs and memory"


@dataclass(frozen=True, slots=True)
class Detached:
    """What the process is told: the job, and what its build VM will take."""

    job: Job
    need: Need

    def to_lines(self) -> bytes:
        """Two lines: the job (which may hold secrets, so it is never a file), and the need."""
        need = json.dumps({"vcpus": self.need.vcpus, "memory_mib": self.need.memory_mib})
        return self.job.to_line() + need.encode() + b"\n"

    @classmethod
    def from_lines(cls, job: bytes, need: bytes) -> Detached:
        """The inverse; raises ValueError or KeyError on anything else."""
        return cls(Job.from_line(job), Need(**json.loads(need)))


def main() -> None:
    """Take over the run and carry it to its end; exits with the run's exit code."""
    stdin = sys.stdin.buffer
    told = Detached.from_lines(stdin.readline(), stdin.readline())
    store = Store(told.job.home)
    folder = store.run(told.job.run_id)
    stops = Stops()
    with stops.on_signals(), folder.locked():
        sys.stdout.buffer.write(HELD)
        sys.stdout.buffer.flush()
        _let_go_of_the_pipes()
        code = carry_out(told, store, folder, stops)
    tidy_checkpoints(store)
    if (log := folder.path / LOG).exists() and log.stat().st_size == 0:
        log.unlink()
    sys.exit(code)


def carry_out(told: Detached, store: Store, folder: RunFolder, stops: Stops) -> int:
    """Wait for room and build; the run's exit code."""
    stopped = Event()

    def cancel(_: object) -> dict[str, bool]:
        stops.stop()
        return {"ok": True}

    def stop(seconds: float) -> bool:
        return stopped.wait(seconds) or folder.cancel_asked.exists()

    def say_waiting() -> None:
        with Journal(folder.path) as journal:
            journal.emit(Said(WAITING))

    with ExitStack() as room:
        with control.serve(folder.path, {"cancel": cancel}), stops.telling(stopped.set):
            slots = Slots(store.home)
            granted = room.enter_context(slots.waited_for(told.need, stop, say_waiting))
        if granted:
            code = supervise(told.job, folder.path, lambda _: None, stops).exit_code
        else:
            finish_abandoned(folder.path, CANCELED, state="Canceled", exit_code=CANCELLED)
            rewrite_logs(folder.path)
            code = CANCELLED
        settle(store, folder)
        return code


def _let_go_of_the_pipes() -> None:
    """The server's ends of them may close at any time."""
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, sys.stdin.fileno())
    os.dup2(nothing, sys.stdout.fileno())
    os.close(nothing)


if __name__ == "__main__":
    main()
