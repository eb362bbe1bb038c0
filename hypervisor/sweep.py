"""What runs that were killed have left is ended and removed by the next call."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypervisor import runtime
from hypervisor.domain import owner_of
from hypervisor.libvirt_errors import NO_DOMAIN, NOT_RUNNING, HypervisorError, translated


@dataclass(frozen=True, slots=True)
class Swept:
    """A runtime folder that is gone now, the QEMU processes ended, the paths removed with it."""

    root: Path
    processes: tuple[int, ...]
    removed: tuple[Path, ...]


def sweep(parents: Iterable[Path] | None = None) -> list[Swept]:
    """Clean up behind dead owners in every place where runtime folders may lie.

    A folder is dead when nobody holds its lock: a living run is never touched, however many call this at once.
    Costs a directory listing when there is nothing to do.
    """
    done = []
    for parent in runtime.parents() if parents is None else parents:
        for folder in runtime.dead_folders(parent):
            listed = runtime.doomed(folder.path)
            ended = runtime.end_machines(folder.path)
            folder.remove()
            done.append(Swept(folder.path, tuple(ended), tuple(listed)))
    return done


def sweep_daemon(handle: Any) -> list[str]:
    """Destroy the domains of dead owners that a session or system daemon still runs; their names.

    AUTODESTROY ends them with their owner's connection; a daemon that was restarted meanwhile has forgotten that.
    """
    ended = []
    with translated("listing the domains"):
        domains = handle.listAllDomains()
    for domain in domains:
        try:
            with translated("looking for VMs of dead runs"):
                owner = owner_of(domain.XMLDesc(0))
                if owner is not None and runtime.is_dead(Path(owner[1])):
                    ended.append(domain.name())
                    domain.destroy()
        except HypervisorError as error:
            if error.code not in (NO_DOMAIN, NOT_RUNNING):
                raise
    return ended
