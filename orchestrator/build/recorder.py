"""Taking checkpoints while a run goes on: freeze after a step, sum and publish while the next one runs."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from hypervisor import disk, snapshot
from hypervisor.deadline import Deadline
from hypervisor.errors import AibError, BuildError, HostError
from hypervisor.spec import DiskSpec
from orchestrator.build.build_vm import BuildVm
from orchestrator.build.lineage import Lineage
from orchestrator.record import files
from orchestrator.record.checkpoints import DISK, MEMORY, NVRAM, Checkpoint, Checkpoints, FileSum

SYNC_SECONDS = 120.0
ROOM = 1 << 30
"""Bytes that stay free on the store's file system: a checkpoint is worth less than the build that it would stop."""


@dataclass
class Recorder:
    """Keeps the disk that the guest writes in checkpoint folders, and takes the checkpoints of one run."""

    checkpoints: Checkpoints
    lineage: Lineage
    source: str
    fingerprint: str
    work: Path
    deadline: Deadline
    say: Callable[[str], None]
    stack: ExitStack
    """Ends with the run: locks, and segments that were never published."""
    disk: DiskSpec
    """What the guest writes now."""
    parent: str = ""
    oldest: float = field(default_factory=time.time)
    _off: bool = field(default=False, init=False)
    _publishing: threading.Thread | None = field(default=None, init=False)

    def take(self, vm: BuildVm, key: str, step: str, *, script_replaced: bool, last: bool = False) -> float:
        """A checkpoint of the guest as it is now; the seconds that it stood still (0.0: none was taken).

        A machine that has no room, or a QEMU that refuses, costs the checkpoint and not the build: that is said once.
        After the `last` one the guest writes into the run's own folder.
        """
        if self._off or not self._room(vm):
            return 0.0
        segment = self.disk.path.parent
        try:
            target = self.work / DISK if last else self._segment() / DISK
            disk.create_overlay(self.disk.path, "qcow2", target, None, self.deadline)
            vm.communicator.run("sync", deadline=self.deadline.limited(SYNC_SECONDS, "writing the guest's disk"))
            started = time.monotonic()
            snapshot.save(vm.machine, segment / MEMORY, target, nvram=segment / NVRAM)
            seconds = time.monotonic() - started
        except (HostError, BuildError) as error:
            self.deadline.check("taking a checkpoint")
            self._give_up(error.message)
            return 0.0
        self.disk = DiskSpec(target, "qcow2", serial=self.disk.serial)
        taken = Checkpoint(
            id=segment.name, folder=segment, key=key, step=step, parent=self.parent, lineage=self.lineage.id,
            source=self.source, created=time.time(), oldest=self.oldest, fingerprint=self.fingerprint,
            machine=vm.machine.spec.name, uuid=vm.machine.spec.uuid, script_replaced=script_replaced, files={},
        )  # fmt: skip
        self.parent = taken.id
        self.finish()
        self._publishing = threading.Thread(target=self._publish, args=(taken,), name="checkpoint")
        self._publishing.start()
        return seconds

    def _segment(self) -> Path:
        """A new segment. When the run ends, it is published before anybody asks whether it was."""
        folder = self.stack.enter_context(self.checkpoints.segment())
        self.stack.callback(self.finish)
        return folder

    def finish(self) -> None:
        """Wait until the last checkpoint is published: a child must not be seen before its parent."""
        if self._publishing is not None:
            self._publishing.join()
            self._publishing = None

    def _room(self, vm: BuildVm) -> bool:
        free = shutil.disk_usage(self.checkpoints.folder).free
        wanted = ROOM + vm.machine.spec.memory_mib * (1 << 20) // 2
        if free >= wanted:
            return True
        self._give_up(f"only {free >> 20} MiB are free in {self.checkpoints.folder}, and {wanted >> 20} MiB are wanted")
        return False

    def _give_up(self, why: str) -> None:
        self._off = True
        self.say(f"No checkpoints from here on: {why}")

    def _publish(self, taken: Checkpoint) -> None:
        """Beside the guest's next step: the sums, then the manifest.

        Nothing is flushed here, which would hold up the guest's own writing: whoever goes on from a checkpoint holds
        its files against their sums first, so that what a power loss took is noticed and made anew.
        """
        try:
            sums = {}
            for name in (DISK, MEMORY, NVRAM):
                path = taken.folder / name
                if path.exists():
                    path.chmod(0o444)
                    sums[name] = FileSum(path.stat().st_size, files.sha256(path))
            self.checkpoints.publish(replace(taken, files=sums))
        except (AibError, OSError) as error:
            self._give_up(str(error))
