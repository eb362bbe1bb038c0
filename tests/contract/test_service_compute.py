"""What Compute has beside builds: managed images, galleries, versions, the lists of sizes and platform images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from hypervisor import disk
from hypervisor.deadline import Deadline
from orchestrator.record import arm_ids, galleries
from orchestrator.record.arm_ids import Scope
from orchestrator.record.resources import Resource
from orchestrator.record.run_outputs import RunOutput, ensure_template
from orchestrator.service.settings import Settings
from orchestrator.verbs import gallery
from orchestrator.verbs.image_import import ImportName, import_image
from tests.contract.arm_client import GROUP, SUBSCRIPTION, Arm, arm_server, error_of
from tests.disks import small_disk_in

S = f"/subscriptions/{SUBSCRIPTION}"
COMPUTE = f"{GROUP}/providers/Microsoft.Compute"
PLACE = f"{S}/providers/Microsoft.Compute/locations/westus2"
KIND = {"osType": "Linux", "osState": "Generalized", "hyperVGeneration": "V1"}


@pytest.fixture(scope="module")
def arm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arm]:
    with arm_server(Settings(tmp_path_factory.mktemp("home"), page_size=2)) as server:
        yield server


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_disk_in(tmp_path_factory.mktemp("disk"))


@pytest.fixture(scope="module")
def source(arm: Arm, small_disk: Path) -> str:
    """A managed image that the command line imported; its id."""
    name = ImportName(managed_image_id=f"{COMPUTE}/images/source", locations=["eastus"])
    return import_image(arm.context.store, small_disk, name, deadline=Deadline.after(60)).id


@pytest.fixture(scope="module")
def vhd(arm: Arm, small_disk: Path) -> str:
    """A distributed VHD: the address that its runOutput tells."""
    store = arm.context.store
    path = store.home / "vhds" / "nightly" / "my out.vhd"
    path.parent.mkdir(parents=True)
    disk.write_fixed_vhd(small_disk, "raw", path, Deadline.after(60))
    template = f"{GROUP}/providers/Microsoft.VirtualMachineImages/imageTemplates/nightly"
    ensure_template(store, template, location="eastus", tags={})
    store.put(RunOutput("vhd", "VHD", "Succeeded", artifact_uri=path.as_uri()).to_resource(template))
    shown = arm.get(f"{template}/runOutputs/vhd", version="2022-07-01").json()
    uri: str = shown["properties"]["artifactUri"]
    assert arm.get(f"{template}/runOutputs", version="2022-07-01").json()["value"][0]["id"] == shown["id"]
    return uri


def made_gallery(arm: Arm, name: str, group: str = GROUP) -> str:
    path = f"{group}/providers/Microsoft.Compute/galleries/{name}"
    assert arm.put(path, {"location": "eastus"}).status_code == 201
    return path


def made_definition(arm: Arm, name: str, group: str = GROUP, **kind: Any) -> str:
    path = f"{made_gallery(arm, name, group)}/images/def"
    identifier = {"publisher": "p", "offer": "o", "sku": "s"}
    body = {"location": "eastus", "properties": {**KIND, "identifier": identifier, **kind}}
    assert arm.put(path, body).status_code == 201
    return path


def from_image(source: str, **more: Any) -> dict[str, Any]:
    return {"location": "eastus", "properties": {"storageProfile": {"source": {"id": source}}, **more}}


def test_an_image_of_the_command_line_is_shown(arm: Arm, source: str) -> None:
    shown = arm.get(f"{COMPUTE}/images/source").json()
    assert (shown["location"], shown["type"]) == ("eastus", "Microsoft.Compute/images")
    os_disk = shown["properties"]["storageProfile"]["osDisk"]
    assert (os_disk["osType"], os_disk["osState"]) == ("Linux", "Generalized")
    assert "blobUri" not in os_disk and "aib" not in shown["properties"]
    assert source in [each["id"] for each in arm.get(f"{S}/providers/Microsoft.Compute/images").json()["value"]]


def test_an_image_of_an_image(arm: Arm, source: str) -> None:
    profile = {"osDisk": {"osType": "Linux", "osState": "Generalized", "managedDisk": {"id": source}}}
    body = {"location": "eastus", "tags": {"a": "b"}, "properties": {"storageProfile": profile}}
    made = arm.put(f"{COMPUTE}/images/copy", body)
    assert made.status_code == 201, made.text
    store = arm.context.store
    assert store.get(f"{COMPUTE}/images/copy").digest == store.get(source).digest
    again = arm.put(f"{COMPUTE}/images/copy", {**made.json(), "tags": {"c": "d"}})
    assert (again.status_code, again.json()["tags"]) == (200, {"c": "d"})
    patched = arm.ask("PATCH", f"{COMPUTE}/images/copy", {"tags": {"e": "f"}})
    assert patched.json()["tags"] == {"e": "f"}
    assert store.get(f"{COMPUTE}/images/copy").digest == store.get(source).digest
    assert arm.delete(f"{COMPUTE}/images/copy").status_code == 200
    assert store.get(source) is not None and store.layer(store.get(source).digest) is not None


def test_an_image_of_a_vhd(arm: Arm, vhd: str, source: str) -> None:
    assert requests.get(vhd, headers={"Range": "bytes=-512"}, timeout=20).content.startswith(b"conectix")
    assert requests.get(vhd.partition("?")[0], timeout=20).status_code == 409
    profile = {"osDisk": {"osType": "Linux", "osState": "Generalized", "blobUri": vhd}}
    body = {"location": "eastus", "properties": {"storageProfile": profile}}
    made = arm.put(f"{COMPUTE}/images/fromvhd", body)
    assert (made.status_code, made.json()["properties"]["provisioningState"]) == (201, "Creating")
    assert arm.finished(made)["status"] == "Succeeded"
    shown = arm.get(f"{COMPUTE}/images/fromvhd").json()
    assert shown["properties"]["provisioningState"] == "Succeeded"
    store = arm.context.store
    assert store.get(f"{COMPUTE}/images/fromvhd").properties["aib"]["virtualSize"] == 16 << 20
    kept = store.get(f"{COMPUTE}/images/fromvhd").to_json()
    assert "sig=" not in str(kept)


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"sourceVirtualMachine": {"id": "x"}, "storageProfile": None}, 400, "InvalidParameter"),
        ({"storageProfile": {}}, 400, "InvalidParameter"),
        ({"storageProfile": {"osDisk": {"osType": "Linux"}}}, 400, "InvalidParameter"),
        ({"storageProfile": {"osDisk": {"osType": "Plan9", "blobUri": "x"}}}, 400, "InvalidParameter"),
        ({"storageProfile": {"osDisk": {"osType": "Linux", "managedDisk": {"id": "/x"}}}}, 404, "NotFound"),
        ({"storageProfile": {"osDisk": {"osType": "Linux", "blobUri": "file:///etc/passwd"}}}, 400, "InvalidParameter"),
        (
            {"storageProfile": {"osDisk": {"osType": "Linux", "blobUri": "http://10.0.0.1/x.vhd"}}},
            400,
            "InvalidParameter",
        ),
        (
            {"storageProfile": {"osDisk": {"osType": "Linux", "blobUri": "http://x/blob/aib/nightly/my%20out.vhd"}}},
            403,
            "AuthorizationFailure",
        ),
    ],
)
def test_images_that_cannot_be(arm: Arm, vhd: str, change: dict[str, Any], status: int, code: str) -> None:
    body = {"location": "eastus", "properties": {key: value for key, value in change.items() if value is not None}}
    assert error_of(arm.put(f"{COMPUTE}/images/bad", body))[:2] == (status, code)
    assert arm.get(f"{COMPUTE}/images/bad").status_code == 404


def test_galleries_are_the_command_lines(arm: Arm) -> None:
    made_definition(arm, "shared")
    store = arm.context.store
    view = gallery.show(store, "shared", Scope(SUBSCRIPTION, "aib"))
    assert [definition.name for definition, _ in view.definitions] == ["def"]
    gallery.create(store, "cli", location="westus2", scope=Scope(SUBSCRIPTION, "aib"))
    gallery.define(store, "cli", "d", os="linux", generation="V2", scope=Scope(SUBSCRIPTION, "aib"))
    shown = arm.get(f"{COMPUTE}/galleries/cli/images/d", version="2021-10-01").json()
    assert shown["properties"]["hyperVGeneration"] == "V2"
    assert shown["properties"]["identifier"] == {"publisher": "aib", "offer": "cli", "sku": "d"}
    assert arm.get(f"{COMPUTE}/galleries/CLI").json()["properties"]["identifier"]["uniqueName"].endswith("-CLI")


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("galleries/no-hyphens", {"location": "eastus"}, 400, "InvalidParameter"),
        ("galleries/g", {}, 400, "LocationRequired"),
        ("galleries/none/images/d", {"location": "eastus"}, 404, "ParentResourceNotFound"),
        ("galleries/rules/images/d", {"location": "eastus", "properties": {}}, 400, "InvalidParameter"),
        ("galleries/rules/images/d", {"location": "eastus", "properties": {**KIND}}, 400, "InvalidParameter"),
        (
            "galleries/rules/images/twin",
            {"location": "eastus", "properties": {**KIND, "identifier": {"publisher": "p", "offer": "o", "sku": "s"}}},
            409,
            "Conflict",
        ),
        (
            "galleries/rules/images/def",
            {"location": "eastus", "properties": {"osType": "Windows", "identifier": {"publisher": "p"}}},
            409,
            "PropertyChangeNotAllowed",
        ),
        ("galleries/rules/images/def/versions/latest", {"location": "eastus"}, 400, "InvalidParameter"),
        ("galleries/rules/images/def/versions/1.0", {"location": "eastus"}, 400, "InvalidParameter"),
        ("galleries/rules/images/def/versions/1.0.0", {"location": "eastus"}, 400, "InvalidParameter"),
        ("galleries/rules/images/def/versions/1.0.0", from_image("/none"), 404, "NotFound"),
        ("galleries/rules/images/no/versions/1.0.0", from_image("/none"), 404, "ParentResourceNotFound"),
    ],
)
def test_galleries_that_cannot_be(arm: Arm, path: str, body: Any, status: int, code: str) -> None:
    if arm.context.store.get(f"{COMPUTE}/galleries/rules") is None:
        made_definition(arm, "rules")
    assert error_of(arm.put(f"{COMPUTE}/{path}", body))[:2] == (status, code)


def test_versions_their_rules_and_their_order(arm: Arm, source: str, vhd: str) -> None:
    definition = made_definition(arm, "versions")
    for version in ("1.0.0", "1.2.0", "1.10.0"):
        answer = arm.put(f"{definition}/versions/{version}", from_image(source), version="2024-03-03")
        assert answer.status_code == 201, answer.text
    shown = answer.json()["properties"]
    assert shown["provisioningState"] == "Succeeded" and "replicationStatus" not in shown
    assert shown["publishingProfile"]["targetRegions"][0]["name"] == "eastus"
    expanded = arm.get(f"{definition}/versions/1.0.0?$expand=ReplicationStatus").json()
    assert expanded["properties"]["replicationStatus"]["aggregatedState"] == "Unknown"
    first = arm.get(f"{definition}/versions").json()
    assert len(first["value"]) == 2
    rest = arm.get(first["nextLink"]).json()["value"]
    assert {each["name"] for each in [*first["value"], *rest]} == {"1.0.0", "1.2.0", "1.10.0"}
    store = arm.context.store
    assert [each.name for each in galleries.versions(store, arm_ids.parse(definition))] == ["1.0.0", "1.2.0", "1.10.0"]
    other = from_image(source, publishingProfile={"targetRegions": [{"name": "West Europe"}]})
    assert error_of(arm.put(f"{definition}/versions/2.0.0", other))[:2] == (400, "InvalidParameter")
    patch = {"properties": {"publishingProfile": {"excludeFromLatest": True}}}
    changed = arm.ask("PATCH", f"{definition}/versions/1.2.0", patch).json()["properties"]
    assert changed["publishingProfile"]["excludeFromLatest"] is True
    assert store.get(f"{definition}/versions/1.2.0").digest == store.get(source).digest
    imported = {"location": "eastus", "properties": {"storageProfile": {"osDiskImage": {"source": {"uri": vhd}}}}}
    assert arm.finished(arm.put(f"{definition}/versions/3.0.0", imported))["status"] == "Succeeded"
    assert (
        arm.get(f"{definition}/versions/3.0.0").json()["properties"]["storageProfile"]["osDiskImage"]["sizeInGB"] == 1
    )
    for path in (definition, definition.rpartition("/images")[0]):
        assert error_of(arm.delete(path))[:2] == (409, "CannotDeleteResource")
    for version in ("1.0.0", "1.2.0", "1.10.0", "3.0.0"):
        assert arm.delete(f"{definition}/versions/{version}").status_code == 200
    assert arm.delete(definition).status_code == 200
    assert arm.delete(definition.rpartition("/images")[0]).status_code == 200


def test_a_version_is_of_its_definitions_kind(arm: Arm, source: str) -> None:
    definition = made_definition(arm, "windows", osType="Windows")
    status, code, message = error_of(arm.put(f"{definition}/versions/1.0.0", from_image(source)))
    assert (status, code) == (400, "InvalidParameter") and "takes windows images" in message


def test_a_version_that_is_being_published_stays(arm: Arm, source: str) -> None:
    group, store = f"{S}/resourceGroups/busy", arm.context.store
    arm.put(group, {"location": "eastus"})
    definition = made_definition(arm, "publishing", group)
    with store.new_run("publishing") as run:
        properties = {"provisioningState": galleries.CREATING, "aib": {"run": run.id}}
        store.put(Resource(f"{definition}/versions/1.0.0", arm_ids.IMAGE_VERSION, "1.0.0", "eastus", {}, properties))
        assert error_of(arm.delete(f"{definition}/versions/1.0.0"))[:2] == (409, "OperationNotAllowed")
        assert error_of(arm.put(f"{definition}/versions/1.0.0", from_image(source)))[:2] == (409, "OperationNotAllowed")
        assert arm.finished(arm.delete(group))["error"]["details"][0]["code"] == "OperationNotAllowed"
    assert arm.delete(f"{definition}/versions/1.0.0").status_code == 200


def test_sizes(arm: Arm) -> None:
    sizes = {each["name"]: each for each in arm.get(f"{PLACE}/vmSizes").json()["value"]}
    assert (sizes["Standard_D1_v2"]["numberOfCores"], sizes["Standard_D1_v2"]["memoryInMB"]) == (1, 3584)
    skus = arm.get(f"{S}/providers/Microsoft.Compute/skus?$filter=location eq 'westus2'").json()["value"]
    sku = next(each for each in skus if each["name"] == "Standard_D2s_v3")
    assert sku["locations"] == ["westus2"]
    everywhere = arm.get(f"{S}/providers/Microsoft.Compute/skus").json()["value"]
    assert {"westus2", "eastus"} <= set(everywhere[0]["locations"])
    assert {"name": "vCPUs", "value": "2"} in sku["capabilities"]
    assert error_of(arm.get(f"{S}/providers/Microsoft.Compute/locations/mars/vmSizes"))[0] == 400


def test_platform_images_from_publisher_to_version(arm: Arm, small_disk: Path) -> None:
    store = arm.context.store
    for version in ("1.0.9", "1.0.10"):
        import_image(store, small_disk, ImportName(urn=f"Mine:linux:std:{version}"), deadline=Deadline.after(60))
    assert {"Debian", "Mine"} <= {each["name"] for each in arm.get(f"{PLACE}/publishers").json()}
    offers = f"{PLACE}/publishers/mine/artifacttypes/vmimage/offers"
    assert [each["name"] for each in arm.get(offers).json()] == ["linux"]
    assert [each["name"] for each in arm.get(f"{offers}/linux/skus").json()] == ["std"]
    versions = f"{offers}/linux/skus/std/versions"
    assert [each["name"] for each in arm.get(versions).json()] == ["1.0.9", "1.0.10"]
    newest = arm.get(f"{versions}?$top=1&$orderby=name desc&$expand=properties").json()
    assert [each["name"] for each in newest] == ["1.0.10"]
    assert newest[0]["properties"]["osDiskImage"]["operatingSystem"] == "Linux"
    assert arm.get(f"{versions}/latest").json()["name"] == "1.0.10"
    assert error_of(arm.get(f"{versions}/9.9.9"))[:2] == (404, "PlatformImageNotFound")
    assert error_of(arm.get(f"{PLACE}/publishers/nobody/artifacttypes/vmimage/offers"))[:2] == (404, "NotFound")
    debian = f"{PLACE}/publishers/Debian/artifacttypes/vmimage/offers/debian-12/skus/12-gen2/versions"
    assert arm.get(f"{debian}/latest").json()["properties"]["hyperVGeneration"] == "V2"


def test_aliases_for_az_vm_image_list(arm: Arm) -> None:
    cloud = requests.get(f"{arm.origin}/metadata/endpoints?api-version=2022-09-01", timeout=10).json()
    aliases = requests.get(cloud["vmImageAliasDoc"], timeout=10).json()["outputs"]["aliases"]["value"]
    assert {"publisher": "Debian", "offer": "debian-12", "sku": "12"}.items() <= aliases["Linux"][
        "debian-12-12"
    ].items()
