"""A kernel's first root file system, written by ourselves: cpio (newc) entries and the closure of kernel modules."""

from __future__ import annotations

import lzma
import re
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hypervisor.errors import HostError

_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")


@dataclass(slots=True)
class Initramfs:
    """Collects entries in order and writes one uncompressed cpio archive; every entry belongs to root."""

    _chunks: list[bytes] = field(default_factory=list)
    _folders: set[str] = field(default_factory=set)
    _inode: int = 0

    def add(self, path: str, content: bytes, *, mode: int = 0o644) -> None:
        """A regular file; its folders come by themselves."""
        self._entry(path, stat.S_IFREG | mode, content)

    def link(self, path: str, target: str) -> None:
        """A symbolic link."""
        self._entry(path, stat.S_IFLNK | 0o777, target.encode())

    def folder(self, path: str) -> None:
        """An (empty) folder."""
        name = path.strip("/")
        if name and name not in self._folders:
            self._folders.add(name)
            self._entry(name, stat.S_IFDIR | 0o755, b"")

    def device(self, path: str, major: int, minor: int) -> None:
        """A character device node."""
        self._entry(path, stat.S_IFCHR | 0o600, b"", (major, minor))

    def archive(self) -> bytes:
        """The whole archive, with its trailer."""
        return b"".join([*self._chunks, _record("TRAILER!!!", 0, 0, b"", (0, 0))])

    def _entry(self, path: str, mode: int, content: bytes, device: tuple[int, int] = (0, 0)) -> None:
        name = path.strip("/")
        parent = name.rpartition("/")[0]
        if parent:
            self.folder(parent)
        self._inode += 1
        self._chunks.append(_record(name, self._inode, mode, content, device))


def _record(name: str, inode: int, mode: int, content: bytes, device: tuple[int, int]) -> bytes:
    encoded = name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(mode) else 1
    fields = (inode, mode, 0, 0, links, 0, len(content), 0, 0, *device, len(encoded), 0)
    head = b"070701" + b"".join(b"%08X" % number for number in fields) + encoded
    return head + bytes(-len(head) % 4) + content + bytes(-len(content) % 4)


@dataclass(frozen=True, slots=True)
class Module:
    """A loadable kernel module: its name (with _) and its code, not compressed."""

    name: str
    code: bytes


def modules(tree: Path, wanted: Sequence[str]) -> tuple[Module, ...]:
    """The wanted modules of an unpacked kernel and all they depend on, in the order in which they must be loaded.

    Dependencies are read from the modules themselves (`depends=` in .modinfo): unpacked packages carry no
    modules.dep. A name that is built into the kernel is left out. Raises `HostError` for one that is neither.
    """
    files = {_name(path): path for path in tree.rglob("*.ko*")}
    builtin = {_name(Path(line)) for listing in tree.rglob("modules.builtin") for line in _lines(listing)}
    loaded: dict[str, Module] = {}

    def visit(name: str) -> None:
        if name in loaded or name in builtin:
            return
        if name not in files:
            raise HostError(f"the kernel under {tree} has no module {name!r}", hint="another kernel package is needed")
        code = _code(files[name])
        match = _DEPENDS.search(code)
        for dependency in _split(match.group(1) if match else b""):
            visit(dependency)
        loaded[name] = Module(name, code)

    for name in wanted:
        visit(name.replace("-", "_"))
    return tuple(loaded.values())


def _name(path: Path) -> str:
    return path.name.partition(".ko")[0].replace("-", "_")


def _lines(listing: Path) -> Iterable[str]:
    return listing.read_text().split()


def _split(depends: bytes) -> Iterable[str]:
    return [name.replace("-", "_") for name in depends.decode().split(",") if name]


def _code(path: Path) -> bytes:
    data = path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(data)
    if path.suffix != ".ko":
        raise HostError(f"{path}: modules compressed with {path.suffix} are not supported")
    return data
