"""Makes this process the one that QEMU falls to when libvirt detaches it.

libvirt starts QEMU detached: its parent is then process 1, which reaps it late (libvirt waits 1.6 s for that at every
destroy), and nothing tells the kernel that QEMU has to end with us. As a child subreaper we become its parent: we reap
it at once, and QEMU can ask the kernel for a signal on our death (`hypervisor.emulator`).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import threading
import time
from collections.abc import Iterator
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_LOOK_EVERY = 20  # milliseconds, while libvirt may be starting a QEMU
_LOOK_ON = 1.0  # seconds after that: QEMU is ours only when the process between it and libvirt has ended


def become_subreaper() -> bool:
    """Whether the kernel lets us, and shows us our children."""
    if not Path(f"/proc/self/task/{os.getpid()}/children").exists():
        return False
    return bool(ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)


class Reaper:
    """A thread that reaps the QEMU processes that fall to us, and no other child."""

    def __init__(self) -> None:
        self._known: dict[int, int] = {}  # process id -> pidfd
        self._busy = 0
        self._until = 0.0
        self._lock = threading.Lock()
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        threading.Thread(target=self._loop, name="qemu-reaper", daemon=True).start()

    @contextlib.contextmanager
    def looking(self) -> Iterator[None]:
        """While libvirt is at work inside: look for new QEMU processes."""
        with self._lock:
            self._busy += 1
        os.write(self._wake_write, b"x")
        try:
            yield
        finally:
            self._look()
            with self._lock:
                self._busy -= 1
                self._until = time.monotonic() + _LOOK_ON
            os.write(self._wake_write, b"x")

    def _loop(self) -> None:
        while True:
            poll = select.poll()
            poll.register(self._wake_read, select.POLLIN)
            with self._lock:
                busy, known = self._busy or time.monotonic() < self._until, dict(self._known)
            for handle in known.values():
                poll.register(handle, select.POLLIN)
            ready = {handle for handle, _ in poll.poll(_LOOK_EVERY if busy else None)}
            if self._wake_read in ready:
                os.read(self._wake_read, 4096)
            for pid, handle in known.items():
                if handle in ready:
                    with contextlib.suppress(ChildProcessError):
                        os.waitid(os.P_PIDFD, handle, os.WEXITED)
                    with self._lock:
                        del self._known[pid]
                    os.close(handle)
            if busy:
                self._look()

    def _look(self) -> None:
        with self._lock:
            for pid in _children():
                if pid not in self._known and _is_qemu(pid):
                    with contextlib.suppress(ProcessLookupError):
                        self._known[pid] = os.pidfd_open(pid)


def _children() -> list[int]:
    found: list[int] = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # that thread has just ended
            found += map(int, (task / "children").read_text().split())
    return found


def _is_qemu(pid: int) -> bool:
    """QEMU that was detached: whoever detaches a process gives it a session of its own.

    One in our own session is still somebody's in this process: libvirt starts its probing QEMU (`-daemonize`) as a
    direct child and waits for that child itself; were we to reap it first, libvirt would fail.
    """
    try:
        if os.getsid(pid) == os.getsid(0):
            return False
        if _is_zombie(pid):  # it ended before it was ours: its name is all that is left of it
            return Path(f"/proc/{pid}/comm").read_bytes().startswith(b"qemu-system")
        program = Path(f"/proc/{pid}/exe").readlink().name
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return program.startswith("qemu-system") and (b"-daemonize" in words or any(w.startswith(b"guest=") for w in words))


def _is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].startswith(b"Z")
