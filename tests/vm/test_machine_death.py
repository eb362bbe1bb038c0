"""Whatever of ours is killed, the VM ends and its files go; what then is left, the next call sweeps."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hypervisor.sweep import sweep

pytestmark = pytest.mark.vm
ROOT = Path(__file__).parents[2]
LIMIT = 10.0  # seconds until the VM of a killed run must be gone: the promise that is tested, not a measurement

WORKER = """
    import json, sys, time
    from pathlib import Path
    from hypervisor import connection
    from hypervisor.deadline import Deadline
    from hypervisor.machine import MachineSpec, running

    kernel, initrd, cache, folder, tied = sys.argv[1:]
    if tied == "untied":
        connection.become_subreaper = lambda: False  # a kernel that does not let us: the watchdog is alone
    deadline = Deadline.after(300)
    overlay = Path(folder, "overlay.qcow2")
    overlay.write_bytes(b"overlay")
    console = Path(folder, "console.log")
    with connection.open_hypervisor(cache=Path(cache)) as hypervisor:
        hypervisor.discard(overlay)
        spec = MachineSpec("aib-death", 1, 256, (), console, network="user", kernel=Path(kernel), initrd=Path(initrd),
                           cmdline="console=ttyS0 quiet do=sleep")
        with running(hypervisor, spec, deadline) as machine:
            address = machine.forward(22)
            deadline.wait_until(lambda: "READY" in machine.console_tail(), "the boot")
            print(json.dumps([machine.qemu_pid, str(hypervisor.root), address[1]]), flush=True)
            time.sleep(300)
"""


@dataclass
class Worker:
    """A process with a running VM."""

    process: subprocess.Popen[str]
    folder: Path
    qemu: int
    root: Path
    port: int

    @property
    def watchdog(self) -> int:
        """The child that is not QEMU."""
        found = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True, check=True)
        [dog] = [int(pid) for pid in found.stdout.split() if int(pid) != self.qemu]
        return dog

    def listens(self) -> bool:
        """Whether QEMU still holds the forwarded port."""
        wanted = f"0100007F:{self.port:04X}"
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return any(local == wanted and state == "0A" for _, local, _, state, *_ in rows)


def alive(pid: int) -> bool:
    """Runs; a zombie that process 1 has yet to reap holds no lock, no port and no memory."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def within_limit(ready: Callable[[], bool]) -> bool:
    end = time.monotonic() + LIMIT
    while not ready() and time.monotonic() < end:
        time.sleep(0.05)
    return ready()


@pytest.fixture
def runtime_parent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A private place for runtime folders: the sweep of this test must not depend on other runs of this machine."""
    base = Path(tempfile.mkdtemp(prefix="aibd", dir="/tmp"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(base))
    yield base / "aib"
    shutil.rmtree(base)


@pytest.fixture
def start(
    bare_guest: Any, build_cache: Path, tmp_path: Path, runtime_parent: Path
) -> Iterator[Callable[[str], Worker]]:
    workers: list[Worker] = []

    def begin(tied: str) -> Worker:
        words = [bare_guest.kernel, bare_guest.initrd, build_cache, tmp_path, tied]
        argv = [sys.executable, "-c", textwrap.dedent(WORKER), *map(str, words)]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        assert process.stdout is not None
        qemu, root, port = json.loads(process.stdout.readline())
        workers.append(Worker(process, tmp_path, qemu, Path(root), port))
        return workers[-1]

    yield begin
    for worker in workers:
        worker.process.kill()
        worker.process.wait()
        assert worker.process.stdout is not None
        worker.process.stdout.close()
        if alive(worker.qemu):
            os.kill(worker.qemu, signal.SIGKILL)


@pytest.mark.parametrize("tied", ["tied", "untied"])
def test_a_killed_worker_leaves_nothing(start: Callable[[str], Worker], runtime_parent: Path, tied: str) -> None:
    worker = start(tied)
    assert worker.listens()
    worker.process.kill()
    worker.process.wait()
    assert within_limit(lambda: not alive(worker.qemu))
    assert within_limit(lambda: not worker.root.exists())
    assert not (worker.folder / "overlay.qcow2").exists()
    assert within_limit(lambda: not worker.listens())
    assert sweep([runtime_parent]) == []


def test_all_killed_at_once_ends_the_vm_and_the_next_call_sweeps(
    start: Callable[[str], Worker], runtime_parent: Path
) -> None:
    worker = start("tied")
    dog = worker.watchdog
    for pid in (dog, worker.process.pid):
        os.kill(pid, signal.SIGKILL)
    worker.process.wait()
    assert within_limit(lambda: not alive(worker.qemu))
    assert within_limit(lambda: not worker.listens())
    assert worker.root.exists()
    [swept] = sweep([runtime_parent])
    assert swept.root == worker.root
    assert swept.removed == (worker.folder / "overlay.qcow2",)
    assert not worker.root.exists()
    assert not (worker.folder / "overlay.qcow2").exists()


def test_without_the_kernels_help_the_sweep_ends_the_vm(start: Callable[[str], Worker], runtime_parent: Path) -> None:
    worker = start("untied")
    for pid in (worker.watchdog, worker.process.pid):
        os.kill(pid, signal.SIGKILL)
    worker.process.wait()
    [swept] = sweep([runtime_parent])
    assert swept.processes == (worker.qemu,)
    assert not alive(worker.qemu)
    assert not worker.root.exists()


def test_a_killed_watchdog_leaves_the_build_alone(start: Callable[[str], Worker], runtime_parent: Path) -> None:
    worker = start("tied")
    os.kill(worker.watchdog, signal.SIGKILL)
    assert sweep([runtime_parent]) == []
    assert alive(worker.qemu)
    worker.process.send_signal(signal.SIGINT)
    worker.process.wait(LIMIT)
    assert not alive(worker.qemu)
    assert not worker.root.exists()
    assert not (worker.folder / "overlay.qcow2").exists()


def test_an_interrupt_leaves_nothing(start: Callable[[str], Worker], runtime_parent: Path) -> None:
    worker = start("tied")
    dog = worker.watchdog
    worker.process.send_signal(signal.SIGINT)
    worker.process.wait(LIMIT)
    assert not alive(worker.qemu)
    assert not alive(dog)
    assert not worker.root.exists()
    assert not (worker.folder / "overlay.qcow2").exists()
    assert [path.name for path in runtime_parent.iterdir()] == ["lock"]
