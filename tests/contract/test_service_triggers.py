"""Triggers: a template is run when the store has a newer version of its source, once for each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.build import tiny_disks
from orchestrator.plan import platform_images
from orchestrator.plan.platform_images import Urn
from orchestrator.record import arm_ids, galleries
from orchestrator.record.resources import Resource
from orchestrator.record.store import Store
from orchestrator.service.settings import Settings
from tests.contract.arm_client import GROUP, TEMPLATES, Arm, arm_server, error_of, template

COMPUTE = f"{GROUP}/providers/Microsoft.Compute"
DEFINITION = f"{COMPUTE}/galleries/g/images/source"
URN = Urn("aib-tests", "tiny", "guest")
BODY = {"properties": {"kind": "SourceImage"}}


@pytest.fixture
def settings(tmp_path: Path, token_key: Path) -> Settings:
    return Settings(tmp_path / "home", scripted=True, in_memory=True, token_key=token_key, trigger_seconds=0.05)


@pytest.fixture
def arm(settings: Settings) -> Iterator[Arm]:
    with arm_server(settings) as server:
        yield server
        server.post("/_aib/reset")


def layer_of(store: Store) -> str:
    path = store.home / "blank.qcow2"
    tiny_disks.write_qcow2(path)
    return store.add_layer(path, "qcow2", move=True, virtual_size=tiny_disks.SIZE).digest


def import_platform(store: Store, version: str) -> None:
    """As `aib image import` ends, without a disk that boots."""
    facts = {"digest": layer_of(store), "generation": "V1", "generations": ["V1"], "os": "linux", "source": {}}
    platform_images.register(store, URN, version, facts)


def publish(store: Store, version: str, *, hidden: bool = False) -> None:
    properties = {
        "provisioningState": "Succeeded",
        "publishingProfile": {"excludeFromLatest": hidden},
        "aib": {"digest": layer_of(store)},
    }
    store.put(Resource(f"{DEFINITION}/versions/{version}", arm_ids.IMAGE_VERSION, version, properties=properties))


def with_gallery(store: Store) -> None:
    definition = arm_ids.parse_gallery_target(DEFINITION)[0]
    kind: dict[str, Any] = {"os": "linux", "generation": "V1", "publisher": "p", "offer": "o", "sku": "s"}
    store.put(galleries.gallery(definition.parent, "eastus"))
    store.put(galleries.image_definition(definition, "eastus", **kind))


PLATFORM = {"type": "PlatformImage", "publisher": "aib-tests", "offer": "tiny", "sku": "guest", "version": "latest"}
SHARED = {"type": "SharedImageVersion", "imageVersionId": f"{DEFINITION}/versions/latest"}


def runs(arm: Arm) -> int:
    return len(arm.context.store.runs())


def until(ready: Callable[[], Any], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def settled(arm: Arm, path: str, count: int) -> None:
    """Wait until that many runs have ended, and see that no more begin."""
    until(lambda: runs(arm) == count and not any(run.alive() for run in arm.context.store.runs()))
    time.sleep(0.3)  # several looks of the watch
    assert runs(arm) == count


@pytest.mark.parametrize("kind", ["platform", "gallery"])
def test_a_newer_version_runs_the_template_once(arm: Arm, kind: str) -> None:
    store = arm.context.store
    with_gallery(store)
    bring = import_platform if kind == "platform" else publish
    bring(store, "1.0.0")
    path = arm.made("pulled", template("pulled", source=PLATFORM if kind == "platform" else SHARED))
    answer = arm.put(f"{path}/triggers/source", BODY)
    assert answer.status_code == 201 and arm.finished(answer)["status"] == "Succeeded"
    settled(arm, path, 0)
    bring(store, "1.0.1")
    settled(arm, path, 1)
    bring(store, "1.1.0")
    settled(arm, path, 2)
    shown = arm.get(f"{path}/triggers/SOURCE").json()
    assert shown["type"] == "Microsoft.VirtualMachineImages/imageTemplates/triggers"
    assert (shown["properties"]["kind"], shown["properties"]["status"]["code"]) == ("SourceImage", "Healthy")
    assert "aib" not in shown["properties"]
    assert arm.get(f"{path}/triggers").json()["value"] == [shown]


def test_what_came_while_no_server_ran_is_noticed(settings: Settings) -> None:
    keeping = replace(settings, in_memory=False)
    with arm_server(keeping) as first:
        import_platform(first.context.store, "1.0.0")
        path = first.made("later", template("later", source=PLATFORM))
        first.put(f"{path}/triggers/source", BODY)
    import_platform(Store(settings.home), "2.0.0")
    with arm_server(keeping) as second:
        settled(second, path, 1)
    with arm_server(keeping) as third:
        settled(third, path, 1)


def test_a_version_that_is_not_for_latest_runs_nothing(arm: Arm) -> None:
    with_gallery(arm.context.store)
    path = arm.made("hidden", template("hidden", source=SHARED))
    arm.put(f"{path}/triggers/source", BODY)
    publish(arm.context.store, "9.0.0", hidden=True)
    settled(arm, path, 0)


def test_a_trigger_whose_runs_fail_is_switched_off(arm: Arm) -> None:
    import_platform(arm.context.store, "1.0.0")
    path = arm.made("failing", template("failing", source=PLATFORM))
    arm.put(f"{path}/triggers/source", BODY)
    arm.put("/_aib/scripts/failing", {"failAt": "Building"}, version="")
    for number in range(1, 4):
        import_platform(arm.context.store, f"1.0.{number}")
        settled(arm, path, number)
    import_platform(arm.context.store, "1.0.4")

    def status() -> dict[str, str]:
        found: dict[str, str] = arm.get(f"{path}/triggers/source").json()["properties"]["status"]
        return found

    until(lambda: status()["code"] == "Disabled")
    settled(arm, path, 3)
    assert status()["code"] == "Disabled" and "3 runs in a row failed" in status()["message"]


def test_removing_a_trigger_and_its_template(arm: Arm) -> None:
    path = arm.made("dropped", template("dropped", source=PLATFORM))
    trigger = f"{path}/triggers/source"
    assert arm.put(trigger, BODY).status_code == 201
    assert arm.put(trigger, BODY).status_code == 200
    gone = arm.delete(trigger)
    assert gone.status_code == 202 and arm.get(gone.headers["Location"]).status_code == 204
    assert arm.delete(trigger).status_code == 204
    assert error_of(arm.get(trigger))[:2] == (404, "ResourceNotFound")
    arm.put(trigger, BODY)
    arm.delete(path)
    assert arm.context.store.get(trigger) is None


def test_what_a_trigger_needs(arm: Arm) -> None:
    with_gallery(arm.context.store)
    exact = {**PLATFORM, "version": "1.0.0"}
    managed = {"type": "ManagedImage", "imageId": f"{COMPUTE}/images/x"}
    shared = {"type": "SharedImage", "runOutputName": "o", "replicationRegions": ["eastus"]}
    same = [{**shared, "galleryImageId": DEFINITION}]
    explicit = [{**shared, "galleryImageId": f"{COMPUTE}/galleries/g/images/other/versions/1.0.0"}]
    bodies: list[tuple[str, dict[str, Any], str]] = [
        ("exact", {"source": exact}, "must be 'latest'"),
        ("managed", {"source": managed}, "has no versions"),
        ("same", {"source": SHARED, "distribute": same}, "image definition of the source"),
        ("explicit", {"source": SHARED, "distribute": explicit}, "explicit version"),
    ]
    for name, properties, why in bodies:
        path = arm.made(name, template(name, **properties))
        status, code, message = error_of(arm.put(f"{path}/triggers/t", BODY))
        assert (status, code) == (400, "ValidationFailed") and why in message
    path = arm.made("good", template("good", source=PLATFORM))
    for body in ({}, {"properties": {}}, {"properties": {"kind": "sourceImage"}}, {"properties": []}):
        assert error_of(arm.put(f"{path}/triggers/t", body))[:2] == (400, "ValidationFailed")
    assert error_of(arm.put(f"{path}/triggers/bad name", BODY))[:2] == (400, "ValidationFailed")
    assert arm.put(f"{path}/triggers/t", BODY).status_code == 201
    assert "trigger already" in error_of(arm.put(f"{path}/triggers/other", BODY))[2]
    assert error_of(arm.put(f"{TEMPLATES}/none/triggers/t", BODY))[:2] == (404, "ResourceNotFound")
    old = error_of(arm.get(f"{path}/triggers", version="2022-02-14"))
    assert old[:2] == (404, "InvalidResourceType") and "imageTemplates/triggers" in old[2]
