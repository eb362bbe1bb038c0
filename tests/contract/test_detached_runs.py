"""Runs with a supervisor of their own, as far as they come without a VM: they wait in fetching a script for ever."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from hypervisor.errors import HostError
from orchestrator.build import worker_process
from orchestrator.build.at_once import Stops
from orchestrator.build.detached import LOG, WAITING, Detached
from orchestrator.build.job import Job
from orchestrator.build.launch import launch
from orchestrator.build.options import BuildOptions
from orchestrator.build.slots import Need, Slots
from orchestrator.build.supervisor import supervise
from orchestrator.record.runs import RunFolder
from orchestrator.record.store import Store
from orchestrator.verbs.cancel import cancel
from orchestrator.verbs.runs import record_of
from tests.contract.arm_client import template
from tests.unit.conftest import WebServer

SMALL, HUGE = Need(1, 256), Need(4096, 1 << 30)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


@pytest.fixture
def waiting(web: WebServer) -> Iterator[tuple[str, threading.Event]]:
    """The address of a script that never comes, and whether somebody asked for it."""
    asked, go = threading.Event(), threading.Event()

    def slowly(handler: Any) -> None:
        asked.set()
        go.wait(120)

    yield web.on("/slow.sh", slowly), asked
    go.set()


def job_of(store: Store, folder: RunFolder, uri: str) -> Job:
    document = {"type": "Microsoft.VirtualMachineImages/imageTemplates", "apiVersion": "2024-02-01", "name": "waits"}
    body = template("waits", customize=[{"type": "Shell", "name": "s", "scriptUri": uri}])
    text = json.dumps(document | body)
    return Job(store.home, folder.id, store.home / "waits.json", text, BuildOptions())


def until(ready: Callable[[], Any], seconds: float = 60.0) -> Any:
    end = time.monotonic() + seconds
    while not (value := ready()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
    return value


def state_of(folder: RunFolder) -> str:
    return str(record_of(folder)["lastRunStatus"]["runState"])


def test_a_run_is_handed_over_and_cancelled(store: Store, waiting: tuple[str, threading.Event]) -> None:
    uri, asked = waiting
    folder = store.new_run("waits")
    launch(Detached(job_of(store, folder, uri), SMALL), folder)
    assert asked.wait(60)
    assert folder.alive() and state_of(folder) == "Running"
    cancel(store, folder.id)
    assert state_of(folder) == "Canceled" and record_of(folder)["exitCode"] == 130
    until(lambda: not (folder.path / LOG).exists())


def test_a_run_that_waits_for_room_is_cancelled_without_a_worker(
    store: Store, waiting: tuple[str, threading.Event]
) -> None:
    uri, asked = waiting
    folder = store.new_run("waits")
    with Slots(store.home).counted(HUGE):
        launch(Detached(job_of(store, folder, uri), SMALL), folder)
        until(lambda: folder.events.exists() and WAITING in folder.events.read_text())
        assert folder.alive() and state_of(folder) == "Running"
        cancel(store, folder.id)
    assert state_of(folder) == "Canceled" and not asked.is_set()
    assert not (folder.path / "worker.log").exists()


def test_a_supervisor_that_does_not_begin_leaves_the_run_to_the_caller(store: Store, tmp_path: Path) -> None:
    folder = store.new_run("waits")
    nowhere = Job(tmp_path / "home", "no-such-run", tmp_path / "x.json", "{}", BuildOptions())
    with pytest.raises(HostError, match="did not begin"):
        launch(Detached(nowhere, SMALL), folder)
    assert "no-such-run" in (folder.path / LOG).read_text()
    folder.release()
    assert not folder.alive()


def test_a_worker_that_hears_nothing_is_ended(
    store: Store, waiting: tuple[str, threading.Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, asked = waiting
    monkeypatch.setattr(worker_process, "GRACE", 0.2)
    with store.new_run("waits") as folder:
        stops, ended = Stops(), []
        job = job_of(store, folder, uri)
        work = threading.Thread(
            target=lambda: ended.append(supervise(job, folder.path, lambda _: None, stops)), daemon=True
        )
        work.start()
        assert asked.wait(60)
        (worker,) = until(workers)
        os.kill(worker, signal.SIGSTOP)
        folder.cancel_asked.touch()
        work.join(30)
        assert not work.is_alive()
    assert ended[0].finished.state == "Canceled" and not ended[0].stopped
    assert state_of(folder) == "Canceled"


def workers() -> list[int]:
    """Process ids of this process's own workers; one may be missing while another child or a thread ends (proc(5))."""
    children, found = [], []
    for path in Path(f"/proc/{os.getpid()}/task").glob("*/children"):
        with suppress(OSError):
            children += path.read_text().split()
    for pid in children:
        with suppress(OSError):
            if b"orchestrator.build.worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(int(pid))
    return found
