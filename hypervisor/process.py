"""The one door to other programs: argv lists only, a deadline on everything, nothing left running."""

from __future__ import annotations

import contextlib
import os
import select
import selectors
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from hypervisor.deadline import Deadline
from hypervisor.errors import HostError

# Debian's names; what `aib doctor` installs.
PACKAGES: Mapping[str, str] = {
    "cpio": "cpio",
    "debugfs": "e2fsprogs",
    "dropbear": "dropbear-bin",
    "dropbearkey": "dropbear-bin",
    "e2fsck": "e2fsprogs",
    "libvirtd": "libvirt-daemon",
    "mcopy": "mtools",
    "mke2fs": "e2fsprogs",
    "mkfs.vfat": "dosfstools",
    "mmdebstrap": "mmdebstrap",
    "newuidmap": "uidmap",
    "passt": "passt",
    "qemu-img": "qemu-utils",
    "qemu-system-x86_64": "qemu-system-x86",
    "setpriv": "util-linux",
    "sgdisk": "gdisk",
}
# Partition and file system tools live here, where an ordinary user's PATH does not look.
_SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin")
_GRACE = 3.0  # seconds between SIGTERM (lets mmdebstrap unmount) and SIGKILL
_POLL = 0.1  # seconds until a cancellation is noticed
_CHUNK = 65536
_TAIL_LINES = 12


class ToolMissing(HostError):
    """A program this needs is not installed."""

    def __init__(self, tool: str) -> None:
        package = PACKAGES.get(tool, "")
        how = f"install it: sudo apt install {package}; " if package else ""
        super().__init__(
            f"the program {tool!r} was not found", hint=f"{how}`aib doctor` lists everything a build needs"
        )
        self.tool = tool


class ProcessError(HostError):
    """A program ended with another exit code than 0; negative = the signal that ended it."""

    def __init__(self, argv: Sequence[str], exit_code: int, stderr: bytes) -> None:
        lines = stderr.decode(errors="replace").strip().splitlines()[-_TAIL_LINES:]
        ended = f"ended by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"exit code {exit_code}"
        said = "\n".join(lines) if lines else "(it printed nothing)"
        super().__init__(f"{shlex.join(argv)}: {ended}\n{said}")
        self.argv = tuple(argv)
        self.returncode = exit_code
        self.stderr = stderr


@dataclass(frozen=True, slots=True)
class Completed:
    """What a program left: exit code (negative = ended by that signal) and what it printed."""

    exit_code: int
    stdout: bytes
    stderr: bytes


def _search_path() -> str:
    return os.pathsep.join((os.environ.get("PATH", os.defpath), *_SYSTEM_FOLDERS))


def require(tool: str) -> Path:
    """The full path of `tool`; raises `ToolMissing` with the package to install."""
    found = shutil.which(tool, path=_search_path())
    if found is None:
        raise ToolMissing(tool)
    return Path(found)


def run(
    argv: Sequence[str | Path],
    *,
    deadline: Deadline,
    input: bytes = b"",
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    check: bool = True,
    on_output: Callable[[bytes], None] | None = None,
) -> Completed:
    """Run `argv` to its end in a session of its own and return what it printed.

    `env` is added to our environment, under LC_ALL=C.UTF-8 so that messages can be read by us. Without `input` stdin
    is empty. `on_output` gets every chunk of stdout and stderr as it arrives. The whole process group is gone when
    this returns or raises, whatever the program left in the background.

    Raises `ToolMissing`, `ProcessError` (when `check`), `DeadlineExceeded` or `Cancelled`.
    """
    words = [str(word) for word in argv]
    words[0] = str(require(words[0]))
    shown = f"running {Path(words[0]).name}"
    deadline.check(shown)
    merged = {**os.environ, "LC_ALL": "C.UTF-8", "PATH": _search_path(), **(env or {})}
    process = subprocess.Popen(
        words,
        stdin=subprocess.PIPE if input else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=merged,
        cwd=cwd,
        start_new_session=True,
    )
    with process:
        try:
            stdout, stderr = _pump(process, input, deadline, shown, on_output)
        except BaseException:
            _end(process)
            raise
        completed = Completed(process.wait(), stdout, stderr)
    if check and completed.exit_code != 0:
        raise ProcessError(words, completed.exit_code, completed.stderr or completed.stdout)
    return completed


class _Sink:
    """One output pipe of the program, read without blocking."""

    def __init__(self, pipe: IO[bytes], on_output: Callable[[bytes], None] | None) -> None:
        self.fd = pipe.fileno()
        self.chunks: list[bytes] = []
        self._on_output = on_output
        os.set_blocking(self.fd, False)

    def read(self) -> bool:
        """Take one chunk; false at end-of-file."""
        chunk = os.read(self.fd, _CHUNK)
        if chunk:
            self.chunks.append(chunk)
            if self._on_output is not None:
                self._on_output(chunk)
        return bool(chunk)

    def drain(self) -> None:
        """Take all that is in the pipe now."""
        with contextlib.suppress(BlockingIOError):
            while self.read():
                pass


def _pump(
    process: subprocess.Popen[bytes],
    data: bytes,
    deadline: Deadline,
    shown: str,
    on_output: Callable[[bytes], None] | None,
) -> tuple[bytes, bytes]:
    """Feed stdin and collect output until the program has exited and its pipes are drained."""
    assert process.stdout is not None and process.stderr is not None
    output, errors = _Sink(process.stdout, on_output), _Sink(process.stderr, on_output)
    pending = memoryview(data)
    exited = os.pidfd_open(process.pid)
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(exited, selectors.EVENT_READ)
            for sink in (output, errors):
                selector.register(sink.fd, selectors.EVENT_READ, sink)
            if process.stdin is not None:
                os.set_blocking(process.stdin.fileno(), False)
                selector.register(process.stdin, selectors.EVENT_WRITE)
            ended = False
            while not ended:
                deadline.check(shown)
                for key, _ in selector.select(min(_POLL, deadline.remaining())):
                    if key.fileobj == exited:
                        ended = True
                    elif isinstance(key.data, _Sink):
                        if not key.data.read():
                            selector.unregister(key.data.fd)
                    elif process.stdin is not None:
                        pending = _feed(process.stdin, pending)
                        if not pending:
                            selector.unregister(process.stdin)
                            process.stdin.close()
    finally:
        os.close(exited)
    # What the program left in the background may hold the pipes open for ever, or fill them: end it first, then take
    # what is there. The leader is a zombie until `wait`, so its group id cannot belong to anybody else.
    _signal_group(process, signal.SIGKILL)
    for sink in (output, errors):
        sink.drain()
    return b"".join(output.chunks), b"".join(errors.chunks)


def _feed(stdin: IO[bytes], pending: memoryview) -> memoryview:
    """Write what fits; a program that closed its stdin simply does not want the rest."""
    try:
        return pending[os.write(stdin.fileno(), pending[:_CHUNK]) :]
    except BlockingIOError:
        return pending
    except BrokenPipeError:
        return pending[:0]


def _end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, a short grace, SIGKILL; to the whole group."""
    _signal_group(process, signal.SIGTERM)
    exited = os.pidfd_open(process.pid)
    try:
        poll = select.poll()
        poll.register(exited, select.POLLIN)
        until = time.monotonic() + _GRACE
        while (left := until - time.monotonic()) > 0 and not poll.poll(left * 1000):
            pass
    finally:
        os.close(exited)
    _signal_group(process, signal.SIGKILL)
    process.wait()


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        pass  # the group is empty: that is what we want
