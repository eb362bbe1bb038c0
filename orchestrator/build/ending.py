"""How a run ends: every way out of it becomes one `RunFinished` in the service's words."""

from __future__ import annotations

import time
import traceback

from hypervisor.errors import AibError, BuildError, Cancelled, DeadlineExceeded
from orchestrator.build.run import Executed, Run
from orchestrator.record.events import RunFinished, Said
from orchestrator.record.messages import last_run_message
from provisioners.base import StepError

TRACEBACK = "traceback.txt"
OUR_BUG = 70


def finished_by(run: Run) -> RunFinished:
    """Execute `run` and say how it ended; never raises for anything a run can do."""
    started = time.monotonic()
    ended = _execute(run)
    return RunFinished(
        state=ended.state,
        sub_state=ended.sub_state or run.sub_state,
        message=ended.message,
        exit_code=ended.exit_code,
        seconds=time.monotonic() - started,
        hint=ended.hint,
    )


def _execute(run: Run) -> Executed:
    try:
        return run.execute()
    except DeadlineExceeded as error:
        return _failed(run, error, timed_out=run.budget_used_up)
    except Cancelled as error:
        return Executed("Canceled", message=_service_text(run, "Canceled"), hint=error.message, exit_code=130)
    except AibError as error:
        return _failed(run, error)
    except Exception as error:  # noqa: BLE001 -- the last door of the worker: what gets here is a bug of ours
        path = run.folder.path / TRACEBACK
        path.write_text(traceback.format_exc())
        text = f"aib failed unexpectedly ({type(error).__name__}: {error}); please report {path}"
        return Executed("Failed", message=text, exit_code=OUR_BUG)


def _failed(run: Run, error: AibError, *, timed_out: bool = False) -> Executed:
    """The message is the service's where the service has one; the cause then stays readable in the journal.

    A step's own failure was said when the step ended.
    """
    if not timed_out and not isinstance(error, BuildError):
        return Executed("Failed", message=error.message, hint=error.hint, exit_code=error.exit_code)
    if not isinstance(error, StepError):
        run.journal.emit(Said(error.message, level="warning"))
    message = _service_text(run, "Failed", timed_out=timed_out)
    return Executed("Failed", message=message, hint=error.hint, exit_code=error.exit_code)


def _service_text(run: Run, state: str, *, timed_out: bool = False) -> str:
    return last_run_message(
        state,
        api_version=run.api_version,
        run_id=run.folder.id,
        log=run.folder.customization_log,
        timed_out=timed_out,
    )
