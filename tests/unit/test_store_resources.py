"""The store's resources: one file each is the truth, the index follows, crashes and races lose nothing."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from hypervisor.errors import HostError, InputError
from orchestrator.record import files
from orchestrator.record.resources import ResourceFiles, resource_key
from orchestrator.record.store import Resource, ResourceExists, Store

GROUP = "/subscriptions/0/resourceGroups/rg/providers/Microsoft.Compute"


def image(name: str, **properties: object) -> Resource:
    return Resource(f"{GROUP}/images/{name}", "Microsoft.Compute/images", name, "westus2", {"a": "b"}, properties)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


def run_python(script: str, *arguments: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)], stdout=subprocess.PIPE
    )


def test_home_is_private(store: Store) -> None:
    assert store.home.stat().st_mode & 0o777 == 0o700


def test_default_home_is_the_environments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIB_HOME", str(tmp_path / "named"))
    assert Store.default().home == tmp_path / "named"


def test_put_get_in_any_case(store: Store) -> None:
    store.put(image("One", provisioningState="Succeeded"))
    found = store.get(f"{GROUP}/IMAGES/oNE".replace("/subscriptions", "/SUBSCRIPTIONS"))
    assert found == image("One", provisioningState="Succeeded")
    assert store.get(f"{GROUP}/images/Two") is None


def test_the_rest_of_the_envelope_is_kept(store: Store) -> None:
    extra = {"identity": {"type": "UserAssigned"}, "sku": {"name": "x"}}
    store.put(Resource(f"{GROUP}/images/one", "Microsoft.Compute/images", "one", extra=extra))
    found = store.get(f"{GROUP}/images/one")
    assert found is not None
    assert (found.extra, found.to_json()["identity"]) == (extra, extra["identity"])
    assert store.list()[0].extra == extra


@pytest.mark.parametrize("name", ["\N{GREEK SMALL LETTER OMEGA}" * 50, "a" * 300, "/".join(["a" * 200] * 30)])
def test_an_id_that_no_file_can_have_is_no_resource(store: Store, name: str) -> None:
    assert store.get(f"{GROUP}/images/{name}") is None
    assert store.delete(f"{GROUP}/images/{name}") is False
    with pytest.raises(InputError, match="too long"):
        store.put(image(name))
    store.put(image("one"))
    assert [r.name for r in store.list()] == ["one"]


def test_put_replaces(store: Store) -> None:
    store.put(image("one", n=1))
    store.put(image("ONE", n=2))
    assert [r.properties["n"] for r in store.list()] == [2]


def test_create_refuses_what_is_there(store: Store) -> None:
    store.create(image("one"))
    with pytest.raises(ResourceExists) as caught:
        store.create(image("ONE"))
    assert caught.value.resource_id == image("one").id


def test_update_is_given_the_last_state(store: Store) -> None:
    store.put(image("one", n=1))
    store.update(image("one").id, lambda r: Resource(r.id, r.type, r.name, properties={"n": r.properties["n"] + 1}))
    assert store.get(image("one").id).properties == {"n": 2}
    with pytest.raises(InputError):
        store.update(image("two").id, lambda r: r)


def test_list_by_type_and_place(store: Store) -> None:
    gallery = Resource(f"{GROUP}/galleries/g", "Microsoft.Compute/galleries", "g")
    definition = Resource(f"{gallery.id}/images/d", "Microsoft.Compute/galleries/images", "d")
    near = Resource(f"{gallery.id}2/images/d", "Microsoft.Compute/galleries/images", "d")
    for resource in (near, definition, gallery, image("one")):
        store.put(resource)
    assert [r.id for r in store.list("microsoft.compute/GALLERIES/images")] == [definition.id, near.id]
    assert [r.id for r in store.list(under=gallery.id.upper())] == [definition.id]
    assert len(store.list()) == 4


def test_delete_leaves_what_lies_below(store: Store) -> None:
    gallery = Resource(f"{GROUP}/galleries/g", "Microsoft.Compute/galleries", "g")
    definition = Resource(f"{gallery.id}/images/d", "Microsoft.Compute/galleries/images", "d")
    store.put(gallery)
    store.put(definition)
    assert store.delete(gallery.id)
    assert not store.delete(gallery.id)
    assert store.list() == [definition]
    assert store.delete(definition.id)
    assert list((store.home / "resources").iterdir()) == []


@pytest.mark.parametrize("name", ["..", ".", "a.json", "resource.json", "ü", "%2e%2e", "a b"])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    path = ResourceFiles(tmp_path).path(f"/x/{name}/y/{name}")
    assert path.name == "resource.json"
    assert len(path.relative_to(tmp_path).parts) == 5
    assert path.resolve() == path
    assert path.parent.name != "resource.json"


def test_key_ignores_case_and_spare_slashes() -> None:
    assert resource_key("/A/b//C/") == "/a/b/c"


def alter(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        for statement in statements:
            db.execute(statement)


@pytest.mark.parametrize("damage", ["missing", "garbage", "truncated", "empty", "other version", "other boot"])
def test_index_is_rebuilt(store: Store, damage: str) -> None:
    for n in range(9):
        store.put(image(f"i{n:02}"))
    path = store.home / "index.sqlite"
    match damage:
        case "missing":
            path.unlink()
        case "garbage":
            path.write_bytes(b"not a database, surely" * 500)
        case "truncated":
            os.truncate(path, path.stat().st_size // 2 + 7)
        case "empty":
            path.write_bytes(b"")
        case "other version":
            alter(path, "pragma user_version = 99")
        case "other boot":  # power went: rows may have missed what is on the disk
            alter(path, "delete from resources", "update made set boot = 'before'")
    assert len(store.list()) == 9
    store.put(image("more"))
    assert len(store.list("Microsoft.Compute/images")) == 10


def test_a_file_that_was_published_but_not_indexed_is_found(store: Store) -> None:
    """The crash between the rename and the row."""
    store.put(image("one"))
    resource = image("two")
    store._index.note(resource_key(resource.id))
    store._files.write(resource)
    assert [r.name for r in Store(store.home).list()] == ["one", "two"]


def test_a_row_whose_file_went_is_dropped(store: Store) -> None:
    store.put(image("one"))
    store._index.note(resource_key(image("one").id))
    store._files.remove(image("one").id)
    assert Store(store.home).list() == []


def test_partial_files_are_not_resources(store: Store) -> None:
    store.put(image("one"))
    folder = store._files.path(image("one").id).parent
    (folder / f"{files.PARTIAL}1234").write_text('{"id": "/half')
    assert len(store.list()) == 1
    store.rebuild_index()
    assert [p.name for p in folder.iterdir()] == ["resource.json"]
    assert len(store.list()) == 1


def test_a_damaged_resource_is_an_error_and_hides_no_other(store: Store) -> None:
    store.put(image("one"))
    store.put(image("two"))
    store._files.path(image("one").id).write_text("{")
    with pytest.raises(HostError, match="damaged"):
        store.get(image("one").id)
    store.rebuild_index()
    assert [r.name for r in store.list()] == ["two"]


def test_one_of_many_threads_reserves(store: Store) -> None:
    def reserve(n: int) -> bool:
        try:
            store.create(image("same", n=n))
        except ResourceExists:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(reserve, range(16))) == 1


def test_one_of_several_processes_reserves_each_version(store: Store) -> None:
    script = """
        import sys
        from pathlib import Path
        from orchestrator.record.store import Resource, ResourceExists, Store
        store = Store(Path(sys.argv[1]))
        for n in range(20):
            try:
                store.create(Resource(f"/x/versions/0.0.{n}", "x/versions", str(n), properties={"by": sys.argv[2]}))
                print(n)
            except ResourceExists:
                pass
    """
    workers = [run_python(script, store.home, name) for name in "abc"]
    won = [int(n) for worker in workers for n in worker.communicate()[0].split()]
    assert sorted(won) == list(range(20))
    assert len(store.list("x/versions")) == 20


def test_writers_killed_at_any_point_leave_it_readable(store: Store) -> None:
    """Files and index agree after each kill, and every file holds whole JSON."""
    script = """
        import itertools, sys
        from pathlib import Path
        from orchestrator.record.store import Resource, Store
        store = Store(Path(sys.argv[1]))
        print("ready", flush=True)
        for n in itertools.count():
            name = f"{sys.argv[2]}-{n % 7}"
            store.put(Resource(f"/x/y/{name}", "x/y", name, properties={"n": n, "filler": "f" * (n % 5000)}))
            if n % 3 == 0:
                store.delete(f"/x/y/{sys.argv[2]}-{n % 5}")
    """
    for turn in range(5):
        writers = [run_python(script, store.home, name) for name in "ab"]
        for writer in writers:
            assert writer.stdout is not None
            writer.stdout.readline()
        for number, writer in enumerate(writers):
            try:
                writer.wait(0.03 + 0.017 * turn + 0.011 * number)
            except subprocess.TimeoutExpired:
                writer.send_signal(signal.SIGKILL)
            writer.communicate()
        held = {r.id: r for r in store.list()}
        on_disk = [json.loads(p.read_text()) for p in (store.home / "resources").rglob("resource.json")]
        assert {r["id"]: r["properties"] for r in on_disk} == {i: r.properties for i, r in held.items()}
    store.put(image("after"))
    assert image("after") in store.list()


def test_no_space_left_says_what_to_do(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "write", full)
    with pytest.raises(files.NoSpaceLeft, match="no space left") as caught:
        store.put(image("one"))
    monkeypatch.undo()
    assert caught.value.exit_code == 3
    assert "aib gc" in caught.value.hint
    assert store.list() == []
    assert not list((store.home / "resources").rglob(f"{files.PARTIAL}*"))


def test_a_home_that_cannot_be_made_is_a_host_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError):
        Store(tmp_path / "file" / "home")


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (1, files.NotPermitted),
        (13, files.NotPermitted),
        (30, files.NotPermitted),
        (28, files.NoSpaceLeft),
        (122, files.NoSpaceLeft),
        (5, HostError),
    ],
)
def test_what_the_system_refuses(tmp_path: Path, number: int, kind: type[HostError]) -> None:
    with pytest.raises(HostError) as caught, files.translating("writing", tmp_path):
        raise OSError(number, os.strerror(number))
    assert type(caught.value) is kind
    assert str(tmp_path) in caught.value.message
    assert caught.value.exit_code == 3
