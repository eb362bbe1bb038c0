"""One run from plan to runOutputs, inside the worker process."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from hypervisor import accel, appliance
from hypervisor.appliance import Appliance
from hypervisor.connection import check_uri, open_hypervisor
from hypervisor.deadline import CancelToken, Deadline
from hypervisor.errors import BuildError, HostError
from hypervisor.machine import Machine
from orchestrator.build.checkpoint_choice import find_step
from orchestrator.build.distribute import RunOutput, distribute, overall_state
from orchestrator.build.early_export import EarlyExport, forget_layers
from orchestrator.build.early_inspector import EarlyInspector
from orchestrator.build.engine import Customized, Engine
from orchestrator.build.export import Artifact
from orchestrator.build.guest_choice import guest_system
from orchestrator.build.guest_system import GuestSystem
from orchestrator.build.job import Job
from orchestrator.build.options import BuildOptions
from orchestrator.build.proof import Look, Proof, prove
from orchestrator.build.session import CachePolicy, Starter
from orchestrator.build.template_status import TemplateStatus
from orchestrator.plan.model import RunPlan
from orchestrator.plan.plan_json import to_json
from orchestrator.record import files
from orchestrator.record.events import Deviation, Event, GeneralizeProof, Phase, RunStarted, Said
from orchestrator.record.journal import Journal
from orchestrator.record.messages import distribute_failed
from orchestrator.record.record import RecordWriter
from orchestrator.record.runs import RunFolder
from orchestrator.record.store import Store
from orchestrator.verbs.plan import plan_template
from provisioners.base import StepError
from provisioners.identity import BuildIdentity

PREPARATION_TIME = 4 * 3600.0
"""Seconds for everything before the budget starts: fetching inputs and, the first time, making the source image."""


@dataclass(frozen=True, slots=True)
class Executed:
    """How a run that came to its end ended: the service's words, and our exit code."""

    state: str = "Succeeded"
    sub_state: str = ""
    message: str = ""
    hint: str = ""
    exit_code: int = 0


@dataclass
class Run:
    """What one execution works with."""

    job: Job
    store: Store
    folder: RunFolder
    journal: Journal
    token: CancelToken
    writer: RecordWriter
    api_version: str = ""
    """Of the template, once it is known: the texts of the service differ by era."""
    sub_state: str = "Queued"
    """The service's runSubState of the phase the run is in."""
    deadline: Deadline | None = None
    machine: Machine | None = None
    """The build VM, from the moment it runs."""

    @property
    def budget_used_up(self) -> bool:
        """Whether buildTimeoutInMinutes is over."""
        return self.deadline is not None and self.deadline.remaining() <= 0

    def phase(self, name: str, sub_state: str) -> None:
        """Enter a phase; raises when the budget is used up or the run was cancelled."""
        if self.deadline is not None:
            self.deadline.check(f"entering the phase {name}")
        self.sub_state = sub_state
        self.journal.emit(Phase(name, sub_state))

    def say(self, text: str) -> None:
        """One line for the log and the console."""
        self.journal.emit(Said(text))

    def _emit(self, event: Event) -> None:
        self.journal.emit(event)

    def _hide(self, secret: str) -> None:
        self.journal.redact([secret])

    def _hide_identity(self, identity: BuildIdentity) -> None:
        self.journal.redact((*identity.secrets(), *identity.guest_secrets(), identity.password.encode()))

    def _machine_started(self, machine: Machine) -> None:
        self.machine = machine

    def screenshot(self) -> bytes:
        """What the build VM's screen shows, as PNG; raises `HostError` when there is nothing to see."""
        if self.machine is None or not self.machine.is_running():
            raise HostError("the build VM is not running")
        return self.machine.screenshot()

    def execute(self) -> Executed:
        """Plan and run; raises an error of the tree on every failure but a partial distribution."""
        self.phase("Preparing", "Queued")
        check_uri(self.job.options.connect)
        before = Deadline.after(PREPARATION_TIME, "the time for preparing the inputs", self.token)
        plan = self._plan(before)
        self.api_version = plan.api_version
        raw = files.read_json(self.folder.template) or {}
        self.journal.subscribe(TemplateStatus.begun(self.store, plan, raw, self.writer))
        self.announce(plan)
        system = guest_system(plan, self.job.options)
        for code, message in system.deviations:
            self.journal.emit(Deviation(code, message))
        tools = appliance.ensure(self.store.home / "appliance", before, self.say)
        deadline = Deadline.after(plan.budget, f"buildTimeoutInMinutes {plan.budget / 60:g}", self.token)
        self.deadline = deadline
        with self._work_emptied(), self.store.reading(plan.source.digest):
            customized, artifacts = self._build(plan, system, tools, deadline)
            if plan.source_validation_only:
                return Executed(sub_state="Validating")
            if customized.stopped:
                last = plan.steps[find_step(plan, self.job.options.until_step, "--until")]
                return Executed(sub_state="Customizing", message=f"stopped after {last.name}, as asked")
            self.phase("Distributing", "Distributing")
            try:
                outputs = distribute(plan, artifacts, self.store, self.folder, deadline, self._emit)
            finally:
                forget_layers(artifacts, self.store)
        return verdict(customized.validation_error, outputs)

    def _plan(self, deadline: Deadline) -> RunPlan:
        plan = plan_template(self.job, self.store, deadline=deadline, say=self.say, on_secret=self._hide)
        files.publish_json(self.folder.plan, to_json(plan))
        return plan

    def announce(self, plan: RunPlan) -> None:
        """The run's first events: what it will do, and where that differs from the service."""
        self.journal.emit(
            RunStarted(
                run_id=self.folder.id,
                template_id=plan.template_id,
                template_name=plan.template_name,
                source=plan.source.requested,
                source_version=plan.source.version,
                source_sha256=plan.source.digest,
                vm_size=plan.machine.vm_size,
                vcpus=plan.machine.vcpus,
                memory_mib=plan.machine.memory_mib,
                budget=plan.budget,
                steps=tuple(step.name for step in plan.steps),
                api_version=plan.api_version,
                location=plan.location,
                asked_vcpus=plan.machine.asked_vcpus,
                asked_memory_mib=plan.machine.asked_memory_mib,
                os=plan.source.os,
            )
        )
        for text in plan.warnings:
            self.journal.emit(Said(text, level="warning"))
        for code, message in plan.deviations:
            self.journal.emit(Deviation(code, message))

    @contextmanager
    def _work_emptied(self) -> Iterator[None]:
        """Whatever happens, the overlay and the seed are gone afterwards."""
        try:
            yield
        finally:
            shutil.rmtree(self.folder.work, ignore_errors=True)

    def _build(
        self, plan: RunPlan, system: GuestSystem, tools: Appliance, deadline: Deadline
    ) -> tuple[Customized, tuple[Artifact, ...]]:
        """Everything that needs the hypervisor; raises the validators' error unless distribution goes on."""
        options = self.job.options
        until = find_step(plan, options.until_step, "--until") if options.until_step else None
        policy = _cache_policy(plan, options, until)
        chosen = accel.choose(options.accel, kernel=tools.kernel, cache=self.store.home / "accel")
        self.say(f"Acceleration: {chosen.name} ({chosen.reason})")
        cache = self.store.home / "libvirt"
        with open_hypervisor(options.connect, cache=cache) as hypervisor, ExitStack() as hold:
            hypervisor.discard(self.folder.work)
            early = hold.enter_context(EarlyInspector(hypervisor, tools, self.folder.work, deadline, chosen.name))
            engine = Engine(
                plan, self.folder, self.journal, deadline, self.phase, until,
                ask=options.on_error == "ask", before_generalize=early.start,
            )  # fmt: skip
            starter = Starter(
                hypervisor=hypervisor,
                plan=plan,
                system=system,
                tools=tools,
                folder=self.folder,
                checkpoints=self.store.checkpoints,
                policy=policy,
                accel=chosen.name,
                ssh_port=options.ssh_port,
                deadline=deadline,
                hold=hold,
                say=self.say,
                phase=self.phase,
                hide=self._hide_identity,
                started=self._machine_started,
            )
            customized = engine.customize(starter)
            if customized.stopped:
                return customized, ()
            if customized.validation_error and not plan.continue_distribute_on_failure:
                raise customized.validation_error
            if plan.source_validation_only:
                return customized, ()
            self.phase("Inspecting", "Customizing")
            # Before the connection closes: with it goes the work folder, whatever way this process ends.
            with EarlyExport(plan, customized.disk, self.folder, self.store, deadline) as export:
                self._check(self._prove(plan, customized, early.read, deadline))
                self.phase("Exporting", "Distributing")
                artifacts = export.artifacts()
            engine.exported(artifacts)
            return customized, artifacts

    def _prove(self, plan: RunPlan, done: Customized, look: Look, deadline: Deadline) -> Proof:
        return prove(
            done.disk,
            look,
            identity=done.identity,
            own_script=done.own_script,
            work=self.folder.work,
            deadline=deadline,
            base=plan.source.path,
        )

    def _check(self, proof: Proof) -> None:
        """Record the proof; a left-over key or account fails the run."""
        files.publish_json(self.folder.path / "generalize.json", proof.to_json())
        findings = tuple(str(finding) for finding in proof.findings)
        self.journal.emit(GeneralizeProof(proof.verdict, findings, "generalize.json"))
        if proof.verdict == "failed":
            raise BuildError(
                "the image is not generalized: " + "; ".join(proof.failures),
                hint="The deprovision script must remove the builder account and its keys; generalize.json in the run "
                "folder lists everything that was found.",
            )


def _cache_policy(plan: RunPlan, options: BuildOptions, until: int | None) -> CachePolicy:
    """Which checkpoints may be gone on from: none with a step in it that is to be run, or that is not wanted."""
    limits = [find_step(plan, options.from_step, "--from")] if options.from_step else []
    limits += [] if until is None else [until + 1]
    return CachePolicy(options.cache, min(limits, default=None), options.max_age)


def verdict(validation_error: StepError | None, outputs: tuple[RunOutput, ...]) -> Executed:
    """The run's last state from its distributions and validations."""
    state = overall_state(outputs)
    if state != "Succeeded":
        failures = [(index, output.message) for index, output in enumerate(outputs) if output.state != "Succeeded"]
        return Executed(state, "Distributing", distribute_failed(failures, len(outputs)), exit_code=1)
    if validation_error is not None:
        return Executed("Failed", "Validating", validation_error.message, validation_error.hint, exit_code=1)
    return Executed()
