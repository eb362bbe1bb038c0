"""Runs one build in a worker process and follows it: shows its events, passes on requests to stop, has the last word.

The worker does everything; the supervisor survives it. When the worker dies without a last event, the supervisor
writes the terminal record.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from orchestrator.build.at_once import Stops
from orchestrator.build.job import Job
from orchestrator.build.template_status import settle
from orchestrator.build.worker_process import started
from orchestrator.record.events import RunFinished, Stamped
from orchestrator.record.reader import read_events
from orchestrator.record.record import finish_abandoned
from orchestrator.record.runs import RunFolder
from orchestrator.record.store import Store
from orchestrator.views.customization_log import rewrite_logs

WORKER_LOG = "worker.log"
CANCELLED = 130
FAILED = 1
POLL = 0.2


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended: our exit code, and the last event."""

    run_id: str
    folder: Path
    finished: RunFinished
    stopped: bool = False
    """Whether a signal asked it to stop, even where the run came to its end first."""

    @property
    def exit_code(self) -> int:
        """0 when the run succeeded."""
        return self.finished.exit_code


def supervise(job: Job, folder: Path, show: Callable[[Stamped], None], stops: Stops) -> Ended:
    """Execute `job` in a worker and return how it ended; `show` gets every event as it is written.

    Who asks `stops` to stop ends the run, who asks twice ends the worker at once. A run that somebody else asked to
    stop (`RunFolder.cancel_asked`) is ended here when its worker does not hear.
    """
    ended = threading.Event()
    last: list[RunFinished] = []

    def follow() -> None:
        for stamped in read_events(folder / "events.jsonl", follow=True, stop=ended.is_set):
            show(stamped)
            if isinstance(stamped.event, RunFinished):
                last.append(stamped.event)

    follower = threading.Thread(target=follow, name="follow", daemon=True)
    with started(job, folder / WORKER_LOG) as worker, stops.telling(worker.ask_to_stop):
        follower.start()
        asked = RunFolder(folder).cancel_asked
        while not worker.wait(POLL):
            if not worker.asked_to_stop and asked.exists():
                worker.ask_to_stop()
        code = worker.exit_code()
        ended.set()
        follower.join()
        canceled = worker.asked_to_stop
    if not last:
        state, exit_code = ("Canceled", CANCELLED) if canceled else ("Failed", FAILED)
        reason = _how_it_died(code, folder)
        last.append(finish_abandoned(folder, reason, state=state, exit_code=exit_code, show=show))
        rewrite_logs(folder)
        settle(store := Store(job.home), store.run(job.run_id))
    return Ended(job.run_id, folder, last[-1], stops.asked)


def _how_it_died(code: int, folder: Path) -> str:
    if code < 0:
        return f"the worker process was ended by {signal.Signals(-code).name}"
    return f"the worker process ended unexpectedly (exit code {code}); see {folder / WORKER_LOG}"
