"""A disk exported beside the proof: nothing of it stays when the image is not generalized."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hypervisor.deadline import Deadline
from hypervisor.errors import BuildError
from orchestrator.build.distribute import distribute
from orchestrator.build.early_export import EarlyExport, forget_layers
from orchestrator.record import files
from orchestrator.record.runs import RunFolder
from orchestrator.record.store import Store
from tests.unit.test_distribute import IMAGE_ID, MANAGED, VHD, make_disk, make_plan

PLAN = make_plan(MANAGED, VHD)
Start = Callable[[], EarlyExport]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


@pytest.fixture
def run(store: Store) -> Iterator[RunFolder]:
    with store.new_run("hello") as run:
        yield run


@pytest.fixture
def start(store: Store, run: RunFolder, tmp_path: Path) -> Start:
    return lambda: EarlyExport(PLAN, make_disk(tmp_path), run, store, Deadline.after(60))


def test_what_was_exported_early_is_published_without_another_copy(
    store: Store, run: RunFolder, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    with start() as early:
        artifacts = early.artifacts()
    monkeypatch.setattr(files, "copy_into", lambda *_: pytest.fail("copied again"))
    [output] = distribute(make_plan(MANAGED), artifacts, store, run, Deadline.after(60), lambda _: None)
    assert output.state == "Succeeded"
    forget_layers(artifacts, store)
    resource = store.get(IMAGE_ID)
    assert resource is not None
    assert store.layer(resource.digest) is not None


@pytest.mark.parametrize("when", ["while it is written", "afterwards"])
def test_an_image_that_is_not_generalized_leaves_nothing(store: Store, run: RunFolder, start: Start, when: str) -> None:
    with pytest.raises(BuildError, match="not generalized"), start() as early:
        if when == "afterwards":
            early.artifacts()
        raise BuildError("the image is not generalized")
    assert list(run.artifacts.iterdir()) == []
    assert list(store.layers.all()) == []


def test_a_layer_that_no_image_was_made_of_is_removed(store: Store, start: Start) -> None:
    with start() as early:
        artifacts = early.artifacts()
    assert [layer.digest for layer in store.layers.all()] == [artifacts[0].sha256]
    forget_layers(artifacts, store)
    assert list(store.layers.all()) == []
