"""Build the image of a template: what CLI, HTTP and Python users call."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from hypervisor.errors import TemplateError
from orchestrator.build.at_once import Stops
from orchestrator.build.job import Job
from orchestrator.build.options import BuildOptions
from orchestrator.build.requirements import require_build_extra
from orchestrator.build.slots import Slots, need_of
from orchestrator.build.supervisor import Ended, supervise
from orchestrator.plan.sizes import HostCapacity
from orchestrator.record import files
from orchestrator.record.events import Stamped
from orchestrator.record.redact import Redactor
from orchestrator.record.runs import RunFolder
from orchestrator.record.store import Store
from orchestrator.template.load import Loaded, choose, inspect_templates
from orchestrator.template.model import Template
from orchestrator.verbs.checkpoints import tidy_checkpoints

STANDARD_INPUT = Path("-")

Shower = Callable[[RunFolder], Callable[[Stamped], None]]
"""Gets the run's folder and returns what shows its events."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A template file as it was read and judged; the run uses this very text, whatever happens to the file."""

    file: Path
    loaded: Loaded
    options: BuildOptions

    def template(self) -> Template:
        """The one template to build; raises `InvalidTemplate` with all that is wrong."""
        return choose(self.loaded, self.options.name)

    @property
    def text(self) -> str:
        """The text that was judged."""
        return next(iter(self.loaded.sources.values())).text


def check(template_file: Path, options: BuildOptions) -> Checked:
    """Read and judge a template before anything is made. Raises `InputError` when the file cannot be read.

    `-` is standard input; relative paths in it count from the present folder.
    """
    loaded = inspect_templates(
        None if template_file == STANDARD_INPUT else template_file,
        name=options.name,
        settings=options.settings,
        parameters=options.parameters,
        scope=options.scope,
    )
    return Checked(template_file, loaded, options)


def build(checked: Checked, store: Store, shower: Shower) -> Ended:
    """Run a template to its end in a worker process; SIGINT, SIGTERM and SIGHUP end the run.

    A failed build is an `Ended` with its exit code, not an exception; raises `InvalidTemplate` and what the store
    raises before there is a run, and `HostError` when this installation has only the checker.
    """
    stops = Stops()
    with stops.on_signals():
        ended = build_one(checked, store, shower, stops)
    return replace(ended, stopped=stops.asked)  # a signal may come when the run has ended already


def build_one(checked: Checked, store: Store, shower: Shower, stops: Stops) -> Ended:
    """As `build`, for any thread: it ends when `stops` is asked to stop."""
    template = checked.template()
    require_build_extra()
    with store.new_run(template.name) as folder:
        raw = Redactor().text(json.dumps(template.raw, indent=4, ensure_ascii=False, default=str))
        files.publish(folder.template, raw.encode() + b"\n")
        job = Job(store.home, folder.id, checked.file.absolute(), checked.text, checked.options)
        with _counted(template, store):
            ended = supervise(job, folder.path, shower(folder), stops)
    tidy_checkpoints(store)
    return ended


def _counted(template: Template, store: Store) -> AbstractContextManager[None]:
    """Builds of a server wait for what this one takes. A wrong size is the planner's to report."""
    host = HostCapacity.measured()
    try:
        return Slots(store.home, host).counted(need_of(template, host))
    except TemplateError:
        return nullcontext()
