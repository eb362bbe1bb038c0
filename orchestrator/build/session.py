"""A connected build VM for a plan: resumed from the best checkpoint there is, else booted cold."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from hypervisor import disk, snapshot
from hypervisor.appliance import Appliance
from hypervisor.connection import Hypervisor
from hypervisor.deadline import Deadline
from hypervisor.errors import AibError, BuildError
from hypervisor.machine import Machine, running
from hypervisor.offline_edit import put_into_panther
from hypervisor.spec import DiskSpec, MachineSpec
from orchestrator.build.build_vm import BuildVm, forwarded, machine_spec
from orchestrator.build.checkpoint_choice import BOOTED, Candidate, candidates
from orchestrator.build.fingerprint import ram_fingerprint
from orchestrator.build.guest_system import GuestSystem
from orchestrator.build.lineage import Lineage
from orchestrator.build.recorder import Recorder
from orchestrator.build.wake import wake
from orchestrator.plan.digests import first_digest
from orchestrator.plan.model import RunPlan
from orchestrator.record.checkpoints import DISK, MEMORY, NVRAM, Checkpoint, Checkpoints
from orchestrator.record.runs import RunFolder
from provisioners.identity import BuildIdentity

ANSWER_SECONDS = 60.0
"""A resumed guest answers within a second or two, or not at all."""


class Unusable(BuildError):
    """A checkpoint that cannot be gone on from. `forget`: it is damaged, nobody should try again."""

    def __init__(self, message: str, *, forget: bool = False) -> None:
        super().__init__(message)
        self.forget = forget


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """What checkpoints may be used for. `before`: leave the step of this index to be run. `max_age` in seconds."""

    enabled: bool = True
    before: int | None = None
    max_age: float = float("inf")


@dataclass
class Session:
    """A connected build VM. `done`: the last step that its state has in it already (`BOOTED`: none)."""

    vm: BuildVm
    identity: BuildIdentity
    seconds: float
    done: int = BOOTED
    script_replaced: bool = False
    recorder: Recorder | None = None
    cold_disk: DiskSpec | None = None

    @property
    def disk(self) -> DiskSpec:
        """What the guest writes now."""
        disk = self.recorder.disk if self.recorder else self.cold_disk
        assert disk is not None, "a session has a disk"
        return disk


@dataclass
class Starter:
    """Starts sessions for one run. `hold` ends with the run: what it holds is still read when the VM has ended."""

    hypervisor: Hypervisor
    plan: RunPlan
    system: GuestSystem
    tools: Appliance
    folder: RunFolder
    checkpoints: Checkpoints
    policy: CachePolicy
    accel: str
    ssh_port: int
    deadline: Deadline
    hold: ExitStack
    say: Callable[[str], None]
    phase: Callable[[str, str], None]
    hide: Callable[[BuildIdentity], None]
    """Keeps the secrets of an identity out of everything that is written."""
    started: Callable[[Machine], None] = lambda _: None
    """Gets every machine when it runs, before its guest answers."""

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A connected build VM; destroyed at the end of the block, however that comes."""
        if self.policy.enabled and self._why_not:
            self.say(f"No checkpoints: {self._why_not}")
        with ExitStack() as vm:
            yield self._resumed(vm) or self._cold(vm)

    @property
    def _caching(self) -> bool:
        """A daemon would see two VMs of one name; and not every kind of guest can be resumed."""
        return self.policy.enabled and not self._why_not

    @property
    def _why_not(self) -> str:
        """Why nothing of this build can be cached, whatever the user wants; "" when it can."""
        if not self.hypervisor.embedded:
            return "they need libvirt's embedded driver (--connect embed)"
        return "" if self.system.resumable else "a guest of this kind cannot be resumed"

    @contextmanager
    def resumed_at(self, candidate: Candidate) -> Iterator[Session]:
        """A build VM that goes on from this very checkpoint; raises `Unusable` and the other errors of the tree."""
        with ExitStack() as vm:
            yield self._resume(candidate, vm, self.hold)

    def _resumed(self, vm: ExitStack) -> Session | None:
        if not self._caching:
            return None
        oldest = time.time() - self.policy.max_age
        for candidate in candidates(self.plan, self.checkpoints.all(), before=self.policy.before, oldest=oldest):
            with ExitStack() as attempt, ExitStack() as hold:
                try:
                    session = self._resume(candidate, attempt, hold)
                except (AibError, OSError, ValueError, TypeError) as error:
                    self.deadline.check("resuming from a checkpoint")
                    self.say(f"The checkpoint {candidate.checkpoint.id} cannot be used: {error}")
                    forget = isinstance(error, Unusable) and error.forget
                else:
                    vm.push(attempt.pop_all())
                    self.hold.push(hold.pop_all())
                    return session
            if forget:
                self._forget(candidate.checkpoint)
        return None

    def _forget(self, damaged: Checkpoint) -> None:
        """Remove a damaged checkpoint and all that rests on it, as far as nobody uses them."""
        doomed = [damaged]
        for one in self.checkpoints.all():  # parents come before their children
            if one.parent in {gone.id for gone in doomed}:
                doomed.append(one)
        for one in reversed(doomed):
            self.checkpoints.remove(one)

    def _resume(self, candidate: Candidate, attempt: ExitStack, hold: ExitStack) -> Session:
        checkpoint = hold.enter_context(self.checkpoints.held(candidate.checkpoint))
        folder = self.checkpoints.lineage(checkpoint)
        hold.enter_context(self.checkpoints.using_lineage(folder))
        lineage = Lineage.load(folder)
        self.hide(lineage.identity)
        os_disk = self._overlay(checkpoint, hold)
        cold = self._spec(lineage, os_disk)
        fingerprint = ram_fingerprint(self.hypervisor, cold)
        memory = checkpoint.memory if checkpoint.fingerprint == fingerprint else None
        started = time.monotonic()
        self.phase("Resuming" if memory else "Booting", "Building")
        if memory:
            spec = dataclasses.replace(cold, name=checkpoint.machine, uuid=checkpoint.uuid)
            checked = _Check(self.checkpoints, checkpoint, (DISK, MEMORY, NVRAM))
            # The sums are made while QEMU reads the memory; nothing is asked of the guest before they are known.
            try:
                machine = attempt.enter_context(
                    snapshot.restored(self.hypervisor, spec, memory, self.deadline, nvram=checkpoint.nvram)
                )
            finally:
                checked.demand()  # damage explains a refusal of QEMU best
        else:
            checked = _Check(self.checkpoints, checkpoint, (DISK,))
            checked.demand()
            self.say("disk-only: the memory was saved on another QEMU, host or machine, or dropped; booting its disk")
            machine = attempt.enter_context(running(self.hypervisor, cold, self.deadline))
        self.started(machine)
        vm = attempt.enter_context(forwarded(machine, lineage.identity, self.system, self.ssh_port))
        if memory:
            vm.reconnect(self.deadline.limited(ANSWER_SECONDS, "the resumed guest's first answer"))
            if not wake(vm.communicator, self.deadline):
                self.say("The resumed guest has neither perl nor python3: its random pool takes a minute to be new")
        else:
            vm.wait_for_first_answer(self.deadline)
        name = checkpoint.step or "the booted source image"
        self.say(f"Going on from the checkpoint after {name} ({checkpoint.id})")
        recorder = self._recorder(lineage, fingerprint, os_disk, hold, parent=checkpoint.id, oldest=checkpoint.oldest)
        seconds = time.monotonic() - started
        return Session(vm, lineage.identity, seconds, candidate.index, checkpoint.script_replaced, recorder)

    def _overlay(self, checkpoint: Checkpoint, hold: ExitStack) -> DiskSpec:
        path = hold.enter_context(self.checkpoints.segment()) / DISK
        disk.create_overlay(checkpoint.disk, "qcow2", path, None, self.deadline)
        return DiskSpec(path, "qcow2", serial="os")

    def _cold(self, stack: ExitStack) -> Session:
        lineage = self._new_lineage()
        self.hide(lineage.identity)
        base, size = self.plan.source, self.plan.machine.os_disk_bytes
        home = self.hold.enter_context(self.checkpoints.segment()) if self._caching else self.folder.work
        os_disk = DiskSpec(home / DISK, "qcow2", serial="os")
        disk.create_overlay(base.path, base.format, os_disk.path, size, self.deadline)
        self._edit(os_disk, self.system.files_on_disk(lineage.identity))
        self.phase("Booting", "Building")
        started = time.monotonic()
        spec = self._spec(lineage, os_disk)
        machine = stack.enter_context(running(self.hypervisor, spec, self.deadline))
        self.started(machine)
        vm = stack.enter_context(forwarded(machine, lineage.identity, self.system, self.ssh_port))
        self.phase("Connecting", "Building")
        vm.wait_for_first_answer(self.deadline)
        session = Session(vm, lineage.identity, time.monotonic() - started, cold_disk=os_disk)
        if self._caching:
            session.recorder = self._recorder(lineage, ram_fingerprint(self.hypervisor, spec), os_disk, self.hold)
            session.recorder.take(vm, first_digest(self.plan.source, self.plan.machine), "", script_replaced=False)
        return session

    def _new_lineage(self) -> Lineage:
        if not self._caching:
            return Lineage.create(self.folder.work, self.system, keep=False)
        folder = self.hold.enter_context(self.checkpoints.new_lineage())
        return Lineage.create(folder, self.system, keep=True)

    def _edit(self, os_disk: DiskSpec, files: Mapping[str, bytes]) -> None:
        if not files:
            return
        self.say(f"Putting {', '.join(files)} into the disk")
        put_into_panther(
            self.hypervisor,
            os_disk,
            files,
            appliance=self.tools,
            work=self.folder.work,
            deadline=self.deadline,
            accel="kvm" if self.accel == "kvm" else "tcg",
        )

    def _spec(self, lineage: Lineage, os_disk: DiskSpec) -> MachineSpec:
        return machine_spec(
            self.plan,
            self.folder,
            lineage.identity,
            self.system,
            os_disk=os_disk,
            medium=lineage.medium,
            accel=self.accel,
        )

    def _recorder(
        self,
        lineage: Lineage,
        fingerprint: str,
        os_disk: DiskSpec,
        hold: ExitStack,
        *,
        parent: str = "",
        oldest: float = 0.0,
    ) -> Recorder:
        """`hold` is the stack that has the segment of `os_disk`: it must not end while that is being published."""
        recorder = Recorder(
            checkpoints=self.checkpoints, lineage=lineage, source=self.plan.source.digest, fingerprint=fingerprint,
            work=self.folder.work, deadline=self.deadline, say=self.say, stack=self.hold, disk=os_disk, parent=parent,
            oldest=oldest or time.time(),
        )  # fmt: skip
        hold.callback(recorder.finish)
        return recorder


class _Check:
    """Looks whether the files of a checkpoint and the disks it rests on are what was written, beside other work."""

    def __init__(self, checkpoints: Checkpoints, checkpoint: Checkpoint, names: tuple[str, ...]) -> None:
        self._wanted = [(checkpoint, [name for name in names if name in checkpoint.files])]
        self._wanted += [(link, [DISK]) for link in checkpoints.chain(checkpoint)[1:]]
        self._damage = ""
        self._thread = threading.Thread(target=self._look, name="checkpoint-sums")
        self._thread.start()

    def _look(self) -> None:
        for checkpoint, names in self._wanted:
            self._damage = self._damage or checkpoint.damage(names)

    def demand(self) -> None:
        """Wait for the answer; raises `Unusable` when something is damaged."""
        self._thread.join()
        if self._damage:
            raise Unusable(self._damage, forget=True)
