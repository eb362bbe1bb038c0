"""Distribution packages as files: resolved, fetched and unpacked with apt, without root and without installing.

Only the sources this machine already uses; apt checks signatures and sums. The host's own package database is left
out of sight (an empty one is given), so that the result does not depend on what happens to be installed here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from hypervisor.deadline import Deadline
from hypervisor.errors import HostError, InputError
from hypervisor.process import ProcessError, run

LISTS = Path("/var/lib/apt/lists")
_HINT = "check that /etc/apt names a Debian mirror that answers (try: apt-get update)"
_MERGED = ("bin", "sbin", "lib", "lib64")


class PackagesUnavailable(InputError):
    """apt cannot give the packages asked for."""


def fingerprint(lists: Path = LISTS) -> str:
    """Changes when this machine's package lists change; "none" where it has none. Costs no more than a few stats."""
    digest = hashlib.sha256()
    releases = sorted(lists.glob("*Release")) if lists.is_dir() else []
    for release in releases:
        stat = release.stat()
        digest.update(f"{release.name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16] if releases else "none"


class Apt:
    """apt over a private state under `work`: the machine's sources and lists, but none of its installed packages.

    Package lists that are missing or older than the mirror are renewed once, in a private copy. Every method raises
    `PackagesUnavailable` when apt knows no such package or cannot download it, and `ToolMissing` without apt.
    """

    def __init__(self, work: Path, lists: Path = LISTS) -> None:
        self._work = work
        self._lists = lists
        self._renewed = False
        self._archives = work / "cache/archives"
        (self._archives / "partial").mkdir(parents=True, exist_ok=True)
        (work / "status").touch()

    def depends(self, name: str, prefix: str, deadline: Deadline) -> str:
        """The package whose name starts with `prefix` among what `name` depends on (a kernel behind its flavour)."""
        listed = self._run(["apt-cache", *self._options(), "depends", name], name, deadline).decode()
        for line in listed.splitlines():
            kind, _, dependency = line.strip().partition(": ")
            if kind == "Depends" and dependency.startswith(prefix):
                return dependency
        raise PackagesUnavailable(f"the package {name} depends on no {prefix}*", hint=_HINT)

    def fetch(self, names: Sequence[str], deadline: Deadline, *, with_dependencies: bool = True) -> dict[str, Path]:
        """Download the packages, and what they depend on (never what they recommend); returns name -> .deb file."""
        before = set(self._archives.glob("*.deb"))
        verb = ["install", "--download-only"] if with_dependencies else ["download"]
        self._run(["apt-get", "-q", *self._options(), *verb, *names], " ".join(names), deadline)
        new = sorted(set(self._archives.glob("*.deb")) - before)
        return {file.name.partition("_")[0]: file for file in new}

    def _run(self, argv: Sequence[str | Path], asked: str, deadline: Deadline) -> bytes:
        try:
            return run(argv, deadline=deadline, cwd=self._archives).stdout
        except ProcessError as error:
            if self._renewed:
                raise PackagesUnavailable(
                    f"{asked}: not to be had from this machine's apt sources: {error.message}", hint=_HINT
                ) from error
        old = f"-oDir::State::lists={self._lists}"
        self._renew(deadline)
        new = f"-oDir::State::lists={self._lists}"
        return self._run([new if word == old else word for word in argv], asked, deadline)

    def _renew(self, deadline: Deadline) -> None:
        self._renewed = True
        self._lists = self._work / "lists"
        (self._lists / "partial").mkdir(parents=True, exist_ok=True)
        try:
            run(["apt-get", "-q", *self._options(), "update"], deadline=deadline)
        except ProcessError as error:
            raise PackagesUnavailable(
                f"this machine's package lists cannot be renewed: {error.message}", hint=_HINT
            ) from error

    def _options(self) -> list[str]:
        options = {
            "Dir::State::status": self._work / "status",
            "Dir::State::lists": self._lists,
            "Dir::Cache": self._work / "cache",
            "Debug::NoLocking": "1",  # everything written to is ours alone; the system's lists are only read
            "APT::Sandbox::User": "root",  # the download folder is private: the _apt user could not write there
            "APT::Get::Assume-Yes": "1",
            "APT::Install-Recommends": "0",
            "Acquire::Retries": "3",
        }
        return [f"-o{name}={value}" for name, value in options.items()]


def unpack(debs: Iterable[Path], root: Path, deadline: Deadline) -> None:
    """Unpack packages into `root`, a merged-/usr tree; no maintainer script runs. Owners are whoever runs this."""
    for name in _MERGED:
        (root / "usr" / name).mkdir(parents=True, exist_ok=True)
        if not (root / name).is_symlink():
            (root / name).symlink_to(f"usr/{name}")
    script = 'dpkg-deb --fsys-tarfile "$1" | tar --extract --keep-directory-symlink --directory "$2"'
    for deb in debs:
        run(["bash", "-o", "pipefail", "-c", script, "unpack", deb, root], deadline=deadline)


def run_unpacked(root: Path, argv: Sequence[str | Path], deadline: Deadline) -> bytes:
    """Run a program of the unpacked tree with the libraries of that tree, on this host; returns its stdout."""
    program = root / str(argv[0]).lstrip("/")
    return run([*_loader(root), program, *argv[1:]], deadline=deadline).stdout


def libraries(root: Path, program: str, deadline: Deadline) -> tuple[str, ...]:
    """Paths inside `root` of the dynamic loader and the shared libraries that `program` needs."""
    loader = _loader(root)
    listed = run([*loader, "--list", root / program.lstrip("/")], deadline=deadline).stdout.decode()
    found = [line.partition("=>")[2].split()[0] for line in listed.splitlines() if "=>" in line]
    if any(not path.startswith(str(root)) for path in found):
        raise HostError(f"{program} needs libraries that were not unpacked:\n{listed}")
    inside = {"/" + str(Path(path).relative_to(root)) for path in found}
    return tuple(sorted({"/lib64/" + Path(loader[0]).name, *inside}))


def _loader(root: Path) -> list[str]:
    found = sorted((root / "lib64").glob("ld-linux-*.so.*"))
    if not found:
        raise HostError(f"{root}: no dynamic loader was unpacked (libc6 is missing)")
    folders = sorted(str(folder) for folder in (root / "usr/lib").glob("*-linux-gnu*"))
    return [str(found[0]), "--library-path", ":".join([*folders, str(root / "usr/lib")])]
