"""From the power-off disk of the build VM to files that stand alone: a qcow2, a fixed VHD, a sha256 beside each."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from hypervisor import disk
from hypervisor.deadline import Deadline
from hypervisor.errors import HostError
from hypervisor.spec import DiskSpec
from orchestrator.plan.model import PlannedDistribution, RunPlan
from orchestrator.record import files
from orchestrator.template.model import VhdTarget

ExportFormat = Literal["qcow2", "vpc"]

_NAMES: dict[ExportFormat, str] = {"qcow2": "image.qcow2", "vpc": "image.vhd"}


@dataclass(frozen=True, slots=True)
class Artifact:
    """An exported disk. Bytes: `virtual_size` the disk's, `size` the file's length, `allocated` what it takes up."""

    path: Path
    format: ExportFormat
    virtual_size: int
    size: int
    allocated: int
    sha256: str


def formats_needed(distributions: Iterable[PlannedDistribution]) -> tuple[ExportFormat, ...]:
    """What the distributors take: a fixed VHD for VHD, a qcow2 for images (sparse, quick to boot from)."""
    wanted = {"vpc" if isinstance(planned.target, VhdTarget) else "qcow2" for planned in distributions}
    return tuple(format for format in _NAMES if format in wanted)


def export(plan: RunPlan, source: DiskSpec, folder: Path, deadline: Deadline) -> tuple[Artifact, ...]:
    """Write what the plan's distributions need into `folder`: flattened, sparse, compared with `source`.

    Nothing of it is there when an error is raised: `HostError` (no space left, qemu-img failed), `InputError` (the
    disk is damaged, or the copy differs), `DeadlineExceeded`, `Cancelled`.
    """
    targets = {format: folder / _NAMES[format] for format in formats_needed(plan.distributions)}
    with _all_or_nothing(tuple(targets.values()), folder):

        def one(format: ExportFormat) -> Artifact:
            target = targets[format]
            deadline.check(f"exporting {target.name}")
            _write(source, target, format, deadline)
            return _finished(target, format, files.sha256(target, deadline))

        # All at once: qemu-img is a process of its own, and hashing leaves the interpreter lock alone.
        with ThreadPoolExecutor(max(1, len(targets))) as pool:
            return tuple(pool.map(one, targets))


def checksum_file(path: Path) -> Path:
    """`FILE.sha256`."""
    return path.with_name(f"{path.name}.sha256")


def write_checksum(path: Path, sha256: str) -> None:
    """Put the sum beside the file in the syntax of sha256sum, so that `sha256sum -c` checks it in its folder."""
    files.publish(checksum_file(path), f"{sha256}  {path.name}\n".encode(), mode=0o644)


def _write(source: DiskSpec, target: Path, format: ExportFormat, deadline: Deadline) -> None:
    with files.translating("writing", target):
        checksum_file(target).unlink(missing_ok=True)
        write = disk.write_fixed_vhd if format == "vpc" else disk.write_qcow2
        write(source.path, cast(disk.DiskFormat, source.format), target, deadline)


def _finished(path: Path, format: ExportFormat, sha256: str) -> Artifact:
    write_checksum(path, sha256)
    with files.translating("reading", path):
        status = path.stat()
    virtual_size = disk.info(path, format).virtual_size
    return Artifact(path, format, virtual_size, status.st_size, status.st_blocks * 512, sha256)


@contextmanager
def _all_or_nothing(targets: tuple[Path, ...], folder: Path) -> Iterator[None]:
    whole = False
    try:
        yield
        whole = True
    except OSError as error:
        raise files.host_error(error, "exporting to", folder) from error
    except HostError as error:
        if "No space left on device" not in error.message:  # qemu-img tells of a full disk in its output only
            raise
        raise files.host_error(OSError(errno.ENOSPC, ""), "exporting to", folder) from error
    finally:
        if not whole:
            for path in (*targets, *map(checksum_file, targets)):
                with suppress(OSError):
                    path.unlink(missing_ok=True)
