"""Run folders: alive means that somebody holds the lock."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from hypervisor.errors import UsageError
from orchestrator.record import files
from orchestrator.record.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


def test_a_new_run_is_alive_until_released(store: Store) -> None:
    run = store.new_run("hello")
    assert run.alive()
    assert Store(store.home).run(run.id).alive()
    run.release()
    assert not run.alive()
    assert (run.path.stat().st_mode & 0o777, run.template_name) == (0o700, "hello")
    assert {p.name for p in run.path.iterdir()} == {"lock", "run.json", "steps", "artifacts", "work"}


def test_two_processes_share_a_run(store: Store) -> None:
    run = store.new_run("hello")
    with store.run(run.id).locked() as second:
        run.release()
        assert store.run(run.id).alive()
        assert second.alive()
    assert not store.run(run.id).alive()


def test_asking_does_not_make_alive(store: Store) -> None:
    run = store.new_run("hello")
    run.release()
    with run.if_dead() as dead:
        assert dead
    assert not run.alive()


def test_a_run_dies_with_its_process(store: Store) -> None:
    script = """
        import sys
        from pathlib import Path
        from orchestrator.record.store import Store
        print(Store(Path(sys.argv[1])).new_run("killed").id, flush=True)
        sys.stdin.read()
    """
    argv = [sys.executable, "-c", textwrap.dedent(script), str(store.home)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        run = store.run(holder.stdout.readline().decode().strip())
        assert run.alive()
        holder.kill()
        holder.wait()
        assert not run.alive()
        assert run.template_name == "killed"


def test_runs_are_found_by_id_beginning_and_last(store: Store) -> None:
    with pytest.raises(UsageError):
        store.run("latest")
    runs = [store.new_run(f"t{n}") for n in range(3)]
    listed = store.runs()
    assert {r.id for r in listed} == {r.id for r in runs}
    assert store.run("last").id == listed[-1].id
    assert store.run(runs[0].id).id == runs[0].id
    assert store.run(runs[1].id[:-1]).id == runs[1].id
    for unknown in ("", "nothing", "../resources", "."):
        with pytest.raises(UsageError, match="no run"):
            store.run(unknown)
    with pytest.raises(UsageError, match="could be"):
        store.run("2")


def test_a_run_whose_creation_was_cut_off_is_not_listed(store: Store) -> None:
    (store.home / "runs" / ".new-20260101-000000-abcdef").mkdir()
    assert store.runs() == ()
    assert len(store.unborn_runs()) == 1
    assert not store.unborn_runs()[0].alive()


def test_a_damaged_head_hides_no_run(store: Store) -> None:
    run = store.new_run("hello")
    (run.path / "run.json").write_text("{")
    assert [r.id for r in store.runs()] == [run.id]


def test_a_run_that_cannot_be_made_leaves_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "publish_json", full)
    with pytest.raises(files.NoSpaceLeft):
        store.new_run("t")
    assert store.runs() == store.unborn_runs() == ()
