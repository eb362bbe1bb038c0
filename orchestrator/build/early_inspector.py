"""An inspection VM that boots while the build VM is still being generalized: the proof need not wait for it."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from hypervisor.appliance import Appliance
from hypervisor.connection import Hypervisor
from hypervisor.deadline import Deadline
from hypervisor.errors import AibError
from hypervisor.inspect import Inspection, Inspector, Request, inspector, read
from hypervisor.spec import AccelName, DiskSpec


class EarlyInspector:
    """Starts the VM beside other work, when it is told to; it is gone at the end of the block."""

    def __init__(
        self, hypervisor: Hypervisor, appliance: Appliance, work: Path, deadline: Deadline, accel: AccelName
    ) -> None:
        self._hypervisor = hypervisor
        self._appliance = appliance
        self._work = work
        self._deadline = deadline
        self._accel = accel
        self._stack = ExitStack()
        self._thread: threading.Thread | None = None
        self._ready: Inspector | None = None

    def start(self) -> None:
        """Start the VM; returns at once. A VM that cannot be started now is tried again by `read`."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._start, name="inspector")
            self._thread.start()

    def _start(self) -> None:
        try:
            self._ready = self._stack.enter_context(
                inspector(
                    self._hypervisor,
                    appliance=self._appliance,
                    work=self._work,
                    deadline=self._deadline,
                    accel=self._accel,
                )
            )
        except AibError:
            self._ready = None  # no memory for a second VM, perhaps: the first one will have ended by then

    def read(self, disk: DiskSpec, request: Request) -> Inspection:
        """Read `disk`, with the VM that stands ready or with a new one; raises as `Inspector.read` does."""
        if self._thread is not None:
            self._thread.join()
        ready, self._ready = self._ready, None
        if ready is not None and ready.machine.is_running() and not ready.machine.reboots():
            return ready.read(disk, request)
        return read(
            self._hypervisor,
            disk,
            request,
            appliance=self._appliance,
            work=self._work,
            deadline=self._deadline,
            accel=self._accel,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is not None:
            self._thread.join()
        self._stack.close()
