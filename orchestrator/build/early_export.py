"""The disk exported while the proof is still being made: nothing of it is kept when the image is not generalized."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import Self

from hypervisor.deadline import Deadline
from hypervisor.errors import AibError
from hypervisor.spec import DiskSpec
from orchestrator.build.export import Artifact, checksum_file, export
from orchestrator.plan.model import RunPlan
from orchestrator.record.runs import RunFolder
from orchestrator.record.store import Store


class EarlyExport:
    """Writes the plan's artifacts, and the layer that images are published from, beside other work.

    Whoever leaves the block with an error leaves nothing of them behind.
    """

    def __init__(self, plan: RunPlan, disk: DiskSpec, folder: RunFolder, store: Store, deadline: Deadline) -> None:
        self._plan = plan
        self._disk = disk
        self._folder = folder.artifacts
        self._store = store
        self._deadline = deadline
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="export")
        self._done: Future[tuple[Artifact, ...]]

    def artifacts(self) -> tuple[Artifact, ...]:
        """Wait for the artifacts; raises what `export` raises."""
        return self._done.result()

    def _work(self) -> tuple[Artifact, ...]:
        artifacts = export(self._plan, self._disk, self._folder, self._deadline)
        # A store that cannot take it is told of by the distributors, which try again.
        with suppress(AibError):
            for artifact in artifacts:
                if artifact.format == "qcow2":
                    self._store.add_layer(
                        artifact.path,
                        artifact.format,
                        move=False,
                        virtual_size=artifact.virtual_size,
                        digest=artifact.sha256,
                        deadline=self._deadline,
                    )
        return artifacts

    def __enter__(self) -> Self:
        self._done = self._pool.submit(self._work)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()
        if kind is None or self._done.exception() is not None:
            return
        for artifact in self._done.result():
            artifact.path.unlink(missing_ok=True)
            checksum_file(artifact.path).unlink(missing_ok=True)
        forget_layers(self._done.result(), self._store)


def forget_layers(artifacts: tuple[Artifact, ...], store: Store) -> None:
    """Give the layers made of these disks up, and remove those that no resource refers to."""
    for artifact in artifacts:
        if artifact.format == "qcow2":
            store.release_layer(artifact.sha256)
            with suppress(AibError):  # `aib gc` removes it then
                store.remove_layer(artifact.sha256)
