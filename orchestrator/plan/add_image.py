"""A disk file becomes a source image: proved, checked, looked into, stored as a layer, and given a name."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hypervisor import disk
from hypervisor.deadline import Deadline
from hypervisor.disk import DiskFormat
from hypervisor.errors import InputError
from hypervisor.partitions import Generation, System, table_generations
from hypervisor.vhd_footer import fixed_size
from orchestrator.record import files
from orchestrator.record.store import Layer, Store

Say = Callable[[str], None]
STAGING = "incoming"
"""Folder of a store for disks on their way in: the same file system, so that they are moved and not copied."""


@dataclass(frozen=True, slots=True)
class DiskFacts:
    """What was found in a disk file, or was said by the user where it cannot be found. `virtual_size` in bytes."""

    format: DiskFormat
    virtual_size: int
    os: System
    generation: Generation
    generations: tuple[Generation, ...]


def examine(
    path: Path, deadline: Deadline, *, system: System | None = None, generation: Generation | None = None
) -> DiskFacts:
    """Prove the format, check that the image is whole and stands alone, and find out what is on it.

    `system` and `generation` are the user's word for what the disk does not show; a generation that the partition table
    contradicts is refused. Raises `InputError`.
    """
    format = disk.detect_format(path)
    checked = disk.check(path, format, deadline)
    table = checked.table
    found = table_generations(table)
    if generation and table.partitions and found and generation not in found:
        raise InputError(
            f"{path} cannot boot as {generation}: its partition table shows {', '.join(sorted(found))}",
            hint="V1 boots by BIOS (boot code), V2 by UEFI (an EFI system partition); leave the option out",
        )
    if not found and generation is None:
        raise InputError(
            f"{path} shows neither BIOS boot code nor an EFI system partition: it does not boot by itself",
            hint="if you know better, say how it boots: --generation V1 or V2",
        )
    seen = disk.operating_system(path, format, table)
    if system and seen and system != seen:
        raise InputError(f"{path} holds a {seen} system, not {system}", hint="leave --os out")
    kind = system or seen
    if kind is None:
        raise InputError(f"{path}: its file systems do not show what system it is", hint="say it: --os linux|windows")
    able: tuple[Generation, ...] = tuple(sorted(found)) or ((generation,) if generation else ())
    return DiskFacts(format, checked.info.virtual_size, kind, generation or able[0], able)


@contextmanager
def staging(store: Store) -> Iterator[Path]:
    """A private folder in the store for one incoming disk; gone afterwards."""
    parent = store.home / STAGING
    with files.translating("creating", parent):
        parent.mkdir(mode=0o700, exist_ok=True)
        folder = tempfile.TemporaryDirectory(prefix="in-", dir=parent)
    with folder as name:
        yield Path(name)


def add_layer(store: Store, path: Path, facts: DiskFacts, deadline: Deadline, *, ours: bool) -> Layer:
    """Store the disk as a qcow2 layer: a qcow2 as it is, any other format converted and compared.

    Every hypervisor driver boots qcow2, and its digest is over what is allocated: hashing the zeros of a raw disk or a
    fixed VHD takes longer than converting it. `ours` lets the file be moved. The layer is protected until a resource
    names it (`Store.add_layer`).
    """
    if facts.format == "qcow2":
        return store.add_layer(path, "qcow2", move=ours, virtual_size=facts.virtual_size, deadline=deadline)
    with staging(store) as folder:
        source, format, size = path, facts.format, facts.virtual_size
        fixed = fixed_size(path) if format == "vpc" else None
        if fixed is not None:
            source, format, size = folder / "disk.raw", "raw", fixed
            files.publish_copy(path, source, deadline=deadline)
            with files.translating("cutting the footer from", source):
                os.truncate(source, fixed)
        part = folder / "disk.qcow2"
        disk.write_qcow2(source, format, part, deadline)
        return store.add_layer(part, "qcow2", move=True, virtual_size=size, deadline=deadline)


def image_properties(layer: Layer, facts: DiskFacts, source: Mapping[str, Any]) -> dict[str, Any]:
    """`properties["aib"]` of an image-like resource; `source` says where it came from."""
    return {
        "digest": layer.digest,
        "format": layer.format,
        "virtualSize": layer.virtual_size,
        "os": facts.os,
        "generation": facts.generation,
        "generations": list(facts.generations),
        "source": {**source, "added": datetime.now(UTC).isoformat(timespec="seconds")},
    }
