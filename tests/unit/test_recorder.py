"""A checkpoint whose sums are still being made when the run ends is published all the same."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest

from hypervisor.deadline import Deadline
from hypervisor.spec import DiskSpec
from orchestrator.build import recorder as module
from orchestrator.build.recorder import Recorder
from orchestrator.record import files
from orchestrator.record.checkpoints import DISK, Checkpoints
from orchestrator.record.store import Store
from provisioners.communicators.base import CommandResult


@pytest.fixture
def slow_sums(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Sums wait until the event is set."""
    go = threading.Event()
    real = files.sha256

    def sha256(path: Path) -> str:
        assert go.wait(20)
        return real(path)

    monkeypatch.setattr(module.files, "sha256", sha256)
    monkeypatch.setattr(module, "ROOM", 0)
    monkeypatch.setattr(module.disk, "create_overlay", lambda base, form, target, *_: target.write_bytes(b"overlay"))
    monkeypatch.setattr(module.snapshot, "save", lambda machine, memory, target, nvram: memory.write_bytes(b"memory"))
    return go


def make(store: Store, stack: ExitStack, work: Path) -> Recorder:
    first = stack.enter_context(store.checkpoints.segment()) / DISK
    first.write_bytes(b"first")
    made = Recorder(
        checkpoints=store.checkpoints,
        lineage=SimpleNamespace(id="lineage"),  # type: ignore[arg-type]  # its name is all that is asked for
        source="source",
        fingerprint="",
        work=work,
        deadline=Deadline.after(60),
        say=pytest.fail,
        stack=stack,
        disk=DiskSpec(first, "qcow2"),
    )
    stack.callback(made.finish)
    return made


@pytest.mark.parametrize("last", [False, True])
def test_the_end_of_the_run_waits_for_the_sums(tmp_path: Path, slow_sums: threading.Event, last: bool) -> None:
    store = Store(tmp_path / "home")
    work = tmp_path / "work"
    work.mkdir()
    vm = SimpleNamespace(
        communicator=SimpleNamespace(run=lambda *_, **__: CommandResult(0)),
        machine=SimpleNamespace(spec=SimpleNamespace(memory_mib=1, name="vm", uuid="1")),
    )
    with ExitStack() as stack:
        one = make(store, stack, work)
        slow_sums.set()
        one.take(vm, "booted", "", script_replaced=False)  # type: ignore[arg-type]  # a double
        one.finish()
        slow_sums.clear()
        one.take(vm, "first", "first", script_replaced=False, last=last)  # type: ignore[arg-type]  # a double
        threading.Timer(0.3, slow_sums.set).start()
    assert [each.key for each in Checkpoints(store.home).all()] == ["booted", "first"]
    assert store.checkpoints.debris() == []
