"""A full disk: nothing is lost, everything can be read, and space can be made again."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from orchestrator.record import files
from orchestrator.record.index import Index
from orchestrator.record.store import Resource, Store
from orchestrator.verbs import gc


def resource(name: str) -> Resource:
    return Resource(f"/x/y/{name}", "x/y", name)


class Full:
    """Stands for sqlite3 on a disk where no page can be written or mapped."""

    def __getattr__(self, name: str) -> object:
        return getattr(sqlite3, name)

    def connect(self, *_: object, **__: object) -> None:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorname = "SQLITE_FULL"
        raise error


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "home")
    for name in "abc":
        store.put(resource(name))
    return store


def fill(monkeypatch: pytest.MonkeyPatch) -> None:
    import orchestrator.record.index as module

    monkeypatch.setattr(module, "sqlite3", Full())


def test_all_can_be_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(monkeypatch)
    assert [r.name for r in store.list("X/Y", under="/x")] == ["a", "b", "c"]
    assert store.list("other") == store.list(under="/x/y/a") == []
    assert store.get("/x/y/a") == resource("a")


def test_resources_and_disks_can_be_removed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = store.home / "disk"
    disk.write_bytes(b"x")
    layer = store.add_layer(disk, "raw", move=True, virtual_size=1)
    store.put(Resource("/x/y/i", "x/y", "i", properties={"aib": {"digest": layer.digest}}))
    fill(monkeypatch)
    assert store.delete("/x/y/i")
    assert store.delete("/x/y/b")
    assert [item.name for item in gc.collect(store)] == [layer.path.name]
    monkeypatch.undo()
    assert [r.name for r in store.list()] == ["a", "c"]
    store.put(resource("d"))
    assert [r.name for r in store.list()] == ["a", "c", "d"]


@pytest.mark.parametrize("when", ["note", "store"])
def test_a_change_survives_an_index_that_cannot_follow(
    store: Store, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    def full(*_: object) -> None:
        raise files.NoSpaceLeft("no space left")

    monkeypatch.setattr(Index, when, full)
    store.put(resource("d"))
    store.delete("/x/y/a")
    monkeypatch.undo()
    assert [r.name for r in store.list()] == ["b", "c", "d"]
