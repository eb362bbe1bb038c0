import json
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hypervisor.errors import InputError, UsageError
from orchestrator.cli import logs as logs_cli
from orchestrator.cli import runs as runs_cli
from orchestrator.cli import show as show_cli
from orchestrator.record import events as e
from orchestrator.record.journal import Journal
from orchestrator.record.record import RecordWriter
from orchestrator.record.runs import RunFolder
from orchestrator.record.store import Store
from orchestrator.verbs.cancel import cancel
from orchestrator.verbs.logs import find_step, service_log
from orchestrator.verbs.runs import find_run, list_runs
from orchestrator.verbs.show import show

STEP = e.StepStarted(0, "install", "Shell", "Customizing", 2, "steps/00.out")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("AIB_HOME", str(tmp_path / "home"))
    return Store.default()


def started(folder: RunFolder, template: str) -> e.RunStarted:
    return e.RunStarted(folder.id, "/t", template, "s", "1", "ab", "D1", 1, 1024, 60.0, ("install", "check"))


def make_run(store: Store, template: str, *, state: str = "Succeeded", code: int = 0) -> RunFolder:
    """A run that came to its end, or (no `state`) whose worker died."""
    with store.new_run(template) as folder, Journal(folder.path) as journal:
        journal.subscribe(RecordWriter(folder.path))
        journal.emit(started(folder, template))
        journal.emit(e.Phase("Customizing", "Customizing"))
        journal.emit(STEP)
        journal.output(0, "stdout", b"hello\n\x1b[2Jworld")
        if state:
            journal.emit(e.StepFinished(0, "install", "succeeded" if code == 0 else "failed", 1.0, code, message="bad"))
            journal.emit(e.RunFinished(state, "Customizing", "", code, 5.0))
    return folder


def invoke(command: object, *arguments: str) -> Result:
    return CliRunner().invoke(command, list(arguments), catch_exceptions=False)  # type: ignore[arg-type]  # a click.Command


def test_runs_are_listed_newest_first_with_their_state(store: Store) -> None:
    good, bad = make_run(store, "alpha"), make_run(store, "beta", state="Failed", code=1)
    dead = make_run(store, "gamma", state="")
    with store.new_run("delta") as living:
        listed = {run.run_id: run for run in list_runs(store)}
        assert list(listed) == sorted(listed, reverse=True)
        assert [listed[f.id].state for f in (good, bad, dead, living)] == [
            "Succeeded",
            "Failed",
            "Abandoned",
            "Running",
        ]
        assert listed[living.id].alive and not listed[good.id].alive
        text = invoke(runs_cli.command).stdout
    assert "alpha" in text and "Succeeded" in text
    entries = json.loads(invoke(runs_cli.command, "--json").stdout)
    assert {entry["runId"]: entry["exitCode"] for entry in entries}[bad.id] == 1


def test_damaged_record_does_not_hide_a_run(store: Store) -> None:
    folder = make_run(store, "alpha")
    folder.record.write_text("{")
    assert list_runs(store)[0].state == "Succeeded"


def test_ways_to_name_a_run(store: Store) -> None:
    first, second = make_run(store, "alpha"), make_run(store, "beta")
    assert find_run(store, first.id).id == first.id
    assert find_run(store, "alpha").id == first.id
    assert find_run(store, "latest").id == max(first.id, second.id)
    assert find_run(store, first.id[:-1]).id == first.id
    with pytest.raises(UsageError, match="could be") as ambiguous:
        find_run(store, "2")
    assert first.id in ambiguous.value.message
    with pytest.raises(UsageError, match="there is no run alpah") as unknown:
        find_run(store, "alpah")
    assert "did you mean alpha" in unknown.value.hint


def test_no_runs_at_all(store: Store) -> None:
    with pytest.raises(UsageError) as caught:
        find_run(store, "latest")
    assert "aib build" in caught.value.hint
    assert invoke(runs_cli.command, "--json").stdout.strip() == "[]"


def test_show_tells_a_failure(store: Store) -> None:
    folder = make_run(store, "alpha", state="Failed", code=127)
    text = invoke(show_cli.command, "latest").stdout
    assert "alpha failed" in text and "command not found" in text and "| hello" in text and "\x1b" not in text
    record = json.loads(invoke(show_cli.command, folder.id, "--json").stdout)
    assert record["runId"] == folder.id and record["lastRunStatus"]["runState"] == "Failed"
    assert "<testcase" in invoke(show_cli.command, folder.id, "--junit").stdout


def test_show_of_an_abandoned_run(store: Store) -> None:
    make_run(store, "alpha", state="")
    assert "Abandoned: it was Customizing when its process died" in show(store, "alpha").lines()


def test_logs_in_the_services_shape_raw_and_as_events(store: Store) -> None:
    make_run(store, "alpha")
    assert "PACKER OUT     azure-arm: hello\n" in invoke(logs_cli.command, "latest").stdout
    assert invoke(logs_cli.command, "latest", "--raw").stdout_bytes == b"hello\n\x1b[2Jworld"
    assert invoke(logs_cli.command, "latest", "--step", "2", "--raw").stdout_bytes == b""
    assert invoke(logs_cli.command, "latest", "--step", "install", "--raw").stdout_bytes == b"hello\n\x1b[2Jworld"
    only = invoke(logs_cli.command, "latest", "--step", "1").stdout
    assert "azure-arm: hello" in only and "Running builder" not in only
    kinds = [json.loads(line)["type"] for line in invoke(logs_cli.command, "latest", "--json").stdout.splitlines()]
    assert kinds[0] == "RunStarted" and kinds[-1] == "RunFinished"


def test_unknown_step_names_the_near_one(store: Store) -> None:
    folder = make_run(store, "alpha")
    with pytest.raises(UsageError, match="no step instal") as caught:
        find_step(folder.path, "instal")
    assert "did you mean install?" in caught.value.hint
    with pytest.raises(UsageError) as caught:
        find_step(folder.path, "7")
    assert "1 install, 2 check" in caught.value.hint


def test_following_ends_with_the_run(store: Store) -> None:
    lines: list[bytes] = []
    with store.new_run("alpha") as folder, Journal(folder.path) as journal:
        reader = threading.Thread(target=lambda: lines.extend(service_log(store.run(folder.id), follow=True)))
        reader.start()
        journal.emit(started(folder, "alpha"))
        journal.emit(STEP)
        journal.output(0, "stdout", b"live\n")
        journal.emit(e.RunFinished("Succeeded", "", "", 0, 1.0))
        reader.join(30)
        assert not reader.is_alive(), "it must not wait for the lock when the last event was read"
    assert any(b"live" in line for line in lines)


def test_following_a_run_whose_worker_dies_ends_too(store: Store) -> None:
    folder = make_run(store, "alpha", state="")
    assert b"".join(service_log(folder, follow=True)).endswith(b"azure-arm: \x1b[2Jworld\n")


def test_a_run_is_cancelled_by_any_of_its_names(store: Store) -> None:
    ended = make_run(store, "alpha")
    for name in ("latest", "alpha", ended.id, ended.id[:-1]):
        with pytest.raises(InputError, match=f"{ended.id} has ended already"):
            cancel(store, name)
    with pytest.raises(UsageError, match="no run alpah") as caught:
        cancel(store, "alpah")
    assert "alpha" in caught.value.hint
