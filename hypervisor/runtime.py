"""The runtime folder of one process that runs VMs: where it lies, who owns it, what goes when the owner is gone.

Standard library only: the watchdog, a bare interpreter, uses this too.

    <parent>/lock            held while a folder is made or judged (not for a folder that the user chose)
    <parent>/<8 hex>/owner   first line: process id of the owner; held (flock) for as long as it lives
    <parent>/<8 hex>/doomed  one JSON string a line: paths that go when the owner is gone
    <parent>/<8 hex>/…       the driver root of libvirt's embedded driver (etc, lib, run, cache, log)
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import select
import shutil
import signal
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from hypervisor.errors import HostError

# QEMU's sockets lie up to 47 characters below it and a UNIX socket's path ends at 107.
LONGEST_ROOT = 60
_NAME = re.compile(r"[0-9a-f]{8}")
_NAME_LENGTH = 8
_KILL_WAIT = 10.0  # seconds the kernel may take to tear a killed QEMU down


class RuntimeFolder:
    """A private folder of this process, locked for as long as the process lives."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock

    def discard(self, path: Path) -> None:
        """Let `path` (file or folder) be removed when this folder goes, also when the process is killed."""
        with (self.path / "doomed").open("a") as listing:
            listing.write(json.dumps(str(path.absolute())) + "\n")

    def keep(self, path: Path) -> None:
        """Take `discard` back."""
        rest = [one for one in doomed(self.path) if one != path.absolute()]
        fresh = self.path / "doomed.new"
        fresh.write_text("".join(json.dumps(str(one)) + "\n" for one in rest))
        fresh.replace(self.path / "doomed")

    def expect(self, uuid: str) -> None:
        """Note a VM's id before it starts, so that whoever cleans up after us can find it."""
        with (self.path / "machines").open("a") as listing:
            listing.write(uuid + "\n")

    def remove(self) -> None:
        """End what still runs from this folder, then remove what is doomed and the folder itself; once."""
        if self._lock < 0:
            return
        end_machines(self.path)
        remove_doomed(self.path)
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)
        self._lock = -1


def parents() -> list[Path]:
    """Where runtime folders may lie, best first."""
    uid = os.getuid()
    places = []
    if given := os.environ.get("XDG_RUNTIME_DIR"):
        places.append(Path(given) / "aib")
    places += [Path(tempfile.gettempdir()) / f"aib-{uid}", Path("/tmp") / f"aib-{uid}"]
    # Somebody else may sit on the name in a shared folder: then the next one.
    places += [Path("/tmp") / f"aib-{uid}.{number}" for number in (1, 2, 3)]
    return list(dict.fromkeys(places))


def create(root: Path | None = None) -> RuntimeFolder:
    """Make and lock a runtime folder: `root` itself, or a fresh one in the first parent that will do.

    Raises HostError when the path is too long, in use, or no private folder can be made.
    """
    if root is not None:
        if len(str(root)) > LONGEST_ROOT:
            raise HostError(
                f"the driver root {root} is too long ({len(str(root))} characters, at most {LONGEST_ROOT})",
                hint="QEMU's sockets lie below it; choose a shorter path",
            )
        with _locked(root.parent) if root.parent in parents() else contextlib.nullcontext():
            return _make(root)
    tried = []
    for parent in parents():
        if len(str(parent)) + 1 + _NAME_LENGTH > LONGEST_ROOT:
            tried.append(f"{parent}: too long")
        elif reason := _unfit(parent):
            tried.append(f"{parent}: {reason}")
        else:
            with _locked(parent):
                return _make(parent / secrets.token_hex(_NAME_LENGTH // 2))
    raise HostError(
        f"no private folder for a VM's sockets: {'; '.join(tried)}",
        hint="set XDG_RUNTIME_DIR to a short folder of yours with mode 0700",
    )


def dead_folders(parent: Path) -> Iterator[RuntimeFolder]:
    """The folders in `parent` whose owner is gone, each locked by us now."""
    if not parent.is_dir() or parent.stat().st_uid != os.getuid():
        return
    dead = []
    with _locked(parent):
        for path in sorted(parent.iterdir()):
            if (path / "owner").is_file():
                folder = take_over(path)
                if folder is not None:
                    dead.append(folder)
            elif _NAME.fullmatch(path.name) and path.is_dir():
                shutil.rmtree(path, ignore_errors=True)  # its owner died between two lines of _make
    yield from dead


def take_over(path: Path) -> RuntimeFolder | None:
    """That folder, locked by us now, when its owner is gone."""
    try:
        lock = _try_lock(path / "owner")
    except FileNotFoundError:
        return None
    return None if lock is None else RuntimeFolder(path, lock)


def is_dead(path: Path) -> bool:
    """Whether the owner of that runtime folder is gone; a folder that we may not look into belongs to somebody else."""
    try:
        lock = _try_lock(path / "owner")
    except FileNotFoundError:
        return True
    except PermissionError:
        return False
    if lock is not None:
        os.close(lock)
    return lock is not None


def doomed(path: Path) -> list[Path]:
    """What goes with the folder; a torn last line is ignored."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for line in (path / "doomed").read_text().splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                found.append(Path(json.loads(line)))
    return found


def remove_doomed(path: Path) -> None:
    """Remove the doomed files and folders; one that cannot be removed does not keep the others."""
    for one in doomed(path):
        if one.is_dir() and not one.is_symlink():
            shutil.rmtree(one, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                one.unlink()


def end_machines(path: Path) -> list[int]:
    """Kill every QEMU that runs from this folder and wait until it is gone; their process ids."""
    needles = [f"{path}/".encode()]
    with contextlib.suppress(FileNotFoundError):
        needles += [line.encode() for line in (path / "machines").read_text().split()]
    ended = []
    for pid in qemu_processes(needles):
        with contextlib.suppress(ProcessLookupError):
            handle = os.pidfd_open(pid)
            try:
                if pid in qemu_processes(needles, only=pid):  # the number may have passed to another process
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                    ended.append(pid)
                    poll = select.poll()
                    poll.register(handle, select.POLLIN)
                    poll.poll(_KILL_WAIT * 1000)
            finally:
                os.close(handle)
    return ended


def qemu_processes(needles: list[bytes], only: int | None = None) -> list[int]:
    """The QEMU processes visible to us whose command line holds one of the needles."""
    found = []
    for name in [str(only)] if only is not None else [entry.name for entry in Path("/proc").iterdir()]:
        if not name.isdigit():
            continue
        try:
            words = Path(f"/proc/{name}/cmdline").read_bytes()
            program = Path(f"/proc/{name}/exe").readlink().name
        except OSError:
            continue  # gone, a kernel thread, or somebody else's
        if program.startswith("qemu") and any(needle in words for needle in needles):
            found.append(int(name))
    return found


def _unfit(parent: Path) -> str:
    """Make `parent` with mode 0700; why it cannot be used, or nothing."""
    try:
        parent.mkdir(mode=0o700, exist_ok=True)
        there = parent.lstat()
        writable = os.access(parent, os.W_OK)
    except OSError as error:
        return error.strerror or str(error)
    if not stat.S_ISDIR(there.st_mode):
        return "not a folder"
    if there.st_uid != os.getuid() or there.st_mode & 0o077:
        return "not a private folder of this user"
    return "" if writable else "not writable"


def _make(path: Path) -> RuntimeFolder:
    """Make or take over the folder and lock it; what a dead owner left in it goes first."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(path.iterdir()) and not (path / "owner").is_file():
        raise HostError(
            f"the driver root {path} is not empty and not one of ours", hint="choose a folder that is new or empty"
        )
    lock = _try_lock(path / "owner", create=True)
    if lock is None:
        owner = (path / "owner").read_text().partition("\n")[0]
        raise HostError(f"the driver root {path} is in use by process {owner}", hint="choose another one")
    end_machines(path)
    remove_doomed(path)
    for entry in path.iterdir():
        if entry.name != "owner":
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return RuntimeFolder(path, lock)


@contextlib.contextmanager
def _locked(parent: Path) -> Iterator[None]:
    lock = os.open(parent / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _try_lock(path: Path, *, create: bool = False) -> int | None:
    """Hold the lock file `path`; None when its owner lives."""
    lock = os.open(path, os.O_RDWR | (os.O_CREAT if create else 0), 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock
