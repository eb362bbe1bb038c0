"""Who may build now: one queue per store, over all processes, so that builds take no more than this machine has.

Every build that runs or waits holds a ticket: a file in `locks/builds` that its process keeps locked, so that nobody's
death blocks the others. Builds that a person started on a terminal run at once and are counted; those of the server
wait for room, in the order in which they came, and one that fits may pass one that does not.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from orchestrator.build.at_once import POLL, Needs, fits
from orchestrator.plan import sizes
from orchestrator.plan.sizes import HostCapacity
from orchestrator.record import files, locks
from orchestrator.template.model import Template


@dataclass(frozen=True, slots=True)
class Need:
    """What one build VM takes."""

    vcpus: int
    memory_mib: int


def need_of(template: Template, host: HostCapacity) -> Need:
    """What the size decides that a build takes; an unnamed one counts as the default of generation 1.

    Raises `TemplateError` for an unknown size.
    """
    size = template.vm_profile.vm_size or sizes.default_size("V1")
    granted = sizes.grant(sizes.find(size), host, strict=False)
    return Need(granted.vcpus, granted.memory_mib)


class Slots:
    """The queue of the store in `home`."""

    def __init__(self, home: Path, host: HostCapacity | None = None) -> None:
        self._folder = home / "locks" / "builds"
        self._host = host or HostCapacity.measured()
        with files.translating("creating", self._folder):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    @contextmanager
    def counted(self, need: Needs) -> Iterator[None]:
        """Build during the block without waiting."""
        with self._ticket(need, running=True):
            yield

    @contextmanager
    def waited_for(self, need: Needs, stop: Callable[[float], bool], waiting: Callable[[], None]) -> Iterator[bool]:
        """Wait for room, then build during the block; false when `stop` said so before there was any.

        `stop` waits the seconds it is given and says whether to give up. `waiting` is called once if there is no room.
        """
        with self._ticket(need, running=False) as ticket:
            granted = self._granted(ticket, need)
            if not granted:
                waiting()
            while not granted:
                if stop(POLL):
                    break
                granted = self._granted(ticket, need)
            yield granted

    def _granted(self, ticket: Path, need: Needs) -> bool:
        with locks.locked(self._folder / ".queue", exclusive=True):
            busy: list[Need] = []
            before: list[Need] = []
            for path in sorted(self._folder.glob("*.ticket")):
                if path == ticket or (state := _read(path)) is None:
                    continue
                other, running = state
                if running:
                    busy.append(other)
                elif path < ticket:
                    before.append(other)
            if not fits(need, busy, self._host) or any(fits(other, busy, self._host) for other in before):
                return False
            _write(ticket, need, running=True)
            return True

    @contextmanager
    def _ticket(self, need: Needs, *, running: bool) -> Iterator[Path]:
        path = self._folder / f"{time.time_ns():020}-{secrets.token_hex(4)}.ticket"
        with locks.locked(self._folder / ".queue", exclusive=True):  # nobody may see it before it is locked
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            locks.lock(fd, path, exclusive=True)
            _write(path, need, running=running)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)
            os.close(fd)


def _write(path: Path, need: Needs, *, running: bool) -> None:
    path.write_text(json.dumps({"vcpus": need.vcpus, "memoryMiB": need.memory_mib, "running": running}))


def _read(path: Path) -> tuple[Need, bool] | None:
    """What a living ticket says; one whose process is dead is removed."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        if locks.try_lock(fd, exclusive=True):
            path.unlink(missing_ok=True)
            return None
        state = json.loads(path.read_text())
        return Need(state["vcpus"], state["memoryMiB"]), state["running"]
    except (FileNotFoundError, ValueError, KeyError):
        return None  # it ended meanwhile
    finally:
        os.close(fd)
