"""The worker process of one run: `python -m orchestrator.build.worker`, a `Job` on standard input.

It does everything a run does and writes every fact into the run folder. It ends when the run ends, when it is asked
to (SIGTERM, the control socket), or when an attached supervisor goes away (end-of-file on standard input).
"""

from __future__ import annotations

import base64
import os
import signal
import sys
import threading
from contextlib import ExitStack
from types import FrameType

from hypervisor.deadline import CancelToken
from orchestrator.build import control
from orchestrator.build.ending import finished_by
from orchestrator.build.job import Job
from orchestrator.build.run import Run
from orchestrator.record.journal import Journal
from orchestrator.record.record import RecordWriter
from orchestrator.record.store import Store
from orchestrator.views.customization_log import CustomizationLog


def main() -> None:
    """Read the job, run it, exit with the run's exit code."""
    stdin = sys.stdin.buffer
    job = Job.from_line(stdin.readline())
    token = CancelToken()
    _cancel_on_signals(token)
    if job.attached:
        threading.Thread(target=_cancel_at_end_of_file, args=(stdin.fileno(), token), daemon=True).start()
    sys.exit(run_job(job, token))


def _cancel_on_signals(token: CancelToken) -> None:
    def cancel(_number: int, _frame: FrameType | None) -> None:
        token.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, cancel)


def _cancel_at_end_of_file(stdin: int, token: CancelToken) -> None:
    # Past the buffered reader: its lock, held by a daemon thread, would be fatal to the interpreter's own end.
    while os.read(stdin, 4096):
        pass
    token.cancel("cancelled because the command that started this run has ended")


def run_job(job: Job, token: CancelToken) -> int:
    """Execute `job` with its journal, record, log and control socket; returns the exit code."""
    store = Store(job.home)

    def cancel(_: object) -> dict[str, bool]:
        token.cancel()
        return {"ok": True}

    with ExitStack() as stack:
        folder = stack.enter_context(store.run(job.run_id))
        journal = stack.enter_context(Journal(folder.path))
        writer = RecordWriter(folder.path)
        journal.subscribe(writer)
        journal.subscribe(CustomizationLog(folder.path))
        run = Run(job, store, folder, journal, token, writer)

        def screenshot(_: object) -> dict[str, str]:
            return {"png": base64.b64encode(run.screenshot()).decode()}

        stack.enter_context(control.serve(folder.path, {"cancel": cancel, "screenshot": screenshot}))
        finished = finished_by(run)
        journal.emit(finished)
        return finished.exit_code


if __name__ == "__main__":
    main()
