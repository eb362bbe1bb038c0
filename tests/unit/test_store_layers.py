"""Layers: immutable, named by content, protected by locks from the first byte to the last reader."""

from __future__ import annotations

import hashlib
import os
import signal
import struct
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from hypervisor.deadline import CancelToken, Deadline
from hypervisor.errors import Cancelled, InputError
from orchestrator.record import files
from orchestrator.record.store import Layer, Resource, Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A sparse file: data, a hole, data, a hole."""
    path = tmp_path / "disk.raw"
    with path.open("wb") as file:
        file.write(b"begin" * 1000)
        file.seek(9 << 20)
        file.write(b"middle")
        file.truncate(12 << 20)
    return path


def add(store: Store, path: Path, *, move: bool = False) -> Layer:
    return store.add_layer(path, "raw", move=move, virtual_size=path.stat().st_size)


def image(layer: Layer) -> Resource:
    return Resource("/x/images/i", "x/images", "i", properties={"aib": {"digest": layer.digest}})


def test_a_copy_is_whole_sparse_and_read_only(store: Store, disk: Path) -> None:
    layer = add(store, disk)
    assert layer.digest == hashlib.sha256(disk.read_bytes()).hexdigest()
    assert layer.path == store.home / "layers" / f"{layer.digest}.raw"
    assert layer.path.read_bytes() == disk.read_bytes()
    assert layer.path.stat().st_mode & 0o777 == 0o444
    assert layer.path.stat().st_blocks * 512 < 4 << 20
    assert not layer.path.samefile(disk)
    assert store.layer(layer.digest) == layer


def test_adding_twice_gives_the_same_layer(store: Store, disk: Path) -> None:
    first = add(store, disk)
    inode = first.path.stat().st_ino
    assert add(Store(store.home), disk) == first
    assert first.path.stat().st_ino == inode


def test_a_move_takes_the_file(store: Store, disk: Path) -> None:
    content, inode = disk.read_bytes(), disk.stat().st_ino
    layer = add(store, disk, move=True)
    assert not disk.exists()
    assert (layer.path.read_bytes(), layer.path.stat().st_ino) == (content, inode)


def test_a_move_never_shares_an_inode(store: Store, disk: Path, tmp_path: Path) -> None:
    other = tmp_path / "other-name"
    os.link(disk, other)
    layer = add(store, disk, move=True)
    assert not disk.exists()
    assert not layer.path.samefile(other)
    assert other.stat().st_mode & 0o200


@pytest.mark.parametrize("size", [0, 1, 4096, (4 << 20) + 1])
@pytest.mark.parametrize("filled", [True, False])
def test_the_digest_is_sha256_of_the_file(tmp_path: Path, size: int, filled: bool) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        if filled:
            file.write(os.urandom(size))
        file.truncate(size)
    assert files.sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_hashing_and_copying_can_be_cancelled(store: Store, disk: Path) -> None:
    token = CancelToken()
    token.cancel()
    with pytest.raises(Cancelled):
        store.add_layer(disk, "raw", move=False, virtual_size=1, deadline=Deadline.after(99, token=token))
    assert sorted(p.name for p in (store.home / "layers").iterdir() if p.name != ".lock") == []
    assert disk.exists()


def test_a_new_layer_is_protected_until_a_resource_refers_to_it(store: Store, disk: Path) -> None:
    layer = add(store, disk)
    other = Store(store.home)
    assert not other.remove_layer(layer.digest)
    store.put(image(layer))
    assert not other.remove_layer(layer.digest)
    store.delete(image(layer).id)
    assert other.remove_layer(layer.digest)
    assert other.layer(layer.digest) is None


def test_a_layer_that_nobody_will_name_can_be_released(store: Store, disk: Path) -> None:
    layer = add(store, disk)
    store.release_layer(layer.digest)
    assert store.remove_layer(layer.digest)


def test_a_reader_in_another_process_keeps_the_layer(store: Store, disk: Path) -> None:
    layer = add(store, disk)
    store.release_layer(layer.digest)
    script = """
        import sys
        from pathlib import Path
        from orchestrator.record.store import Store
        with Store(Path(sys.argv[1])).reading(sys.argv[2]) as layer:
            print(layer.path, flush=True)
            sys.stdin.read()
    """
    argv = [sys.executable, "-c", textwrap.dedent(script), str(store.home), layer.digest]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline().decode().strip() == str(layer.path)
        assert not store.remove_layer(layer.digest)
        assert layer.path.exists()
        reader.send_signal(signal.SIGKILL)  # a lock goes with its process, however that ends
        reader.wait()
        assert store.remove_layer(layer.digest)


def test_reading_what_is_not_there(store: Store) -> None:
    with pytest.raises(InputError, match="not in"), store.reading("0" * 64):
        pass
    assert store.layer("*") is None
    assert store.layer("../x") is None


def qcow2_header(backing: str) -> bytes:
    return struct.pack(">4sIQI", b"QFI\xfb", 3, 24 if backing else 0, len(backing)).ljust(24, b"\0") + backing.encode()


def test_a_parent_lives_as_long_as_its_child(store: Store, disk: Path, tmp_path: Path) -> None:
    parent = add(store, disk)
    store.release_layer(parent.digest)
    overlay = tmp_path / "overlay.qcow2"
    overlay.write_bytes(qcow2_header(parent.path.name))
    child = store.add_layer(overlay, "qcow2", move=True, virtual_size=1)
    assert child.backing == parent.digest
    assert not store.remove_layer(parent.digest)
    store.release_layer(child.digest)
    with Store(store.home).reading(child.digest):
        assert not store.layers.remove(parent, lambda: True)  # the reader holds the whole chain
    assert store.remove_layer(child.digest)
    assert store.remove_layer(parent.digest)


@pytest.mark.parametrize("backing", ["/somewhere/else.qcow2", "../x", "f" * 64 + ".raw"])
def test_a_disk_that_rests_on_a_foreign_file_is_refused(store: Store, tmp_path: Path, backing: str) -> None:
    overlay = tmp_path / "overlay.qcow2"
    overlay.write_bytes(qcow2_header(backing))
    with pytest.raises(InputError, match="rests on"):
        store.add_layer(overlay, "qcow2", move=False, virtual_size=1)
    assert list(store.layers.all()) == []
    assert list(store.layers.debris()) == []


def test_adders_killed_at_any_point_leave_whole_layers(store: Store, tmp_path: Path) -> None:
    script = """
        import itertools, os, sys
        from pathlib import Path
        from orchestrator.record.store import Store
        store, source = Store(Path(sys.argv[1])), Path(sys.argv[2])
        for n in itertools.count():
            source.write_bytes(os.urandom(1 << 20))
            layer = store.add_layer(source, "raw", move=bool(n % 2), virtual_size=1 << 20)
            store.release_layer(layer.digest)
            if n == 0:
                print("ready", flush=True)
    """
    for turn in range(6):
        argv = [sys.executable, "-c", textwrap.dedent(script), str(store.home), str(tmp_path / "source")]
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as adder:
            assert adder.stdout is not None
            adder.stdout.readline()
            try:
                adder.wait(0.02 + 0.013 * turn)
            except subprocess.TimeoutExpired:
                adder.kill()
        for layer in store.layers.all():
            assert files.sha256(layer.path) == layer.digest
        (tmp_path / "source").unlink(missing_ok=True)
    assert any(store.layers.all())


def test_no_space_left_while_copying(store: Store, disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: object, offset: int) -> int:
        raise OSError(28, "No space left on device")

    def no_clone(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(files.fcntl, "ioctl", no_clone)
    monkeypatch.setattr(files.os, "pwrite", full)
    with pytest.raises(files.NoSpaceLeft):
        add(store, disk)
    assert list(store.layers.debris()) == []
    assert list(store.layers.all()) == []
