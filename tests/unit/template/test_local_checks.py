"""What the store of this machine adds to a check."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from orchestrator.cli.validate import command
from orchestrator.plan.platform_images import Urn, register
from orchestrator.record import arm_ids
from orchestrator.record.resources import Resource
from orchestrator.record.store import Store
from orchestrator.template.diagnostics import Severity
from orchestrator.verbs.validate import Given, validate

GALLERY = arm_ids.image_version_id("shelf", "linux", "1.2.3")
IDENTITY = (
    "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/aib"
    "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/builder"
)
GIB = 1 << 30


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


def stored_image(store: Store, size: int) -> None:
    disk = store.home / "incoming.raw"
    disk.write_bytes(b"disk")
    layer = store.add_layer(disk, "raw", move=True, virtual_size=size)
    register(
        store,
        Urn("Debian", "debian-12", "12"),
        "0.1.0",
        {"os": "linux", "digest": layer.digest, "generation": "V1", "generations": ["V1"]},
    )


def template(folder: Path, name: str = "app", tags: Mapping[str, str] | None = None, **properties: Any) -> Path:
    body = {
        "type": "Microsoft.VirtualMachineImages/imageTemplates",
        "apiVersion": "2023-07-01",
        "location": "eastus",
        "tags": tags or {},
        "identity": {"type": "UserAssigned", "userAssignedIdentities": {IDENTITY: {}}},
        "properties": {
            "source": {
                "type": "PlatformImage", "publisher": "Debian", "offer": "debian-12", "sku": "12", "version": "latest",
            },
            "customize": [{"type": "Shell", "name": "one", "inline": ["true"]}],
            "distribute": [
                {"type": "SharedImage", "runOutputName": "out", "galleryImageId": GALLERY,
                 "targetRegions": [{"name": "eastus"}]},
            ],
            **properties,
        },
    }  # fmt: skip
    path = folder / f"{name}.json"
    path.write_text(json.dumps(body, indent=1))
    return path


def found(path: Path, store: Store, rule: str) -> list[tuple[Severity, str, int]]:
    result = validate([path], Given(store=store.home, files=None))
    return [(d.severity, d.message, d.position.line) for d in result.diagnostics if d.rule == rule]


def test_a_size_that_nobody_knows_is_an_error_with_near_names(tmp_path: Path, store: Store) -> None:
    path = template(tmp_path, vmProfile={"vmSize": "Standard_XY2_v3"})
    [(severity, message, line)] = found(path, store, "AIB064")
    assert (severity, "Standard_XY2_v3" in message) == (Severity.ERROR, True)
    assert "vmSize" in path.read_text().splitlines()[line - 1]
    assert found(template(tmp_path, vmProfile={"vmSize": "Standard_D4s_v3"}), store, "AIB064") == []


def test_the_disk_of_the_stored_image_counts(tmp_path: Path, store: Store) -> None:
    stored_image(store, 40 * GIB)
    small, enough = ({"vmSize": "Standard_D2s_v3", "osDiskSizeGB": size} for size in (32, 40))
    [(severity, message, _)] = found(template(tmp_path, vmProfile=small), store, "AIB065")
    assert (severity, str(40 * GIB) in message) == (Severity.ERROR, True)
    assert found(template(tmp_path, vmProfile=enough), store, "AIB065") == []


def test_a_version_that_the_store_has_is_said(tmp_path: Path, store: Store) -> None:
    before = found(template(tmp_path), store, "AIB062")
    digest = "0" * 64
    store.put(Resource(GALLERY, arm_ids.IMAGE_VERSION, "1.2.3", properties={"aib": {"digest": digest}}))
    after = found(template(tmp_path), store, "AIB062")
    assert [message for _, message, _ in after if "in the store already" in message]
    assert len(after) == len(before) + 1


def run(store: Store, name: str, seconds: float, *, result: str = "succeeded", state: str = "Succeeded") -> None:
    """The record of a run as far as it is looked at."""
    with store.new_run(name) as folder:
        record = {"lastRunStatus": {"runState": state}, "seconds": seconds, "steps": [{"result": result}]}
        folder.record.write_text(json.dumps(record))


def test_what_earlier_runs_took_is_held_against_the_budget(tmp_path: Path, store: Store) -> None:
    path = template(tmp_path, buildTimeoutInMinutes=30)
    run(store, "other", 29 * 60.0)
    run(store, "app", 29 * 60.0, result="cached")
    run(store, "app", 29 * 60.0, state="Failed")
    run(store, "app", 20 * 60.0)
    assert found(path, store, "AIB019") == []
    run(store, "APP", 28 * 60.0)
    run(store, "app", 29 * 60.0)
    [(severity, message, _)] = found(path, store, "AIB019")
    assert (severity, "28.0 minutes (median of 3)" in message) == (Severity.WARNING, True)


def test_a_tag_silences_what_the_store_says_too(tmp_path: Path, store: Store) -> None:
    path = template(tmp_path, tags={"aib-ignore": "AIB064"}, vmProfile={"vmSize": "Standard_XY2_v3"})
    assert found(path, store, "AIB064") == []


def test_templates_of_several_files_share_no_staging_group(tmp_path: Path) -> None:
    group = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/stage"
    one = template(tmp_path, "one", stagingResourceGroup=group)
    two = template(tmp_path, "two", stagingResourceGroup=group.upper().replace("SUBSCRIPTIONS", "subscriptions"))
    three = template(tmp_path, "three", stagingResourceGroup=f"{group}3")
    result = validate([one, two, three], Given(files=None))
    said = [d for d in result.diagnostics if d.rule == "AIB067" and "is that of" in d.message]
    assert [(d.position.file, "one.json" in d.message) for d in said] == [(str(two), True)]
    again = validate([one, one], Given(files=None))
    assert not [d for d in again.diagnostics if "is that of" in d.message]


def test_a_check_makes_no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIB_HOME", str(tmp_path / "none"))
    CliRunner().invoke(command, [str(template(tmp_path))])
    assert not (tmp_path / "none").exists()


def test_the_command_line_asks_the_store_unless_told_not_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIB_HOME", str(tmp_path / "home"))
    Store(tmp_path / "home")
    path = template(tmp_path, vmProfile={"vmSize": "Standard_XY2_v3"})
    assert "AIB064" in CliRunner().invoke(command, [str(path)]).stdout
    assert "AIB064" not in CliRunner().invoke(command, [str(path), "--no-store"]).stdout
