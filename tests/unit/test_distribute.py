"""Export and distribution with real disks: what is published is whole, states are apart, builds chain."""

from __future__ import annotations

import dataclasses
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hypervisor import disk
from hypervisor.deadline import CancelToken, Deadline
from hypervisor.errors import BuildError, Cancelled, HostError, InputError, TemplateError
from hypervisor.spec import DiskSpec
from orchestrator.build.distribute import distribute, overall_state
from orchestrator.build.export import Artifact, export
from orchestrator.plan.catalogue import Catalogue
from orchestrator.plan.model import MachinePlan, PlannedDistribution, ResolvedSource, RunPlan
from orchestrator.plan.sources import resolve_source
from orchestrator.record import arm_ids, files
from orchestrator.record.events import Deviation, Event, RunOutputReady
from orchestrator.record.resources import Resource
from orchestrator.record.run_outputs import RunOutput, rest_form, run_outputs
from orchestrator.record.runs import RunFolder
from orchestrator.record.store import Store
from orchestrator.template.model import (
    Distributor,
    ManagedImage,
    ManagedImageTarget,
    SharedImageTarget,
    SharedImageVersion,
    Source,
    TargetRegion,
    Versioning,
    VhdTarget,
)
from orchestrator.verbs import gallery
from orchestrator.verbs.outputs import outputs as outputs_of

MIB = 1 << 20
TEMPLATE_ID = arm_ids.template_id("hello")
IMAGE_ID = arm_ids.managed_image_id("image")
DEFINITION = arm_ids.image_definition_id("g", "d")
REGIONS = (TargetRegion("West US 2", 2, "Premium_LRS"), TargetRegion("eastus"))

MANAGED = ManagedImageTarget("managed", IMAGE_ID, "West US 2", {"kind": "mine"})
SHARED = SharedImageTarget("shared", DEFINITION, REGIONS, True, Versioning("Latest"))
VHD = VhdTarget("vhd", artifact_tags={"disk": "yes"})


@dataclasses.dataclass
class Bench:
    """A store with a gallery, a run, the power-off disk of a build VM and what was exported from it."""

    store: Store
    run: RunFolder
    source: DiskSpec
    exported: tuple[Artifact, ...]
    deadline: Deadline
    events: list[Event] = dataclasses.field(default_factory=list)

    def export(self, *targets: Distributor) -> tuple[Artifact, ...]:
        return export(make_plan(*targets), self.source, self.run.artifacts, self.deadline)

    def distribute(self, *targets: Distributor, artifacts: tuple[Artifact, ...] | None = None) -> dict[str, RunOutput]:
        artifacts = self.exported if artifacts is None else artifacts
        outputs = distribute(make_plan(*targets), artifacts, self.store, self.run, self.deadline, self.events.append)
        return {output.name: output for output in outputs}

    def output(self, name: str) -> dict[str, Any]:
        resource = self.store.get(arm_ids.run_output_id(TEMPLATE_ID, name))
        assert resource is not None
        return rest_form(resource)


def make_disk(folder: Path) -> DiskSpec:
    """A size that is not a whole number of MiB, and an overlay whose content is not its base's."""
    base, overlay = folder / "base.qcow2", folder / "overlay.qcow2"
    disk.create_empty(base, "qcow2", 5 * MIB + 512)
    subprocess.run(["qemu-io", "-c", "write -q -P 7 1M 64k", base], check=True)
    disk.create_overlay(base, "qcow2", overlay, None)
    subprocess.run(["qemu-io", "-c", "write -q -P 9 4M 64k", overlay], check=True)
    return DiskSpec(overlay, "qcow2")


def make_plan(*targets: Distributor) -> RunPlan:
    source = ResolvedSource(
        "PlatformImage", "Debian:debian-12:12:latest", "/aib/x", "12.1.5", "0" * 64, Path("/x"), "qcow2", 5 * MIB + 512
    )
    return RunPlan(
        TEMPLATE_ID, "hello", "2022-07-01", "westus2", source, MachinePlan("D", 1, 1, 1, 1, 1), (),
        tuple(PlannedDistribution(target, "") for target in targets), 60.0, {"owner": "me", "kind": "template's"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def power_off(tmp_path_factory: pytest.TempPathFactory) -> DiskSpec:
    """The power-off disk of a build VM."""
    return make_disk(tmp_path_factory.mktemp("disk"))


@pytest.fixture(scope="module")
def exported(power_off: DiskSpec, tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, ...]:
    """Both artifacts of `power_off`."""
    return export(make_plan(MANAGED, VHD), power_off, tmp_path_factory.mktemp("artifacts"), Deadline.after(60))


@pytest.fixture
def bench(tmp_path: Path, power_off: DiskSpec, exported: tuple[Artifact, ...]) -> Iterator[Bench]:
    store = Store(tmp_path / "home")
    gallery.create(store, "g", location="westus2")
    gallery.define(store, "g", "d", os="linux", generation="V1")
    with store.new_run("hello") as run:
        yield Bench(store, run, power_off, exported, Deadline.after(60))


def test_artifacts_stand_alone_and_hold_what_the_disk_held(bench: Bench) -> None:
    qcow2, vhd = bench.export(MANAGED, VHD)
    for artifact in (qcow2, vhd):
        assert disk.detect_format(artifact.path) == artifact.format
        # Not strict: the VHD's last MiB is filled up with zeros.
        subprocess.run(
            ["qemu-img", "compare", "-q", "-f", "qcow2", "-F", artifact.format, bench.source.path, artifact.path],
            check=True,
        )
        subprocess.run(
            ["sha256sum", "-c", "--quiet", f"{artifact.path.name}.sha256"], cwd=bench.run.artifacts, check=True
        )
        assert (artifact.size, artifact.allocated) == (
            artifact.path.stat().st_size,
            artifact.path.stat().st_blocks * 512,
        )
    assert disk.info(qcow2.path, "qcow2").backing is None
    assert (qcow2.virtual_size, vhd.virtual_size) == (5 * MIB + 512, 6 * MIB)
    assert vhd.size == 6 * MIB + 512
    assert vhd.allocated < MIB
    assert {p.name for p in bench.run.artifacts.iterdir()} == {
        "image.qcow2", "image.qcow2.sha256", "image.vhd", "image.vhd.sha256",
    }  # fmt: skip


def test_only_what_is_needed_is_exported(bench: Bench) -> None:
    assert [a.format for a in bench.export(VHD)] == ["vpc"]
    assert [a.format for a in bench.export(MANAGED, SHARED)] == ["qcow2"]


def test_a_failed_export_leaves_nothing(bench: Bench, tmp_path: Path) -> None:
    broken = tmp_path / "broken.qcow2"
    broken.write_bytes(bench.source.path.read_bytes()[:100])
    bench.source = DiskSpec(broken, "qcow2")
    with pytest.raises((InputError, HostError)):
        bench.export(MANAGED, VHD)
    assert list(bench.run.artifacts.iterdir()) == []


def test_a_cancelled_export_leaves_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    token = CancelToken()
    bench.deadline = Deadline.after(60, token=token)
    written = disk.write_qcow2

    def cancel_after(*arguments: object) -> None:
        written(*arguments)
        token.cancel()

    monkeypatch.setattr(disk, "write_qcow2", cancel_after)
    with pytest.raises(Cancelled):
        bench.export(MANAGED, VHD)
    assert list(bench.run.artifacts.iterdir()) == []


def test_a_full_disk_says_what_to_free(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise HostError("qemu-img convert: exit code 1\nerror while writing: No space left on device")

    monkeypatch.setattr(disk, "write_qcow2", full)
    with pytest.raises(files.NoSpaceLeft) as caught:
        bench.export(MANAGED)
    assert "aib gc" in caught.value.hint


def test_every_kind_is_published(bench: Bench) -> None:
    outputs = bench.distribute(MANAGED, SHARED, VHD)
    assert overall_state(list(outputs.values())) == "Succeeded"
    prefix = f"{TEMPLATE_ID}/runOutputs"
    kind = "Microsoft.VirtualMachineImages/imageTemplates/runOutputs"
    uri = (bench.store.home / "vhds" / "hello" / "vhd.vhd").as_uri()
    properties = {
        "managed": {"artifactId": IMAGE_ID, "provisioningState": "Succeeded"},
        "shared": {"artifactId": f"{DEFINITION}/versions/0.0.1", "provisioningState": "Succeeded"},
        "vhd": {"artifactUri": uri, "provisioningState": "Succeeded"},
    }
    for name, expected in properties.items():
        assert bench.output(name) == {"id": f"{prefix}/{name}", "name": name, "type": kind, "properties": expected}
    assert [output["name"] for output in outputs_of(bench.store, "hello")] == ["managed", "shared", "vhd"]
    ready = [event for event in bench.events if isinstance(event, RunOutputReady)]
    assert [(e.name, e.kind, e.state) for e in ready] == [
        ("managed", "ManagedImage", "Succeeded"), ("shared", "SharedImage", "Succeeded"), ("vhd", "VHD", "Succeeded"),
    ]  # fmt: skip
    assert ready[2].tags == {"owner": "me", "kind": "template's", "disk": "yes"}


def test_the_managed_image_is_a_compute_image(bench: Bench) -> None:
    bench.distribute(MANAGED)
    image = bench.store.get(IMAGE_ID.upper())
    assert image is not None
    assert (image.location, image.tags) == ("westus2", {"owner": "me", "kind": "mine"})
    os_disk = image.properties["storageProfile"]["osDisk"]
    assert (os_disk["osType"], os_disk["osState"]) == ("Linux", "Generalized")
    assert image.properties["hyperVGeneration"] == "V1"
    layer = bench.store.layer(image.properties["aib"]["digest"])
    assert layer is not None
    assert os_disk["blobUri"] == layer.path.as_uri()


def test_the_gallery_version_keeps_what_the_template_asked_for(bench: Bench) -> None:
    bench.distribute(SHARED)
    version = bench.store.get(f"{DEFINITION}/versions/0.0.1")
    assert version is not None
    profile = version.properties["publishingProfile"]
    assert profile["excludeFromLatest"] is True
    assert profile["targetRegions"] == [
        {"name": "West US 2", "regionalReplicaCount": 2, "storageAccountType": "Premium_LRS"},
        {"name": "eastus", "regionalReplicaCount": 1, "storageAccountType": "Standard_LRS"},
    ]
    assert version.properties["replicationStatus"]["aggregatedState"] == "Unknown"
    assert any(isinstance(event, Deviation) and event.code == "replication" for event in bench.events)


@pytest.mark.parametrize("location", ["westus2", "East US", "northeurope"])
def test_what_is_distributed_can_be_the_next_source(bench: Bench, location: str) -> None:
    def resolve(source: Source) -> ResolvedSource:
        return resolve_source(
            source, store=bench.store, catalogue=Catalogue(()), location=location, offline=True,
            deadline=bench.deadline, say=lambda _: None, prepare=True,
        )  # fmt: skip

    shared = dataclasses.replace(SHARED, exclude_from_latest=False)
    bench.distribute(MANAGED, shared)
    found = []
    for source, there in (
        (ManagedImage(IMAGE_ID), {"westus2"}),
        (SharedImageVersion(f"{DEFINITION}/versions/0.0.1"), {"westus2", "East US"}),
        (SharedImageVersion(f"{DEFINITION}/versions/latest"), {"westus2", "East US"}),
    ):
        if location in there:
            found.append(resolve(source))
        else:
            with pytest.raises(TemplateError, match="region"):
                resolve(source)
    for resolved in found:
        assert (resolved.os, resolved.generation, resolved.format) == ("linux", "V1", "qcow2")
        disk.compare(bench.source.path, "qcow2", resolved.path, "qcow2", bench.deadline)


def test_a_version_excluded_from_latest_is_no_latest_source(bench: Bench) -> None:
    bench.distribute(SHARED)
    with pytest.raises(InputError):
        resolve_source(
            SharedImageVersion(f"{DEFINITION}/versions/latest"), store=bench.store, catalogue=Catalogue(()),
            location="westus2", offline=True, deadline=bench.deadline, say=lambda _: None, prepare=True,
        )  # fmt: skip


def test_what_is_distributed_shares_no_inode_with_the_artifact(bench: Bench) -> None:
    qcow2, vhd = bench.exported
    bench.distribute(MANAGED, VHD)
    layer = bench.store.layer(qcow2.sha256)
    assert layer is not None
    assert not layer.path.samefile(qcow2.path)
    copy = bench.store.home / "vhds" / "hello" / "vhd.vhd"
    assert not copy.samefile(vhd.path)
    assert files.sha256(copy) == vhd.sha256
    subprocess.run(["sha256sum", "-c", "--quiet", "vhd.vhd.sha256"], cwd=copy.parent, check=True)


def test_a_vhd_goes_where_the_uri_says(bench: Bench, tmp_path: Path) -> None:
    wanted = tmp_path / "new folder" / "x.vhd"
    bench.distribute(dataclasses.replace(VHD, uri=wanted.as_uri()))
    assert disk.detect_format(wanted) == "vpc"
    assert bench.output("vhd")["properties"]["artifactUri"] == wanted.as_uri()


def test_a_blob_uri_is_a_deviation_without_its_signature(bench: Bench) -> None:
    bench.distribute(dataclasses.replace(VHD, uri="https://a.blob.core.windows.net/c/x.vhd?sig=secret"))
    (deviation,) = [event for event in bench.events if isinstance(event, Deviation)]
    assert "a.blob.core.windows.net/c/x.vhd" in deviation.message
    assert "secret" not in str(bench.events)


def test_a_second_run_replaces_and_adds(bench: Bench) -> None:
    bench.distribute(MANAGED, SHARED, VHD)
    bench.source = DiskSpec(bench.run.work / "next.qcow2", "qcow2")
    disk.create_empty(bench.source.path, "qcow2", 2 * MIB)
    subprocess.run(["qemu-io", "-c", "write -q -P 3 1M 64k", bench.source.path], check=True)
    bench.distribute(MANAGED, SHARED, VHD, artifacts=bench.export(MANAGED, VHD))
    assert len(run_outputs(bench.store, TEMPLATE_ID)) == 3
    assert bench.output("shared")["properties"]["artifactId"] == f"{DEFINITION}/versions/0.0.2"
    assert any(isinstance(event, Deviation) and event.code == "managed-image-replaced" for event in bench.events)
    image = bench.store.get(IMAGE_ID)
    assert image is not None
    with bench.store.reading(image.digest) as layer:
        disk.compare(bench.source.path, "qcow2", layer.path, "qcow2", bench.deadline)


def test_one_failure_does_not_lose_the_others(bench: Bench) -> None:
    bench.store.delete(DEFINITION)
    outputs = bench.distribute(MANAGED, SHARED, VHD)
    assert {name: output.state for name, output in outputs.items()} == {
        "managed": "Succeeded", "shared": "Failed", "vhd": "Succeeded",
    }  # fmt: skip
    assert overall_state(list(outputs.values())) == "PartiallySucceeded"
    assert bench.output("shared")["properties"] == {"provisioningState": "Failed"}
    assert "removed while" in outputs["shared"].message


def test_none_succeeded(bench: Bench) -> None:
    outputs = bench.distribute(MANAGED, SHARED, VHD, artifacts=())
    assert overall_state(list(outputs.values())) == "Failed"
    assert bench.store.list(arm_ids.IMAGE_VERSION) == []


def break_layers(bench: Bench, monkeypatch: pytest.MonkeyPatch, error: Callable[[], Exception]) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error()

    monkeypatch.setattr(bench.store, "add_layer", refuse)


def test_a_failed_reservation_is_released(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    break_layers(bench, monkeypatch, lambda: files.NoSpaceLeft("no space left", hint="free some"))
    outputs = bench.distribute(SHARED, VHD)
    assert outputs["shared"].message == "no space left (free some)"
    assert bench.store.list(arm_ids.IMAGE_VERSION) == []
    assert outputs["vhd"].state == "Succeeded"


def test_a_cancel_in_the_middle_keeps_what_was_published(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    break_layers(bench, monkeypatch, lambda: Cancelled("cancelled by the user"))
    with pytest.raises(Cancelled):
        bench.distribute(VHD, SHARED, MANAGED)
    states = [(e.name, e.state) for e in bench.events if isinstance(e, RunOutputReady)]
    assert states == [("vhd", "Succeeded"), ("shared", "Canceled"), ("managed", "Canceled")]
    assert bench.output("vhd")["properties"]["provisioningState"] == "Succeeded"
    assert bench.output("managed")["properties"] == {"provisioningState": "Canceled"}
    assert bench.store.list(arm_ids.IMAGE_VERSION) == []


def test_the_reservation_of_a_dead_run_is_taken_over(bench: Bench) -> None:
    dead = bench.store.new_run("killed")
    version_id = f"{DEFINITION}/versions/1.2.3"
    properties = {"provisioningState": "Creating", "aib": {"run": dead.id}}
    bench.store.put(Resource(version_id, arm_ids.IMAGE_VERSION, "1.2.3", properties=properties))
    target = dataclasses.replace(SHARED, gallery_image_id=version_id)
    outputs = bench.distribute(target)
    assert outputs["shared"].state == "Failed"
    dead.release()
    outputs = bench.distribute(target)
    assert outputs["shared"].artifact_id == version_id


def test_runs_that_publish_at_once_get_different_versions(bench: Bench) -> None:
    targets = [dataclasses.replace(SHARED, run_output_name=f"o{n}") for n in range(6)]
    found: list[RunOutput] = []

    def publish(target: SharedImageTarget) -> None:
        found.extend(bench.distribute(target).values())

    threads = [threading.Thread(target=publish, args=(target,)) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    names = {output.artifact_id.rsplit("/")[-1] for output in found}
    assert names == {f"0.0.{n}" for n in range(1, 7)}


def test_an_artifact_that_is_missing_is_a_build_error(bench: Bench) -> None:
    outputs = bench.distribute(VHD, artifacts=())
    assert "vpc" in outputs["vhd"].message
    assert BuildError("x").exit_code == 1
