"""Runs that boot nothing and follow a script: for tests of what drives the server. Everything but the VM is real.

The template is planned; the run has its folder, events, record and log, can be cancelled, distributes an empty disk.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hypervisor.deadline import CancelToken, Deadline
from hypervisor.errors import InputError
from orchestrator.build import control, tiny_disks
from orchestrator.build.distribute import distribute
from orchestrator.build.ending import finished_by
from orchestrator.build.export import Artifact, formats_needed, write_checksum
from orchestrator.build.job import Job
from orchestrator.build.run import Executed, Run, verdict
from orchestrator.build.template_status import TemplateStatus, settle
from orchestrator.plan.config import Config
from orchestrator.plan.fetch import wanted_by
from orchestrator.plan.model import Payload, ResolvedSource, RunPlan, Step
from orchestrator.plan.plan_json import to_json
from orchestrator.plan.planner import make_plan
from orchestrator.plan.sizes import HostCapacity
from orchestrator.plan.versions import plan_distributions
from orchestrator.record import files
from orchestrator.record.events import ArtifactWritten, Deviation, StepFinished, StepStarted
from orchestrator.record.journal import Journal, output_name
from orchestrator.record.record import RecordWriter
from orchestrator.record.runs import RunFolder
from orchestrator.record.store import Store
from orchestrator.template.load import load_template
from orchestrator.template.model import (
    ManagedImage,
    PlatformImage,
    PowerShell,
    Source,
    Template,
    WindowsRestart,
    WindowsUpdate,
)
from orchestrator.verbs.plan import plan_options
from orchestrator.views.customization_log import CustomizationLog
from provisioners.base import StepError

SCRIPTED = ("scripted", "a scripted run: nothing is booted, and the disk that is distributed is empty")
EVERY_TEMPLATE = "*"
_SUB_STATES = {"Customizing": "Customizing", "Validating": "Validating", "Generalizing": "Customizing"}
_LOOK_AGAIN = 0.05
"""Seconds between two looks at whether a held run may go on."""


@dataclass(frozen=True, slots=True)
class Script:
    """What a scripted run does. `seconds`: what each step takes. `output`: what steps print, by name ("*": all).

    `fail_at` names the step that fails with `exit_code`, or `Building` or `Distributing`; `message` says why.
    `hold_at` names the step (or Building, Distributing) before which the run waits until it is cancelled or the
    script says otherwise.
    """

    seconds: float = 0.0
    output: Mapping[str, str] = field(default_factory=dict)
    fail_at: str = ""
    exit_code: int = 1
    message: str = ""
    hold_at: str = ""

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Script:
        """The script of a JSON object with the names above in camel case; `InputError` says what is wrong with it."""
        names = {_camel(each.name): each for each in fields(cls)}
        given: dict[str, Any] = {}
        for name, member in value.items():
            known = names.get(name)
            if known is None:
                raise InputError(f"a script has no {name!r}", hint=f"it has {', '.join(names)}")
            expected = (int, float) if name == "seconds" else int if name == "exitCode" else str
            if name == "output":
                good = isinstance(member, Mapping) and all(isinstance(text, str) for text in member.values())
            else:
                good = isinstance(member, expected) and not isinstance(member, bool)
            if not good or (name == "seconds" and not 0 <= member <= 3600):
                raise InputError(f"{name} of a script cannot be {member!r}")
            given[known.name] = member
        return cls(**given)

    def to_json(self) -> dict[str, Any]:
        """The inverse of `from_json`."""
        return {_camel(each.name): getattr(self, each.name) for each in fields(self)}


class Scripts:
    """The scripts of a home: by the template's name, `*` for every other. Kept in a file."""

    def __init__(self, home: Path) -> None:
        self._path = home / "service" / "scripts.json"
        self._lock = threading.Lock()

    def all(self) -> dict[str, Any]:
        """Every script, as JSON has it."""
        return files.read_json(self._path) or {}

    def put(self, template: str, script: Script) -> None:
        """Have runs of the template follow this script; those that are under way look at `hold_at` again."""
        self._change({template.lower(): script.to_json()})

    def clear(self) -> None:
        """No scripts any more: every run succeeds at once."""
        with self._lock:
            self._path.unlink(missing_ok=True)

    def of(self, template: str) -> Script:
        """The script that runs of this template follow."""
        known = self.all()
        return Script.from_json(known.get(template.lower()) or known.get(EVERY_TEMPLATE) or {})

    def _change(self, change: Mapping[str, Any]) -> None:
        with self._lock:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            files.publish_json(self._path, {**self.all(), **change})


def launch_scripted(job: Job, store: Store, folder: RunFolder) -> None:
    """Begin a run, whose folder the caller holds, in a thread of this process, which takes the hold over."""
    threading.Thread(target=_carry_out, args=(job, store, folder), name=f"scripted {folder.id}", daemon=True).start()


def _carry_out(job: Job, store: Store, folder: RunFolder) -> None:
    token = CancelToken()

    def cancel(_: object) -> dict[str, bool]:
        token.cancel()
        return {"ok": True}

    try:
        with Journal(folder.path) as journal, control.serve(folder.path, {"cancel": cancel}):
            writer = RecordWriter(folder.path)
            journal.subscribe(writer)
            with CustomizationLog(folder.path) as log:
                journal.subscribe(log)
                run = ScriptedRun(job, store, folder, journal, token, writer)
                journal.emit(finished_by(run))
        settle(store, folder)
    finally:
        folder.release()


class ScriptedRun(Run):
    """A run whose build is the script's."""

    def execute(self) -> Executed:
        """Plan, walk through the steps, distribute; raises as a real run does."""
        self.phase("Preparing", "Queued")
        plan = scripted_plan(self.job, self.store)
        files.publish_json(self.folder.plan, to_json(plan))
        self.api_version = plan.api_version
        raw = files.read_json(self.folder.template) or {}
        self.journal.subscribe(TemplateStatus.begun(self.store, plan, raw, self.writer))
        self.announce(plan)
        self.journal.emit(Deviation(*SCRIPTED))
        self.deadline = deadline = Deadline.after(plan.budget, "buildTimeoutInMinutes", self.token)
        self.phase("Booting", "Building")
        self._reached(plan, "Building", deadline)
        entered = ""
        for step in plan.steps:
            if step.phase != entered:
                self.phase(entered := step.phase, _SUB_STATES[step.phase])
            self._step(plan, step, deadline)
        if plan.source_validation_only:
            return Executed(sub_state="Validating")
        self.phase("Distributing", "Distributing")
        self._reached(plan, "Distributing", deadline)
        outputs = distribute(plan, self._artifacts(plan), self.store, self.folder, deadline, self._emit)
        return verdict(None, outputs)

    def _script(self, plan: RunPlan) -> Script:
        return Scripts(self.store.home).of(plan.template_name)

    def _reached(self, plan: RunPlan, place: str, deadline: Deadline) -> None:
        """Wait as the script says before `place`; fail when it is a phase that shall."""
        while (script := self._script(plan)).hold_at == place:
            deadline.pause(_LOOK_AGAIN, f"held at {place}")
        if place in ("Building", "Distributing") and script.fail_at == place:
            raise InputError(script.message or f"the script lets {place} fail")

    def _step(self, plan: RunPlan, step: Step, deadline: Deadline) -> None:
        self._reached(plan, step.name, deadline)
        script = self._script(plan)
        output = output_name(step.index)
        self.journal.emit(
            StepStarted(step.index, step.name, step.kind, step.phase, len(plan.steps), output, digest=step.digest)
        )
        printed = script.output.get(step.name) or script.output.get(EVERY_TEMPLATE)
        if printed:
            self.journal.output(step.index, "stdout", printed.encode())
            self.journal.flush_output()
        if script.seconds:
            deadline.pause(script.seconds, f"running the step {step.name}")
        deadline.check(f"running the step {step.name}")
        if script.fail_at == step.name:
            message = script.message or f"Script exited with non-zero exit status: {script.exit_code}."
            self.journal.emit(
                StepFinished(step.index, step.name, "failed", script.seconds, script.exit_code, message=message)
            )
            raise StepError(message)
        self.journal.emit(StepFinished(step.index, step.name, "succeeded", script.seconds))

    def _artifacts(self, plan: RunPlan) -> tuple[Artifact, ...]:
        made = []
        for format in formats_needed(plan.distributions):
            path = self.folder.artifacts / f"image.{'vhd' if format == 'vpc' else 'qcow2'}"
            (tiny_disks.write_vhd if format == "vpc" else tiny_disks.write_qcow2)(path)
            sum_, stat = files.sha256(path), path.stat()
            write_checksum(path, sum_)
            made.append(Artifact(path, format, tiny_disks.SIZE, stat.st_size, stat.st_blocks * 512, sum_))
            self.journal.emit(
                ArtifactWritten(str(path), format, tiny_disks.SIZE, stat.st_size, stat.st_blocks * 512, sum_)
            )
        return tuple(made)


def scripted_plan(job: Job, store: Store) -> RunPlan:
    """The plan of a job without its source image and without its scripts and files: they are taken as given."""
    options = job.options
    template, _ = load_template(
        job.template_file,
        job.template_text,
        name=options.name,
        settings=options.settings,
        parameters=options.parameters,
        scope=options.scope,
    )
    source = _source(template, job.home)
    nothing = {
        wanted.pointer: Payload(wanted.uri, wanted.sha256 or "0" * 64, 0, job.home) for wanted in wanted_by(template)
    }
    only_validated = template.validate is not None and template.validate.source_validation_only
    plan = make_plan(
        template,
        source,
        payloads=nothing,
        host=HostCapacity.measured(),
        options=plan_options(options, Config()),
        distributions=() if only_validated else plan_distributions(template, store, datetime.now(UTC), source),
    )
    deviations = tuple(each for each in plan.deviations if not each[0].startswith("network-"))  # there is none
    return replace(plan, machine=replace(plan.machine, network="none"), deviations=deviations)


def _source(template: Template, home: Path) -> ResolvedSource:
    """A source image that is there whatever it is called, of the system that the customizers are for."""
    source: Source = template.source
    windows = any(isinstance(step, PowerShell | WindowsRestart | WindowsUpdate) for step in template.customize)
    if isinstance(source, PlatformImage):
        kind, requested = "PlatformImage", source.urn
        windows = windows or "windows" in source.publisher.lower()
    elif isinstance(source, ManagedImage):
        kind, requested = "ManagedImage", source.image_id
    else:
        kind, requested = "SharedImageVersion", source.image_version_id
    return ResolvedSource(
        kind,  # type: ignore[arg-type]
        requested, "", "1.0.0", "0" * 64, home, "qcow2", tiny_disks.SIZE, "windows" if windows else "linux",
    )  # fmt: skip


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)
