"""`aib gc`: everything that nobody needs goes, nothing that somebody has locked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from hypervisor.errors import HostError
from orchestrator.record import arm_ids, files
from orchestrator.record.store import Layer, Resource, Store
from orchestrator.verbs import gc


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


def add(store: Store, content: bytes, *, image: str = "") -> Layer:
    source = store.home / "source"
    source.write_bytes(content)
    layer = store.add_layer(source, "raw", move=True, virtual_size=len(content))
    if image:
        aib = {"digest": layer.digest}
        store.put(Resource(arm_ids.managed_image_id(image), arm_ids.MANAGED_IMAGE, image, properties={"aib": aib}))
    return layer


def names(store: Store, limits: gc.Limits | None = None) -> set[str]:
    return {Path(item.name).name for item in gc.collect(store, limits)}


def fetched(store: Store, digit: str, *, age: float, size: int = 8192) -> Path:
    path = store.home / "fetched" / (digit * 64)
    path.write_bytes(b"x" * size)
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_an_unused_disk_goes_and_a_used_one_stays(store: Store) -> None:
    used = add(store, b"used", image="i")
    unused = add(store, b"unused")
    store.release_layer(unused.digest)
    assert names(store) == {unused.path.name}
    assert (used.path.exists(), unused.path.exists()) == (True, False)
    store.delete(arm_ids.managed_image_id("i"))
    assert names(store) == {used.path.name}


def test_a_dry_run_tells_the_same_and_removes_nothing(store: Store) -> None:
    unused = add(store, b"unused")
    store.release_layer(unused.digest)
    run = store.new_run("t")
    (run.work / "os.qcow2").write_bytes(b"x" * 5000)
    run.release()
    old = fetched(store, "a", age=40 * gc.DAY)
    told = list(gc.collect(store, dry_run=True))
    assert unused.path.exists()
    assert (run.work / "os.qcow2").exists()
    assert old.exists()
    assert list(gc.collect(store)) == told
    assert sum(item.size for item in told) >= 3 * 4096
    assert list(gc.collect(store)) == []


def test_a_dead_runs_leftovers_go_and_its_record_stays(store: Store) -> None:
    run = store.new_run("t")
    for path in ("work/os.qcow2", "work/sub/seed.iso", "artifacts/.image.vhd.abc/disk.vhd", "artifacts/image.vhd",
                 "events.jsonl", "steps/00.out", "login_key", f"{files.PARTIAL}x"):  # fmt: skip
        (run.path / path).parent.mkdir(exist_ok=True)
        (run.path / path).write_text("x")
    assert names(store) == set()  # alive
    run.release()
    assert names(store) == {"os.qcow2", "sub", ".image.vhd.abc", "login_key", f"{files.PARTIAL}x"}
    assert (run.path / "events.jsonl").exists()
    assert (run.artifacts / "image.vhd").exists()
    assert names(store, gc.Limits(artifacts=True)) == {"image.vhd"}


def test_a_run_folder_that_never_came_to_be_goes(store: Store) -> None:
    (store.home / "runs" / ".new-20260101-000000-abcdef" / "steps").mkdir(parents=True)
    assert names(store) == {".new-20260101-000000-abcdef"}
    assert store.unborn_runs() == ()


def test_the_source_of_a_living_run_stays_without_a_name(store: Store) -> None:
    layer = add(store, b"source", image="i")
    old = fetched(store, "a", age=40 * gc.DAY)
    run = store.new_run("t")
    files.publish_json(run.plan, {"source": {"digest": layer.digest}, "payload": {"sha256": "a" * 64}})
    store.delete(arm_ids.managed_image_id("i"))
    assert names(store) == set()
    run.release()
    assert names(store) == {layer.path.name, old.name}


def test_fetched_files_stay_while_a_run_still_plans(store: Store) -> None:
    old = fetched(store, "a", age=40 * gc.DAY)
    with store.new_run("t"):
        assert names(store) == set()
    assert names(store) == {old.name}


def test_fetched_files_go_by_age_and_by_size_the_least_used_first(store: Store) -> None:
    (store.home / "fetched" / "urls").mkdir()
    ancient, older, newer, young = (
        fetched(store, digit, age=age) for digit, age in (("a", 31 * gc.DAY), ("b", 9e5), ("c", 8e5), ("d", 10.0))
    )
    assert names(store) == {ancient.name}
    assert names(store, gc.Limits(fetched_bytes=16384)) == {older.name}
    assert names(store, gc.Limits(fetched_bytes=0)) == {newer.name}
    assert young.exists()
    assert (store.home / "fetched" / "urls").exists()


def test_the_reservation_of_a_dead_run_goes(store: Store) -> None:
    run = store.new_run("t")
    version_id = arm_ids.image_version_id("g", "d", "1.0.0")
    properties = {"provisioningState": "Creating", "aib": {"run": run.id}}
    store.put(Resource(version_id, arm_ids.IMAGE_VERSION, "1.0.0", properties=properties))
    assert names(store) == set()
    run.release()
    assert names(store) == {"1.0.0"}
    assert store.get(version_id) is None


def test_unfinished_files_go_unless_their_writer_lives(store: Store) -> None:
    folder = store.home / "vhds" / "t"
    folder.mkdir()
    dead = [folder / f"{files.PARTIAL}1", store.home / "layers" / f"{files.PARTIAL}2", store.home / "layers" / "x.raw"]
    for path in dead:
        path.write_bytes(b"x")
    with files.partial(folder / "x.vhd") as (_, vhd), files.partial(store.home / "layers" / "y") as (_, layer):
        assert names(store) == {path.name for path in dead}
        assert vhd.exists()
        assert layer.exists()


def test_imports_and_downloads_that_were_given_up_go(store: Store) -> None:
    for name, age in (("old", 2 * gc.DAY), ("new", 60.0)):
        folder = store.home / "incoming" / name
        folder.mkdir(parents=True)
        for path in (folder / "disk", folder):
            if path != folder:
                path.write_bytes(b"x")
            os.utime(path, (time.time() - age,) * 2)
    assert names(store) == {"old"}


def test_a_damaged_resource_keeps_every_disk(store: Store) -> None:
    """Nobody knows which disk it refers to."""
    layer = add(store, b"used", image="i")
    (path,) = (store.home / "resources").rglob("resource.json")
    whole = path.read_text()
    path.write_text(whole[:-20])
    with pytest.raises(HostError, match="damaged"):
        list(gc.collect(store))
    path.write_text(whole)
    assert list(gc.collect(store)) == []
    assert layer.path.exists()


def test_gc_and_adders_and_readers_at_once(store: Store) -> None:
    """Three processes add disks, name and read them, while a fourth collects all the time: none loses its own."""
    script = """
        import os, sys
        from pathlib import Path
        from orchestrator.record import files
        from orchestrator.record.store import Resource, Store
        store, me = Store(Path(sys.argv[1])), sys.argv[2]
        for n in range(12):
            source = store.home / f"source-{me}"
            source.write_bytes(b"shared" if n % 5 == 0 else os.urandom(20000))
            layer = store.add_layer(source, "raw", move=bool(n % 2), virtual_size=1)
            name = f"/x/images/{me}-{n}"
            store.put(Resource(name, "x/images", name, properties={"aib": {"digest": layer.digest}}))
            with store.reading(layer.digest) as read:
                store.delete(name)
                assert files.sha256(read.path) == layer.digest, n
    """
    argv = [sys.executable, "-c", textwrap.dedent(script), str(store.home)]
    workers = [subprocess.Popen([*argv, str(n)], stderr=subprocess.PIPE) for n in range(3)]
    while any(worker.poll() is None for worker in workers):
        for _ in gc.collect(store):
            pass
    for worker in workers:
        assert worker.communicate()[1] == b""
        assert worker.returncode == 0
    for _ in gc.collect(store):
        pass
    assert list(store.layers.all()) == []
    assert [path.name for path in (store.home / "layers").iterdir() if path.name != ".lock"] == []


def test_the_command_prints_json(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from orchestrator.cli.gc import command

    monkeypatch.setenv("AIB_HOME", str(store.home))
    old = fetched(store, "a", age=40 * gc.DAY)
    shown = CliRunner().invoke(command, ["--dry-run", "--json", "--fetched-max", "1.5M"])
    assert json.loads(shown.stdout) == {
        "dryRun": True, "bytes": 8192, "items": [{"what": "fetched", "name": str(old), "bytes": 8192}],
    }  # fmt: skip
    assert "8.0 KiB freed" in CliRunner().invoke(command, []).stderr
    assert CliRunner().invoke(command, ["--fetched-max", "much"]).exit_code == 2
