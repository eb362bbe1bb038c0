"""Run folders: one per execution of a plan. A run is alive while somebody holds a lock on its `lock` file."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from hypervisor.errors import HostError, UsageError
from orchestrator.record import files, locks

_NEW = ".new-"
_FOLDERS = ("steps", "artifacts", "work")


@dataclass(slots=True)
class RunFolder:
    """The folder of one run.

    `Store.new_run` returns it held: the run is alive until `release`, the end of the `with` block that it may be used
    in, or the end of the process. A second process that works for the run takes its own share with `locked`.
    """

    path: Path
    template_name: str = ""
    created: str = ""
    _fd: int = field(default=-1, repr=False, compare=False)

    @property
    def id(self) -> str:
        """The run's name, which sorts by time."""
        return self.path.name

    @property
    def plan(self) -> Path:
        """`plan.json`."""
        return self.path / "plan.json"

    @property
    def template(self) -> Path:
        """`template.json`: what the user gave, without secrets."""
        return self.path / "template.json"

    @property
    def submission(self) -> Path:
        """`submission.json`: which template a server runs here, and for whom; absent in runs of the command line."""
        return self.path / "submission.json"

    @property
    def cancel_asked(self) -> Path:
        """`cancel`: there as soon as somebody asked the run to stop; its supervisor looks for it."""
        return self.path / "cancel"

    @property
    def record(self) -> Path:
        """`record.json`."""
        return self.path / "record.json"

    @property
    def events(self) -> Path:
        """`events.jsonl`."""
        return self.path / "events.jsonl"

    @property
    def customization_log(self) -> Path:
        """`customization.log`."""
        return self.path / "customization.log"

    @property
    def console_log(self) -> Path:
        """`console.log`: the build VM's serial console."""
        return self.path / "console.log"

    @property
    def steps(self) -> Path:
        """What the guest printed, one file per step."""
        return self.path / "steps"

    @property
    def artifacts(self) -> Path:
        """The exported disks."""
        return self.path / "artifacts"

    @property
    def work(self) -> Path:
        """Overlay, seed and other throw-away files: `aib gc` empties it when the run is dead."""
        return self.path / "work"

    @property
    def lock(self) -> Path:
        """The file whose lock says that the run is alive."""
        return self.path / "lock"

    def hold(self) -> RunFolder:
        """Keep the run alive from this process until `release`."""
        if self._fd < 0:
            with files.translating("opening", self.lock):
                fd = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            locks.lock(fd, self.lock, exclusive=False)
            self._fd = fd
        return self

    def release(self) -> None:
        """Give up this process's share of the run."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def locked(self) -> RunFolder:
        """For a `with` statement: keep the run alive from this process for the time of the block."""
        return self

    def __enter__(self) -> RunFolder:
        return self.hold()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()

    def alive(self) -> bool:
        """Whether a process holds the run."""
        with self.if_dead() as dead:
            return not dead

    @contextmanager
    def if_dead(self) -> Iterator[bool]:
        """True when nobody holds the run; nobody can begin to during the block then."""
        with locks.locked(self.path.parent / ".probe", exclusive=True):  # or two askers would see each other
            try:
                fd = os.open(self.lock, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                yield True
                return
            try:
                yield locks.try_lock(fd, exclusive=True)
            finally:
                os.close(fd)


class Runs:
    """The folder of run folders."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def new(self, template_name: str) -> RunFolder:
        """A new run folder, held; it appears under its name only when it is whole."""
        created = datetime.now(UTC)
        name = f"{created:%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
        hidden = RunFolder(self.folder / f"{_NEW}{name}", template_name, created.isoformat(timespec="milliseconds"))
        run = RunFolder(self.folder / name, template_name, hidden.created)
        with ExitStack() as undo, files.translating("creating", hidden.path):
            hidden.path.mkdir(mode=0o700)
            undo.callback(shutil.rmtree, hidden.path, ignore_errors=True)
            undo.callback(hidden.hold().release)
            for folder in _FOLDERS:
                (hidden.path / folder).mkdir(mode=0o700)
            files.publish_json(
                hidden.path / "run.json", {"id": name, "template": template_name, "created": run.created}
            )
            hidden.path.rename(run.path)
            undo.pop_all()
            run._fd = hidden._fd  # the lock goes with the file, whatever its folder is called
            files.sync_folder(self.folder)
        return run

    def get(self, run_id: str) -> RunFolder:
        """The run of this id, of an unambiguous beginning of it, or the newest for `latest`; else `UsageError`."""
        runs = self.all()
        if run_id in ("latest", "last") and runs:
            return runs[-1]
        found = [r for r in runs if r.id == run_id] or [r for r in runs if run_id and r.id.startswith(run_id)]
        if len(found) == 1:
            return found[0]
        if found:
            raise UsageError(f"{run_id} could be {', '.join(r.id for r in found)}", hint="give more of the id")
        raise UsageError(f"there is no run {run_id}", hint="`aib runs` lists them; `latest` is the newest")

    def all(self) -> list[RunFolder]:
        """Every run, oldest first."""
        with files.translating("listing", self.folder):
            return [self._open(p) for p in sorted(self.folder.iterdir()) if p.is_dir() and p.name[0] != "."]

    def unborn(self) -> list[RunFolder]:
        """Folders whose creation did not come to its end (or is under way: ask `if_dead`)."""
        return [RunFolder(p) for p in sorted(self.folder.glob(f"{_NEW}*"))]

    @staticmethod
    def _open(path: Path) -> RunFolder:
        head: dict[str, str] = {}
        with suppress(HostError):  # one damaged run must not hide the others
            head = files.read_json(path / "run.json") or {}
        return RunFolder(path, head.get("template", ""), head.get("created", ""))
