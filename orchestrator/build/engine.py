"""The run as a sequence of phases: boot, customize, validate, generalize, power off, prove, export, distribute.

One deadline from the first second to the last. The engine only decides the order and records facts; what happens in
the guest belongs to the provisioners, what happens to bytes to the hypervisor package.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from hypervisor.deadline import Deadline
from hypervisor.errors import AibError
from hypervisor.machine import DiskSpec
from orchestrator.build.build_vm import BuildVm
from orchestrator.build.checkpoint_choice import uncacheable
from orchestrator.build.export import Artifact
from orchestrator.build.keep import keep_for_inspection
from orchestrator.build.session import Session, Starter
from orchestrator.build.steps import DeprovisionScript, default_script, may_replace_script
from orchestrator.plan import digests
from orchestrator.plan.model import RunPlan, Step
from orchestrator.record.events import (
    ArtifactWritten,
    CheckpointTaken,
    Connected,
    Deviation,
    Rebooted,
    Said,
    StepFinished,
    StepStarted,
)
from orchestrator.record.journal import Journal
from orchestrator.record.runs import RunFolder
from provisioners.base import Context, Outcome, StepError
from provisioners.communicators.base import Stream
from provisioners.generalize import NOTE, ensure_script, script_state
from provisioners.identity import BuildIdentity

EXCUSED = "{} failed; the build goes on from there, as the user chose."

SHUTDOWN_TIME = 180.0
"""Seconds a guest gets to power off by itself before the hypervisor ends it."""


@dataclass(frozen=True, slots=True)
class Customized:
    """The power-off disk of a build VM that went through all steps."""

    disk: DiskSpec
    identity: BuildIdentity
    validation_error: StepError | None = None
    own_script: bool = False
    """Whether the user's own deprovision script ran instead of the default one."""
    stopped: bool = False
    """Whether it stopped after the step that the user named (`--until`)."""


@dataclass
class Engine:
    """Executes one plan. The overlay and the seed live in the run's work folder, which is gone after the run."""

    plan: RunPlan
    folder: RunFolder
    journal: Journal
    deadline: Deadline
    phase: Callable[[str, str], None]
    """Enter a phase (name, runSubState)."""
    until: int | None = None
    """The index of the step to stop after, before anything is generalized or distributed."""
    ask: bool = False
    """Keep the state in which a step failed: somebody will be asked what to do."""
    before_generalize: Callable[[], None] = lambda: None
    """Called when the last step begins: what the proof needs can be made ready beside it."""
    _uncached: bool = field(default=False, init=False)
    _own_script: bool = field(default=False, init=False)
    _script_replaced: bool = field(default=False, init=False)
    _entered: str = field(default="", init=False)

    def say(self, text: str, index: int = -1) -> None:
        """One line for the log and the console."""
        self.journal.emit(Said(text, index))

    def customize(self, starter: Starter) -> Customized:
        """A build VM, every step that it lacks, power off. Raises `StepError` and the other errors of the tree."""
        with starter.session() as session:
            vm = session.vm
            address = f"{vm.address[0]}:{vm.address[1]}"
            service = vm.system.service.lower()
            self.journal.emit(Connected(session.seconds, address, session.identity.user, service))
            self._script_replaced = session.script_replaced
            validation_error = self._run_steps(session)
            stopped = self.until is not None
            if not self.plan.source_validation_only and not stopped:
                self.phase("PoweringOff", "Customizing")
                self._power_off(vm)
        return Customized(session.disk, session.identity, validation_error, self._own_script, stopped)

    def _power_off(self, vm: BuildVm) -> None:
        limit = self.deadline.limited(SHUTDOWN_TIME, f"the {SHUTDOWN_TIME:.0f} s a guest gets to power off")
        if not vm.system.power_off(vm, limit):
            self.deadline.check("powering off")
            self.say("The guest did not power off by itself; the hypervisor ended it.")

    def _run_steps(self, session: Session) -> StepError | None:
        """Run the steps that the session lacks; returns the first validator's error, raises everything else."""
        validation_error: StepError | None = None
        vm, script = session.vm, default_script(self.plan)
        if script is not None and not self._script_replaced:
            vm.system.place_script(vm, script.text, script.path, self._context(vm, -1))
        steps = self.plan.steps if self.until is None else self.plan.steps[: self.until + 1]
        for step in steps[: session.done + 1]:
            self._cached(step)
        for step in steps[session.done + 1 :]:
            if step.phase == "Validating" and validation_error is not None:
                self.journal.emit(StepFinished(step.index, step.name, "skipped", 0.0, None))
                continue
            if step.phase == "Generalizing" and validation_error and not self.plan.continue_distribute_on_failure:
                break
            try:
                outcome = self._run_step(vm, step)
            except StepError as error:
                if step.excused:
                    self.say(EXCUSED.format(step.name))
                    self._checkpoint(session, step)
                    continue
                self._keep_failed(session, step)
                if step.phase == "Validating":
                    validation_error = error
                    self._hold_if_asked(vm, self.plan.on_validation_error, error)
                    continue
                self._hold_if_asked(vm, self.plan.on_customizer_error, error)
                raise
            if script is not None and step.phase != "Generalizing" and vm.system.script_is_volatile:
                self._keep_script(vm, step, script, rebooted=outcome.rebooted)
            self._checkpoint(session, step)
        return validation_error

    def _checkpoint(self, session: Session, step: Step) -> None:
        """Keep the state after a step, if it may be kept; what follows the last one is thrown away with the run."""
        recorder = session.recorder
        if recorder is None or self._uncached or step.phase == "Generalizing":
            return
        if why := uncacheable(step):
            self._uncached = True
            self.say(f"No checkpoints from {step.name} on: {why}")
            return
        following = self.plan.steps[step.index + 1 : step.index + 2]
        last = not following or following[0].phase == "Generalizing"
        seconds = recorder.take(session.vm, step.digest, step.name, script_replaced=self._script_replaced, last=last)
        if seconds:
            self.journal.emit(CheckpointTaken(step.index, step.name, seconds))

    def _keep_failed(self, session: Session, step: Step) -> None:
        """For `--on-error ask`: the guest as the failed step left it, while it still answers."""
        if self.ask and session.recorder is not None and not self.deadline.over and step.phase != "Generalizing":
            session.recorder.take(
                session.vm,
                digests.failed(step.digest),
                f"{step.name} (failed)",
                script_replaced=self._script_replaced,
                last=True,
            )

    def _cached(self, step: Step) -> None:
        """A step whose result is in the checkpoint already."""
        output = f"steps/{step.index:02d}.out"
        total = len(self.plan.steps)
        self.journal.emit(StepStarted(step.index, step.name, step.kind, step.phase, total, output, digest=step.digest))
        if step.excused:
            self.journal.emit(
                StepFinished(step.index, step.name, "failed", 0.0, None, message=EXCUSED.format(step.name))
            )
        else:
            self.journal.emit(StepFinished(step.index, step.name, "cached", 0.0, 0))

    def _keep_script(self, vm: BuildVm, step: Step, script: DeprovisionScript, *, rebooted: bool) -> None:
        """A reboot wipes /tmp: put the default script back, unless a customizer replaced it."""
        context = self._context(vm, step.index)
        if may_replace_script(step) and not rebooted:
            self._script_replaced = script_state(vm, script.text, script.path, context) != "default"
        if rebooted:
            ensure_script(vm, script.text, script.path, context, replaced=self._script_replaced)

    def _hold_if_asked(self, vm: BuildVm, policy: str, error: StepError) -> None:
        if policy == "abort" and not self.deadline.over:
            keep_for_inspection(vm, self.folder.path, self.deadline, self.say, error)

    def _run_step(self, vm: BuildVm, step: Step) -> Outcome:
        """Run one step with its events around it."""
        if self._entered != step.phase:
            self._entered = step.phase
            sub_state = "Validating" if step.phase == "Validating" else "Customizing"
            self.phase(step.phase, sub_state)
        if step.phase == "Generalizing":
            self.before_generalize()
        provisioner = vm.system.provisioner(step, vm.identity)
        output = f"steps/{step.index:02d}.out"
        total = len(self.plan.steps)
        self.journal.emit(StepStarted(step.index, step.name, step.kind, step.phase, total, output, digest=step.digest))
        started = time.monotonic()
        with self._failure_recorded(step, started):
            outcome = provisioner.apply(vm, self._context(vm, step.index))
        self.journal.flush_output()
        seconds = time.monotonic() - started
        if outcome.rebooted:
            self.journal.emit(Rebooted(step.index, seconds))
        self._own_script = self._own_script or NOTE["replaced"] in outcome.notes
        self.journal.emit(
            StepFinished(step.index, step.name, "succeeded", seconds, outcome.exit_code, outcome.rebooted)
        )
        return outcome

    @contextmanager
    def _failure_recorded(self, step: Step, started: float) -> Iterator[None]:
        """Whatever ends a step early leaves its StepFinished."""
        try:
            yield
        except AibError as error:
            self._step_failed(step, started, error)
            raise

    def _step_failed(self, step: Step, started: float, error: AibError) -> None:
        self.journal.flush_output()
        known = error if isinstance(error, StepError) else StepError(error.message, hint=error.hint)
        self.journal.emit(
            StepFinished(
                index=step.index,
                name=step.name,
                result="failed",
                seconds=time.monotonic() - started,
                exit_code=known.guest_exit_code,
                message=known.message,
                hint=known.hint,
                command=known.command,
                line=known.line,
            )
        )

    def _context(self, vm: BuildVm, index: int) -> Context:
        def output(stream: Stream, data: bytes) -> None:
            if index >= 0:
                self.journal.output(index, stream, data)

        return Context(
            deadline=self.deadline,
            output=output,
            say=lambda text: self.say(text, index),
            deviation=self._deviation,
            user=vm.identity.user,
            password=vm.identity.password,
        )

    def _deviation(self, code: str, message: str) -> None:
        self.journal.emit(Deviation(code, message))

    def exported(self, artifacts: tuple[Artifact, ...]) -> None:
        """Tell of the artifacts that the distributions need."""
        for a in artifacts:
            self.journal.emit(ArtifactWritten(str(a.path), a.format, a.virtual_size, a.size, a.allocated, a.sha256))
