"""Checkpoints as files: published last, held while used, removed child before parent."""

from __future__ import annotations

import dataclasses
import json
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from orchestrator.record import locks
from orchestrator.record.checkpoints import DISK, MANIFEST, MEMORY, Checkpoint, CheckpointGone, FileSum
from orchestrator.record.files import sha256
from orchestrator.record.store import Store
from orchestrator.verbs.checkpoints import list_checkpoints, remove, tidy_checkpoints, trim

MIB = 1 << 20


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


def make(store: Store, key: str, parent: str = "", *, memory: int = MIB, disk: int = MIB) -> Checkpoint:
    """A published checkpoint with contents."""
    with store.checkpoints.segment() as folder:
        sums = {}
        for name, size in ((DISK, disk), (MEMORY, memory)):
            (folder / name).write_bytes(key.encode().ljust(size, b"."))
            sums[name] = FileSum(size, sha256(folder / name))
        one = Checkpoint(
            id=folder.name, folder=folder, key=key, step=key, parent=parent, lineage="l", source="s",
            created=time.time(), oldest=1.0, fingerprint="f", machine="m", uuid="u", script_replaced=False, files=sums,
        )  # fmt: skip
        store.checkpoints.publish(one)
    return one


def test_a_published_one_is_found_whole(store: Store) -> None:
    one = make(store, "a")
    assert store.checkpoints.all() == [one]
    assert store.checkpoints.find(one.id) == one
    assert one.damage([DISK, MEMORY]) == ""


def test_a_segment_without_a_manifest_is_none_and_goes(store: Store) -> None:
    with store.checkpoints.segment() as folder:
        (folder / DISK).write_bytes(b"half")
        assert store.checkpoints.all() == []
        assert store.checkpoints.debris() == []  # it is being written
    assert not folder.exists()


def test_what_a_killed_run_left_is_debris(store: Store) -> None:
    folder = store.checkpoints.folder / "0123"
    folder.mkdir()
    (folder / DISK).write_bytes(b"half")
    assert store.checkpoints.debris() == [folder]
    tidy_checkpoints(store)
    assert not folder.exists()


@pytest.mark.parametrize("change", ["{half", "[]", '{"format": 99}', '{"format": 1}', ""])
def test_a_damaged_manifest_is_none(store: Store, change: str) -> None:
    one = make(store, "a")
    (one.folder / MANIFEST).write_text(change)
    assert store.checkpoints.all() == []


def test_a_changed_or_cut_file_is_noticed(store: Store) -> None:
    one = make(store, "a")
    memory = one.folder / MEMORY
    memory.write_bytes(memory.read_bytes()[:-1] + b"x")
    assert str(memory) in one.damage([DISK, MEMORY])
    (one.folder / DISK).unlink()
    assert one.damage([DISK]) != ""


def test_a_broken_chain_cannot_be_held(store: Store) -> None:
    parent = make(store, "a")
    child = make(store, "b", parent.id)
    (parent.folder / MANIFEST).unlink()
    with pytest.raises(CheckpointGone), store.checkpoints.held(child):
        pass


def test_what_is_held_or_rested_on_stays(store: Store) -> None:
    parent = make(store, "a")
    child = make(store, "b", parent.id)
    assert not store.checkpoints.remove(parent)
    with store.checkpoints.held(child):
        assert not store.checkpoints.remove(child)
        assert not store.checkpoints.drop_memory(parent)
        assert list(trim(store.checkpoints, 0)) == []
    assert store.checkpoints.remove(child)
    assert store.checkpoints.remove(parent)
    assert store.checkpoints.all() == []


def test_two_may_hold_one(store: Store) -> None:
    one = make(store, "a")
    with store.checkpoints.held(one), store.checkpoints.held(one):
        pass


def test_above_the_cap_memories_go_first_then_the_least_used(store: Store) -> None:
    first = make(store, "a")
    second = make(store, "b", first.id)
    third = make(store, "c", second.id)
    other = make(store, "d")
    with store.checkpoints.held(third):
        pass  # used last, and with it what it rests on
    size = first.allocated()
    freed = list(trim(store.checkpoints, 3 * size + MIB // 2))
    assert [one.what for one in freed] == ["memory of a checkpoint"] * 2
    assert freed[0].checkpoint == other
    list(trim(store.checkpoints, 3 * MIB + 64 * 1024))
    assert [one.id for one in store.checkpoints.all()] == [first.id, second.id, third.id]
    assert all(one.memory is None for one in store.checkpoints.all())
    list(trim(store.checkpoints, 0))
    assert store.checkpoints.all() == []


def test_removing_one_removes_what_rests_on_it(store: Store) -> None:
    first = make(store, "a")
    second = make(store, "b", first.id)
    other = make(store, "c")
    assert [one.checkpoint.id for one in remove(store, (first.id,))] == [second.id, first.id]
    assert [one.checkpoint for one in list_checkpoints(store)] == [other]
    json.dumps([one.to_json() for one in list_checkpoints(store)])


def test_a_lineage_goes_with_its_last_checkpoint(store: Store) -> None:
    with store.checkpoints.new_lineage() as folder:
        one = make(store, "a")
        store.checkpoints.publish(dataclasses.replace(one, lineage=folder.name))
        store.checkpoints.prune_lineage(folder)
    assert folder.exists()
    with ExitStack() as stack:
        stack.enter_context(store.checkpoints.using_lineage(folder))
        assert store.checkpoints.remove(one)
        store.checkpoints.prune_lineage(folder)
        assert folder.exists()
    store.checkpoints.prune_lineage(folder)
    assert not folder.exists()


def test_a_lineage_without_a_checkpoint_goes_at_once(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.checkpoints.new_lineage() as folder:
        store.checkpoints.prune_lineage(folder)
        assert folder.exists(), "it is in use"
        raise ZeroDivisionError
    assert not folder.exists()


@pytest.mark.parametrize("kind", ["segment", "new_lineage"])
def test_a_folder_taken_for_debris_before_it_is_locked_is_made_again(
    store: Store, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    lock = locks.lock
    taken: list[Path] = []

    def late(fd: int, path: Path, *, exclusive: bool) -> None:
        if not taken:
            taken.append(path.parent)
            [debris] = store.checkpoints.debris()
            assert store.checkpoints.remove_debris(debris)
        lock(fd, path, exclusive=exclusive)

    monkeypatch.setattr(locks, "lock", late)
    with getattr(store.checkpoints, kind)() as folder:
        assert folder.exists()
        assert store.checkpoints.debris() == []
        assert taken and taken != [folder]
