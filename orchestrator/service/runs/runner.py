"""The seam between what clients ask for and what executes it: real builds, or scripts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from orchestrator.build.detached import Detached
from orchestrator.build.job import Job
from orchestrator.build.launch import launch
from orchestrator.build.scripted import launch_scripted
from orchestrator.build.slots import Need
from orchestrator.record.runs import RunFolder
from orchestrator.record.store import Store


class Runner(Protocol):
    """What executes runs. Whatever it is, it writes the run's journal and record, and answers its control socket."""

    def start(self, folder: RunFolder, job: Job, need: Need) -> None:
        """Take over the run, whose folder the caller holds, and return; the folder is held as long as it goes on.

        Raises an error of the tree when nothing was begun: the folder is still the caller's then.
        """


class DetachedRunner:
    """A process for each run, which neither the end nor the crash of this server ends."""

    def start(self, folder: RunFolder, job: Job, need: Need) -> None:
        """Start the run's own supervisor."""
        launch(Detached(job, need), folder)


@dataclass(frozen=True, slots=True)
class ScriptedRunner:
    """Threads of this process, which end with it: they boot nothing, so nothing waits for room either."""

    store: Store

    def start(self, folder: RunFolder, job: Job, need: Need) -> None:
        """Start a thread."""
        launch_scripted(job, self.store, folder)
