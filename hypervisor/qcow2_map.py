"""Where the data of a qcow2 and of its backing files lies, so that it can be read without being converted."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypervisor.deadline import Deadline
from hypervisor.process import run


@dataclass(frozen=True, slots=True)
class Piece:
    """`length` bytes of the disk from `start` on are in the file `path` from `offset` on."""

    start: int
    length: int
    path: Path
    offset: int


def written(disk: Path, format: str, base: Path | None, deadline: Deadline) -> list[Piece] | None:
    """All data of the disk in order, without what still is as in `base` (an image of its backing chain).

    None when it cannot be read in place: another format than qcow2, or compressed clusters. Raises `ProcessError`.
    """
    if format != "qcow2":
        return None
    argv: list[str | Path] = ["qemu-img", "info", "--backing-chain", "--output=json", "-f", "qcow2", disk]
    chain: list[dict[str, Any]] = json.loads(run(argv, deadline=deadline).stdout)
    paths = [(disk.parent / one["filename"]).resolve() for one in chain]
    depth = paths.index(base.resolve()) if base is not None and base.resolve() in paths else len(paths)
    argv = ["qemu-img", "map", "--output=json", "-f", "qcow2", disk]
    pieces = []
    for entry in json.loads(run(argv, deadline=deadline).stdout):
        if not entry["data"] or entry["zero"] or entry["depth"] >= depth:
            continue
        if "offset" not in entry:
            return None
        pieces.append(Piece(entry["start"], entry["length"], paths[entry["depth"]], entry["offset"]))
    return pieces
