"""The web page over a store, asked by HTTP and looked at by a real browser."""

from __future__ import annotations

import base64
import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from orchestrator.build import control
from orchestrator.record import events as e
from orchestrator.record.journal import Journal
from orchestrator.record.record import RecordWriter
from orchestrator.record.runs import RunFolder
from orchestrator.record.store import Store
from orchestrator.service.page.routes import Page
from orchestrator.views.customization_log import CustomizationLog
from tests.contract.serving import serving

HOSTILE = "<script>document.title='taken'</script>"


@contextmanager
def recorded(store: Store, name: str) -> Iterator[tuple[RunFolder, Journal]]:
    """A run that is alive, with everything that a worker keeps up to date."""
    with store.new_run(name) as folder, Journal(folder.path) as journal:
        journal.subscribe(RecordWriter(folder.path))
        with CustomizationLog(folder.path) as log:
            journal.subscribe(log)
            journal.emit(e.RunStarted(folder.id, "/t", name, "Debian:debian-12:12:latest", "12.0.1", "ab" * 32,
                                      "Standard_D2s_v3", 2, 2048, 3600.0, ("install", HOSTILE)))  # fmt: skip
            yield folder, journal


def print_step(journal: Journal, index: int, name: str, text: str) -> None:
    journal.emit(e.StepStarted(index, name, "Shell", "Customizing", 2, f"steps/{index:02d}.out"))
    journal.output(index, "stdout", text.encode())
    journal.flush_output()


def finish(journal: Journal) -> None:
    journal.emit(e.StepFinished(1, HOSTILE, "failed", 2.5, 7, message="exit code 7", hint="look at line 3"))
    journal.emit(e.RunFinished("Failed", "Customizing", "the build failed", 1, 61.0))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def followed() -> threading.Event:
    """Set when somebody follows a run live."""
    return threading.Event()


@pytest.fixture(scope="module")
def page(store: Store, followed: threading.Event) -> Iterator[str]:
    pages = Starlette(routes=Page(store).routes)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("path", "").endswith("/live"):
            followed.set()
        await pages(scope, receive, send)

    with serving(app) as address:
        yield address


@pytest.fixture(scope="module")
def failed(store: Store) -> RunFolder:
    with recorded(store, "nightly") as (folder, journal):
        print_step(journal, 0, "install", "all well\n")
        journal.emit(e.StepFinished(0, "install", "succeeded", 1.0, 0))
        print_step(journal, 1, HOSTILE, f"{HOSTILE}\nthe last line\n")
        finish(journal)
    return folder


def browse(address: str, tmp_path: Path, *more: str) -> str:
    """The document as Chromium has it after its scripts ran."""
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run([*command, *more, "--dump-dom", address], capture_output=True, timeout=120, check=True)
    return done.stdout.decode()


def test_the_runs_are_listed_and_lead_to_their_pages(page: str, failed: RunFolder) -> None:
    answer = requests.get(f"{page}/", timeout=10)
    assert answer.url == f"{page}/ui"
    assert f'<a href="/ui/runs/{failed.id}">{failed.id}</a>' in answer.text
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


def test_a_failed_run_tells_which_step_why_and_what_to_do(page: str, failed: RunFolder) -> None:
    text = requests.get(f"{page}/ui/runs/latest", timeout=10).text
    for expected in (failed.id, "exit code 7", "look at line 3", "the last line", "12.0.1", "customization.log"):
        assert expected in text
    assert HOSTILE not in text
    assert "live.js" not in text


def test_a_browser_shows_what_a_guest_printed_as_text(page: str, failed: RunFolder, tmp_path: Path) -> None:
    shot = tmp_path / "page.png"
    document = browse(f"{page}/ui/runs/{failed.id}", tmp_path, f"--screenshot={shot}")
    assert "<title>nightly" in document
    assert "&lt;script&gt;document.title='taken'" in document
    assert shot.read_bytes().startswith(b"\x89PNG")


def test_a_browser_follows_a_run_to_its_end(page: str, store: Store, followed: threading.Event, tmp_path: Path) -> None:
    begun, ids = threading.Event(), []
    followed.clear()

    def live() -> None:
        with recorded(store, "growing") as (folder, journal):
            ids.append(folder.id)
            print_step(journal, 0, "install", "printed before the page was opened\n")
            begun.set()
            followed.wait(60)
            print_step(journal, 1, HOSTILE, "printed while it was open\n")
            finish(journal)

    worker = threading.Thread(target=live)
    worker.start()
    assert begun.wait(10)
    document = browse(f"{page}/ui/runs/{ids[0]}", tmp_path, "--virtual-time-budget=10000")
    worker.join()
    assert "printed before the page was opened" in document
    assert "printed while it was open" in document
    assert '<p id="said" class="skip" role="status">Failed</p>' in document


def test_the_stream_goes_on_where_a_reader_was(page: str, failed: RunFolder) -> None:
    log = failed.customization_log.read_text()
    at = log.index("\n", len(log) // 2) + 1
    body = requests.get(f"{page}/ui/runs/{failed.id}/live", headers={"Last-Event-ID": str(at)}, timeout=10).text
    events = [dict(line.split(": ", 1) for line in each.splitlines()) for each in body.strip().split("\n\n")]
    assert "".join(json.loads(each["data"]) for each in events if each["event"] == "log") == log[at:]
    assert events[-1]["event"] == "end"


@pytest.mark.parametrize("path", ["lock", "../../store.json", "login_key", "steps/00.out", "work", "%2e%2e/lock", ""])
def test_only_listed_files_are_given(page: str, failed: RunFolder, path: str) -> None:
    (failed.path / "login_key").write_text("secret")
    answer = requests.get(f"{page}/ui/runs/{failed.id}/files/{path}", timeout=10)
    assert answer.status_code == 404
    assert "secret" not in answer.text


def test_artifacts_come_in_ranges(page: str, store: Store) -> None:
    with recorded(store, "made") as (folder, journal):
        image = folder.artifacts / "image.vhd"
        image.write_bytes(bytes(range(256)) * 16)
        journal.emit(e.ArtifactWritten(str(image), "vhd", 4096, 4096, 4096, "cd" * 32))
        journal.emit(e.RunFinished("Succeeded", "", "", 0, 1.0))
    address = f"{page}/ui/runs/{folder.id}/files/artifacts/image.vhd"
    part = requests.get(address, headers={"Range": "bytes=10-19"}, timeout=10)
    assert (part.status_code, part.content) == (206, bytes(range(10, 20)))
    assert requests.get(address, timeout=10).content == image.read_bytes()


def test_the_screen_of_a_running_build_vm_is_shown(page: str, store: Store, tmp_path: Path) -> None:
    """What the worker answers is the picture; a browser fetches it when somebody opens the part."""
    png = base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
    )
    with recorded(store, "seen") as (folder, journal):
        address = f"{page}/ui/runs/{folder.id}/screen.png"
        assert requests.get(address, timeout=10).status_code == 404
        with control.serve(folder.path, {"screenshot": lambda _: {"png": base64.b64encode(png).decode()}}):
            answer = requests.get(address, timeout=10)
            assert (answer.headers["Content-Type"], answer.content) == ("image/png", png)
        with control.serve(folder.path, {"screenshot": lambda _: {"error": "the build VM is not running"}}):
            assert requests.get(address, timeout=10).status_code == 404
        text = requests.get(f"{page}/ui/runs/{folder.id}", timeout=10).text
        assert f'data-from="/ui/runs/{folder.id}/screen.png"' in text
        finish(journal)
    assert requests.get(address, timeout=10).status_code == 404
    assert "screen.png" not in requests.get(f"{page}/ui/runs/{folder.id}", timeout=10).text


def test_what_is_not_there_is_said(page: str) -> None:
    for path in ("/ui/runs/none", "/ui/runs/none/live", "/ui/assets/none.js"):
        answer = requests.get(page + path, timeout=10)
        assert (answer.status_code, "Not found" in answer.text) == (404, True)
