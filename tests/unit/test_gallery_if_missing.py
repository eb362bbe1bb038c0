from __future__ import annotations

from pathlib import Path

import pytest

from hypervisor.errors import UsageError
from orchestrator.record.resources import ResourceExists
from orchestrator.record.store import Store
from orchestrator.verbs import gallery


def test_what_is_there_already_is_taken_when_it_is_the_same(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made = gallery.create(store, "lab", location="eastus")
    assert gallery.create(store, "lab", location="East US", if_missing=True) == made
    defined = gallery.define(store, "lab", "web", os="linux", generation="V1")
    assert gallery.define(store, "lab", "web", os="linux", generation="V1", if_missing=True) == defined


def test_what_is_there_already_is_refused_when_it_is_another(tmp_path: Path) -> None:
    store = Store(tmp_path)
    gallery.create(store, "lab", location="eastus")
    gallery.define(store, "lab", "web", os="linux", generation="V1")
    with pytest.raises(UsageError, match="another one"):
        gallery.create(store, "lab", location="westus", if_missing=True)
    with pytest.raises(UsageError, match="another one"):
        gallery.define(store, "lab", "web", os="linux", generation="V2", if_missing=True)
    with pytest.raises(ResourceExists):
        gallery.create(store, "lab", location="eastus")
