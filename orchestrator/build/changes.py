"""What differs between two disks, told as an administrator would: files, packages, users, services, schedules."""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from hypervisor.inspection import Entry, Inspection

READ = ("/etc/*", "/usr/local/*", "/opt/*", "/root/*", "/home/*", "/var/spool/cron/*", "/var/lib/dpkg/status")
"""Files whose contents are compared (find's -path patterns); of others size, time, mode and owner."""
LARGEST = 256 * 1024
MOST_DIFF_LINES = 400

_NOISE = (
    "/var/log/*", "/run/*", "/var/run/*", "/tmp/*", "/var/tmp/*", "/var/cache/*", "/var/lib/systemd/*",
    "/var/lib/cloud/*", "/var/lib/dhcp/*", "/var/lib/dpkg/*", "/var/lib/apt/*", "*/lost+found", "/etc/ld.so.cache",
    "*.pyc", "*/__pycache__*",
)  # fmt: skip
_SECRET = ("/etc/shadow*", "/etc/gshadow*", "*_key", "*.pem", "*.key", "*/.ssh/id_*", "*/authorized_keys")
_UNIT = re.compile(r"/etc/systemd/system/[^/]+\.(?:wants|requires)/[^/]+")
_SERVICE = re.compile(
    r"(?:(?:/usr)?/lib|/etc)/systemd/system/[^/]+\.(?:service|socket|timer|mount|path)|/etc/init\.d/[^/]+"
)
_DEEP = 2
_CRON = ("/etc/cron*", "/var/spool/cron/*")
_FIREWALL = ("/etc/nftables*", "/etc/iptables/*", "/etc/ufw/*", "/etc/firewalld/*")

Kind = Literal["added", "changed", "removed"]


@dataclass(frozen=True, slots=True)
class FileChange:
    """One path. `what` names what changed (contents, mode, owner, type, target, time); `diff` its lines, where text."""

    path: str
    kind: Kind
    what: tuple[str, ...] = ()
    diff: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Changes:
    """Everything that differs. `noise` counts paths that every running system changes (logs, caches, state).

    `size` is by how many bytes the files grew. The named lists hold lines such as `+ curl 7.88.1-10`.
    """

    files: tuple[FileChange, ...]
    packages: tuple[str, ...]
    users: tuple[str, ...]
    groups: tuple[str, ...]
    services: tuple[str, ...]
    units: tuple[str, ...]
    """The enabled ones: the links by which systemd starts them."""
    cron: tuple[str, ...]
    firewall: tuple[str, ...]
    noise: int
    size: int
    usage: Mapping[str, int]
    """Folder (two levels deep) -> by how many bytes its files grew, the greatest difference first; noise included."""
    unread: tuple[str, ...]
    """File systems that could not be read, and why: of these nothing is known."""

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def compare(before: Inspection, after: Inspection, *, everything: bool = False) -> Changes:
    """What is different in `after`. With `everything` nothing counts as noise."""
    old, new = _entries(before), _entries(after)
    paths = sorted(path for path in old.keys() | new.keys() if _differs(old.get(path), new.get(path)))
    quiet = [path for path in paths if not everything and _any(path, _NOISE)]
    told = [_told(path, old.get(path), new.get(path), before, after) for path in paths if path not in set(quiet)]
    files = tuple(change for change in told if change is not None)
    return Changes(
        files=files,
        packages=_lines(_packages(before), _packages(after)),
        users=_lines(_names(before, "/etc/passwd"), _names(after, "/etc/passwd")),
        groups=_lines(_names(before, "/etc/group"), _names(after, "/etc/group")),
        services=_paths(files, lambda path: bool(_SERVICE.fullmatch(path))),
        units=_paths(files, lambda path: bool(_UNIT.fullmatch(path))),
        cron=_paths(files, lambda path: _any(path, _CRON)),
        firewall=_paths(files, lambda path: _any(path, _FIREWALL)),
        noise=len(quiet),
        size=_total(new) - _total(old),
        usage=_usage(old, new),
        unread=tuple(
            f"{found.device}: {found.detail or found.state}"
            for side in (before, after)
            for found in side.file_systems
            if found.state == "not-inspected" or found.detail
        ),
    )


def _entries(side: Inspection) -> dict[str, Entry]:
    return {side.name(found, path): entry for found in side.file_systems for path, entry in found.entries.items()}


def _differs(old: Entry | None, new: Entry | None) -> bool:
    if old is None or new is None or old.kind != new.kind:
        return True
    if old.kind == "d":  # its time and size only say that something in it changed
        return (old.mode, old.uid, old.gid) != (new.mode, new.uid, new.gid)
    return old != new


def _told(path: str, old: Entry | None, new: Entry | None, before: Inspection, after: Inspection) -> FileChange | None:
    texts = before.files.get(path), after.files.get(path)
    if old is None or new is None:
        kind: Kind = "added" if old is None else "removed"
        return FileChange(path, kind, (), _diff(path, texts))
    what = [name for name in ("kind", "mode", "target") if getattr(old, name) != getattr(new, name)]
    what += ["owner"] * ((old.uid, old.gid) != (new.uid, new.gid))
    same = texts[0] == texts[1] if None not in texts else (old.size, old.mtime) == (new.size, new.mtime)
    if not same:
        what.append("contents")
    if not what:
        return None  # written again with the same contents: nothing that an image would show
    return FileChange(path, "changed", tuple(what), _diff(path, texts) if not same else ())


def _diff(path: str, texts: tuple[bytes | None, bytes | None]) -> tuple[str, ...]:
    """The lines that differ; none for binary, unread and secret files."""
    if all(text is None for text in texts) or _any(path, _SECRET):
        return ()
    try:
        old, new = ((text or b"").decode().splitlines() for text in texts)
    except UnicodeDecodeError:
        return ()
    if "\0" in "".join((*old, *new)):
        return ()
    lines = [line for line in difflib.unified_diff(old, new, lineterm="", n=1) if not line.startswith(("---", "+++"))]
    more = len(lines) - MOST_DIFF_LINES
    return (*lines[:MOST_DIFF_LINES], *([f"... and {more} lines more"] if more > 0 else []))


def _packages(side: Inspection) -> Mapping[str, str]:
    """Installed packages of dpkg, with their versions."""
    found = {}
    for paragraph in side.files.get("/var/lib/dpkg/status", b"").decode(errors="replace").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and line[0] != " ")
        if fields.get("Status", "").endswith(" installed"):
            found[fields.get("Package", "")] = fields.get("Version", "")
    return found


def _names(side: Inspection, path: str) -> Mapping[str, str]:
    """Name -> the rest of its line, in passwd and group files."""
    lines = side.files.get(path, b"").decode(errors="replace").splitlines()
    return {name: rest for name, colon, rest in (line.partition(":") for line in lines) if colon}


def _lines(old: Mapping[str, str], new: Mapping[str, str]) -> tuple[str, ...]:
    found = []
    for name in sorted(old.keys() | new.keys()):
        if name not in old:
            found.append(f"+ {name} {new[name]}")
        elif name not in new:
            found.append(f"- {name} {old[name]}")
        elif old[name] != new[name]:
            found.append(f"~ {name} {old[name]} -> {new[name]}")
    return tuple(found)


def _paths(files: Iterable[FileChange], wanted: Any) -> tuple[str, ...]:
    marks = {"added": "+", "removed": "-", "changed": "~"}
    return tuple(f"{marks[change.kind]} {change.path}" for change in files if wanted(change.path))


def _any(path: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


def _total(entries: Mapping[str, Entry]) -> int:
    return sum(entry.size for entry in entries.values() if entry.kind == "f")


def _usage(old: Mapping[str, Entry], new: Mapping[str, Entry]) -> Mapping[str, int]:
    grown: Counter[str] = Counter()
    for entries, sign in ((old, -1), (new, 1)):
        for path, entry in entries.items():
            if entry.kind == "f":
                grown["/".join(path.split("/")[:-1][: _DEEP + 1]) or "/"] += sign * entry.size
    return {folder: size for folder, size in sorted(grown.items(), key=lambda one: -abs(one[1])) if size}
