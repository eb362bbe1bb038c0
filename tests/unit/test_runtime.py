"""hypervisor.runtime, .watchdog and .sweep: what belongs to a dead process goes, what belongs to a living one stays."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hypervisor import runtime
from hypervisor.errors import HostError
from hypervisor.sweep import sweep
from hypervisor.watchdog import Watchdog


@pytest.fixture
def parent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short folder (pytest's own are too long for sockets) that is the first choice."""
    base = Path(tempfile.mkdtemp(prefix="aibt-", dir="/tmp"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(base))
    yield base / "aib"
    shutil.rmtree(base)


Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def qemu(tmp_path: Path) -> Iterator[Start]:
    """Starts a process that looks like QEMU: its program's name begins so, its words name the folder."""
    program = tmp_path / "qemu-system-x86_64"
    shutil.copy(shutil.which("tail") or "", program)
    started = []

    def start(*words: str | Path) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([program, "-f", "/dev/null", *words], stderr=subprocess.DEVNULL)
        started.append(process)
        # The kernel lets Popen go on before a new program's words can be read.
        assert until(lambda: Path(f"/proc/{process.pid}/cmdline").read_bytes().count(b"\0") == len(words) + 3)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def ended(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        return False
    return True


def until(ready: Callable[[], bool]) -> bool:
    return any(ready() or time.sleep(0.05) for _ in range(200))


OWNER = """
    import sys, time
    from pathlib import Path
    from hypervisor import runtime
    from hypervisor.watchdog import Watchdog
    folder = runtime.create()
    folder.discard(Path(sys.argv[1]))
    dog = Watchdog(folder) if sys.argv[2] == "guarded" else None
    print(folder.path, dog.pid if dog else 0, flush=True)
    time.sleep(600)
"""


class Owner:
    """Another process with a runtime folder, which the test may kill."""

    def __init__(self, discarded: Path, how: str) -> None:
        words = [sys.executable, "-c", textwrap.dedent(OWNER), str(discarded), how]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
        assert self.process.stdout is not None
        path, dog = self.process.stdout.readline().split()
        self.path, self.dog = Path(path), int(dog)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def owner(parent: Path, tmp_path: Path) -> Iterator[Callable[[str], Owner]]:
    owners = []

    def start(how: str) -> Owner:
        owners.append(Owner(tmp_path / "overlay.qcow2", how))
        return owners[-1]

    yield start
    for one in owners:
        one.kill()


def test_a_folder_is_short_private_and_ours(parent: Path) -> None:
    folder = runtime.create()
    assert folder.path.parent == parent
    assert len(folder.path.name) == 8
    assert folder.path.stat().st_mode & 0o777 == 0o700
    assert (folder.path / "owner").read_text() == f"{os.getpid()}\n"
    folder.remove()
    assert not folder.path.exists()


def test_discarded_paths_go_with_it_and_kept_ones_stay(parent: Path, tmp_path: Path) -> None:
    folder = runtime.create()
    file, tree, kept = tmp_path / "a b\n.img", tmp_path / "tree", tmp_path / "kept"
    file.touch()
    (tree / "below").mkdir(parents=True)
    kept.touch()
    for path in (file, tree, kept, tmp_path / "never made"):
        folder.discard(path)
    folder.keep(kept)
    folder.remove()
    assert not file.exists()
    assert not tree.exists()
    assert kept.exists()


def test_a_link_is_removed_and_not_what_it_leads_to(parent: Path, tmp_path: Path) -> None:
    folder = runtime.create()
    (tmp_path / "precious").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "precious")
    folder.discard(tmp_path / "link")
    folder.remove()
    assert (tmp_path / "precious").is_dir()
    assert not (tmp_path / "link").is_symlink()


def test_a_parent_that_is_too_long_is_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    long = tmp_path / ("x" * 60)
    long.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    folder = runtime.create()
    assert not folder.path.is_relative_to(long)
    assert len(str(folder.path)) <= runtime.LONGEST_ROOT
    folder.remove()


def test_a_parent_that_others_may_read_is_passed_over(parent: Path) -> None:
    parent.mkdir()
    parent.chmod(0o755)
    folder = runtime.create()
    assert not folder.path.is_relative_to(parent)
    folder.remove()


def test_a_chosen_root_that_is_too_long_is_refused() -> None:
    with pytest.raises(HostError, match="at most 60"):
        runtime.create(Path("/tmp") / ("r" * 60))


def test_a_chosen_root_with_foreign_files_is_refused(parent: Path) -> None:
    parent.mkdir()
    (parent / "precious").touch()
    with pytest.raises(HostError, match="not empty"):
        runtime.create(parent)
    assert (parent / "precious").exists()


def test_a_chosen_root_in_use_is_refused(owner: Callable[[str], Owner]) -> None:
    living = owner("unguarded")
    with pytest.raises(HostError, match=f"in use by process {living.process.pid}"):
        runtime.create(living.path)


def test_a_chosen_root_of_a_dead_owner_is_taken_over(
    owner: Callable[[str], Owner], qemu: Start, tmp_path: Path
) -> None:
    dead = owner("unguarded")
    machine = qemu(dead.path / "monitor.sock")
    overlay = tmp_path / "overlay.qcow2"
    overlay.touch()
    dead.kill()
    folder = runtime.create(dead.path)
    assert ended(machine)
    assert not overlay.exists()
    assert [path.name for path in folder.path.iterdir()] == ["owner"]
    folder.remove()


def test_sweep_leaves_the_living_alone(parent: Path, owner: Callable[[str], Owner], qemu: Start) -> None:
    living = owner("unguarded")
    machine = qemu(living.path / "monitor.sock")
    assert sweep([parent]) == []
    assert living.path.exists()
    assert machine.poll() is None


def test_sweep_ends_and_removes_what_the_dead_left(
    parent: Path, owner: Callable[[str], Owner], qemu: Start, tmp_path: Path
) -> None:
    dead, living = owner("unguarded"), owner("unguarded")
    machine, other = qemu(dead.path / "monitor.sock"), qemu(living.path / "monitor.sock")
    overlay = tmp_path / "overlay.qcow2"
    overlay.touch()
    dead.kill()
    [swept] = sweep([parent])
    assert swept.root == dead.path
    assert swept.processes == (machine.pid,)
    assert swept.removed == (overlay,)
    assert ended(machine)
    assert not overlay.exists()
    assert not dead.path.exists()
    assert other.poll() is None
    assert sweep([parent]) == []


def test_sweep_finds_a_machine_by_its_id_too(parent: Path, owner: Callable[[str], Owner], qemu: Start) -> None:
    """A daemon's QEMU does not name the runtime folder."""
    dead = owner("unguarded")
    (dead.path / "machines").write_text("7b4f8a60-0000-4000-8000-000000000001\n")
    machine, other = qemu("7b4f8a60-0000-4000-8000-000000000001"), qemu("7b4f8a60-0000-4000-8000-000000000002")
    dead.kill()
    sweep([parent])
    assert ended(machine)
    assert other.poll() is None


def test_only_qemu_is_ended(parent: Path, owner: Callable[[str], Owner]) -> None:
    dead = owner("unguarded")
    log = dead.path / "qemu.log"
    log.touch()
    # It names the folder on its command line, as QEMU does, and lives on when the folder goes.
    with subprocess.Popen(["sh", "-c", "read line", "sh", str(log)], stdin=subprocess.PIPE) as reader:
        dead.kill()
        sweep([parent])
        assert reader.poll() is None
        reader.kill()


def test_sweep_removes_a_folder_whose_owner_died_while_making_it(parent: Path) -> None:
    half, foreign = parent / "0123abcd", parent / "notes"
    half.mkdir(parents=True)
    foreign.mkdir()
    sweep([parent])
    assert not half.exists()
    assert foreign.exists()


def test_the_watchdog_ends_the_vm_and_removes_its_files(
    owner: Callable[[str], Owner], qemu: Start, tmp_path: Path
) -> None:
    guarded = owner("guarded")
    machine = qemu(guarded.path / "monitor.sock")
    overlay = tmp_path / "overlay.qcow2"
    overlay.touch()
    guarded.kill()
    assert ended(machine)
    assert until(lambda: not guarded.path.exists())
    assert not overlay.exists()


def test_the_watchdog_outlives_signals_that_ask(owner: Callable[[str], Owner], qemu: Start) -> None:
    guarded = owner("guarded")
    machine = qemu(guarded.path / "monitor.sock")
    ignored = Path(f"/proc/{guarded.dog}/status")
    assert until(lambda: int(ignored.read_text().split("SigIgn:")[1].split()[0], 16) & (1 << (signal.SIGTERM - 1)) != 0)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(guarded.dog, number)
    guarded.kill()
    assert ended(machine)
    assert until(lambda: not guarded.path.exists())


def test_the_watchdog_goes_home_when_released(parent: Path, qemu: Start) -> None:
    folder = runtime.create()
    machine = qemu(folder.path / "monitor.sock")
    with Watchdog(folder) as dog:
        assert Path(f"/proc/{dog.pid}").exists()
    assert not Path(f"/proc/{dog.pid}").exists()
    assert machine.poll() is None
    assert folder.path.exists()
    folder.remove()


def test_a_killed_watchdog_does_not_trouble_its_owner(parent: Path) -> None:
    folder = runtime.create()
    with Watchdog(folder) as dog:
        os.kill(dog.pid, signal.SIGKILL)
    folder.remove()


def test_dead_is_who_holds_no_lock(owner: Callable[[str], Owner], tmp_path: Path) -> None:
    one = owner("unguarded")
    assert not runtime.is_dead(one.path)
    one.kill()
    assert runtime.is_dead(one.path)
    assert runtime.is_dead(tmp_path / "removed long ago")
