"""Running `aib` on real guests: an AIB_HOME with the command in it, and looking for what it may leave behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

AIB = Path(sys.executable).parent / "aib"
SCOPE = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/aib/providers"
TINY_URN = "aib-tests:tiny:guest:1.0.0"
LONGEST = 600
CACHED = "--cached"
"""Among the arguments of `aib build`: use checkpoints, as people do."""


@dataclass(frozen=True)
class Home:
    """An AIB_HOME and the `aib` command that works in it.

    Its inspection appliance is the one that all tests share, unless it is to be `fresh`: making one takes 10 s.
    """

    path: Path
    fresh: bool = False

    def __post_init__(self) -> None:
        link = self.path / "appliance" / "appliance"
        if not self.fresh and not link.is_symlink() and not link.exists():
            shared = Path(os.environ.get("AIB_TEST_CACHE") or platformdirs.user_cache_path("aib-tests")) / "appliance"
            shared.mkdir(parents=True, exist_ok=True)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(shared)

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "AIB_HOME": str(self.path), "NO_COLOR": "1"}

    def aib(self, *arguments: str | Path, timeout: float = LONGEST) -> subprocess.CompletedProcess[str]:
        """Run `aib` to its end."""
        return subprocess.run(
            [str(AIB), *_uncached(arguments)],
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
            env=self.environment,
            timeout=timeout,
        )

    def ok(self, *arguments: str | Path) -> str:
        """Run `aib`, which must succeed; its stdout."""
        done = self.aib(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """Run `aib` in the background, in a session of its own."""
        return subprocess.Popen(
            [str(AIB), *_uncached(arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=self.environment,
            start_new_session=True,
        )

    def runs(self) -> list[Path]:
        """The run folders, oldest first."""
        return sorted(path for path in (self.path / "runs").iterdir() if not path.name.startswith("."))

    def record(self, run: Path | None = None) -> dict[str, Any]:
        """The record of a run, by default the newest."""
        return json.loads(((run or self.runs()[-1]) / "record.json").read_text())


def _uncached(arguments: Sequence[str | Path]) -> list[str]:
    """Tests share a store, and a step of one must not be cached by another: builds say when they want the cache."""
    words = [str(each) for each in arguments]
    if words[:1] != ["build"]:
        return words
    if CACHED in words:
        return [word for word in words if word != CACHED]
    return [*words, "--no-cache"]


def shell(*lines: str, name: str = "step") -> dict[str, Any]:
    """A Shell customizer with inline lines."""
    return {"type": "Shell", "name": name, "inline": list(lines)}


def qemus_of(folder: Path) -> list[int]:
    """Process ids of QEMUs that have a file below `folder` on their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if b"qemu-system" in words.split(b"\0")[0] and os.fsencode(folder) in words:
                found.append(int(entry.name))
    return found


def descendants(pid: int) -> list[int]:
    """Process ids of all that a process started, and these, the parents first."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            parents.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for each in found:
        found += parents.get(each, [])
    return found[1:]


def command_of(pid: int) -> bytes:
    """The words of a process's command line, each ended by NUL; nothing when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def wait_for(ready: Callable[[], Any], seconds: float, what: str) -> Any:
    """Poll until `ready` returns something true; fail the test when it does not."""
    end = time.monotonic() + seconds
    while not (value := ready()):
        assert time.monotonic() < end, f"{what} did not happen within {seconds:g} s"
        time.sleep(0.1)
    return value


def kill(*pids: int) -> None:
    """SIGKILL all of them, as one after the other as the system allows."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
