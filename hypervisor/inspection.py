"""What was found on a disk that nobody trusts: plain values, parsed from the inspection VM's archive."""

from __future__ import annotations

import fnmatch
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from hypervisor.errors import HostError

State = Literal["read", "not-inspected", "empty", "skipped"]
_TRAILER = 512
_ROOT_MARKS = ("etc/os-release", "Windows/System32")
_ROOT_DEPTH = 2  # folders above a root: Btrfs keeps it in a subvolume, such as `@` or `root`


class InspectionError(HostError):
    """The inspection as a whole failed: nothing may be concluded about the disk."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a file system: `kind` as find's %y (f, d, l, ...), permission bits, owner, bytes, seconds."""

    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    mtime: float
    target: str = ""


@dataclass(frozen=True, slots=True)
class FileSystem:
    """A partition (or the whole disk `vda`). Paths in `entries` and `files` start with / at its own root.

    `state`: "read"; "not-inspected" (with the reason in `detail`: never a pass); "empty" (no file system); "skipped"
    (swap). A "read" one with a `detail` was not seen completely.
    """

    device: str
    size: int
    type: str
    state: State
    detail: str = ""
    entries: Mapping[str, Entry] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    root: str | None = None
    """Where in it a system's root is ("" for the top, "/@" in a Btrfs subvolume); None when it has none."""
    names: int = 0
    """How many names it holds, listed or not."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """Everything read from one disk. `holders` are the names of files that hold one of the asked-for needles."""

    file_systems: tuple[FileSystem, ...]
    holders: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every file system was read, entirely, and a system's root was among them."""
        unread = [found for found in self.file_systems if found.state == "not-inspected" or found.detail]
        return self.root is not None and not [found for found in unread if found.state != "skipped"]

    @property
    def root(self) -> FileSystem | None:
        """The file system that holds the operating system."""
        return next((found for found in self.file_systems if found.root is not None), None)

    @property
    def files(self) -> Mapping[str, bytes]:
        """Contents by the name that `name` gives."""
        return {self.name(found, path): data for found in self.file_systems for path, data in found.files.items()}

    def matching(self, pattern: str) -> Iterator[tuple[str, Entry]]:
        """(name, entry) of what matches; `*` matches slashes too."""
        for found in self.file_systems:
            for path, entry in found.entries.items():
                name = self.name(found, path)
                if fnmatch.fnmatchcase(name, pattern):
                    yield name, entry

    @staticmethod
    def name(found: FileSystem, path: str) -> str:
        """The path as the running system would have it, or `[vda2]/path` outside its root."""
        if found.root is not None and path.startswith(f"{found.root}/"):
            return path[len(found.root) :]
        return f"[{found.device}]{path}"


def parse(output: Path, total_limit: int, console: str) -> Inspection:
    """The Inspection in the output disk that the VM wrote; `console` is the end of what it printed.

    The archive is only read, never extracted. Raises `InspectionError` when it is not complete, makes no sense, or
    holds more than `total_limit` bytes of file contents.
    """
    parse_verdict(output, console)
    members: dict[str, bytes] = {}
    total = 0
    try:
        with tarfile.open(output, "r:", encoding="utf-8", errors="surrogateescape") as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isreg() else None
                if content is None:
                    continue
                total += member.size
                if total > total_limit:
                    raise InspectionError(f"the files asked for have more than {total_limit} bytes")
                members[member.name.lstrip("/")] = content.read()
    except tarfile.TarError as error:
        raise InspectionError(f"the inspection VM's archive cannot be read: {error}") from error
    return _assemble(members)


def parse_verdict(output: Path, console: str) -> None:
    """Raise `InspectionError` unless the VM says, at the end of its output disk, that it did all it was asked to.

    A VM that says nothing there was ended in the middle: only its `console` can tell why, so the error quotes it.
    """
    with output.open("rb") as stream:
        stream.seek(-_TRAILER, 2)
        trailer = stream.read().decode(errors="replace").strip()
    verdict, _, reason = trailer.removeprefix("aib-inspect ").partition(" ")
    if not trailer.startswith("aib-inspect ") or verdict != "complete":
        unfinished = f"the inspection VM did not finish; its console ends with:\n{console.strip() or '(nothing)'}"
        raise InspectionError(f"the disk could not be inspected: {reason or unfinished}")


def _assemble(members: Mapping[str, bytes]) -> Inspection:
    found = []
    for line in _text(members.get("out/file-systems", b"")).splitlines():
        device, size, kind, state, names, detail = line.split("\t", 5)
        prefix = f"disk/{device}"
        entries = _entries(members.get(f"out/{device}.list", b""), f"/{prefix}")
        files = {name[len(prefix) :]: data for name, data in members.items() if name.startswith(f"{prefix}/")}
        status: State = state if state in ("read", "empty", "skipped") else "not-inspected"  # type: ignore[assignment]  # narrowed by the test
        root = _root(entries)
        found.append(FileSystem(device, int(size), kind, status, detail.strip(), entries, files, root, int(names)))
    if not found:
        raise InspectionError("the inspection VM saw no disk")
    by_mount = {f"/disk/{item.device}": item for item in found}
    holders = []
    for raw in filter(None, members.get("out/holders", b"").split(b"\0")):
        path = _text(raw)
        base = "/".join(path.split("/")[:3])
        holders.append(Inspection.name(by_mount[base], path[len(base) :]) if base in by_mount else path)
    return Inspection(tuple(found), tuple(holders))


def _entries(listing: bytes, prefix: str) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    words = listing.split(b"\0")
    for numbers, path, target in zip(words[0::3], words[1::3], words[2::3], strict=False):
        kind, mode, uid, gid, size, mtime = numbers.decode().split(" ")
        entry = Entry(kind, int(mode, 8), int(uid), int(gid), int(size), float(mtime), _text(target))
        entries[_text(path).removeprefix(prefix)] = entry
    return entries


def _root(entries: Mapping[str, Entry]) -> str | None:
    """The shortest prefix under which there is an operating system."""
    tops = ["", *(path for path, entry in entries.items() if entry.kind == "d" and path.count("/") <= _ROOT_DEPTH)]
    marks = [top for top in tops if any(f"{top}/{mark}" in entries for mark in _ROOT_MARKS)]
    return min(marks, key=len) if marks else None


def _text(data: bytes) -> str:
    return data.decode("utf-8", errors="surrogateescape")
