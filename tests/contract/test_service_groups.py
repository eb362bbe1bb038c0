"""Subscriptions, regions, resource groups, providers, and the short list of what there is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.record.arm_ids import Scope
from orchestrator.service import azure
from orchestrator.service.settings import Settings
from orchestrator.template.schema import tables
from orchestrator.verbs import gallery
from tests.contract.arm_client import SUBSCRIPTION, Arm, arm_server, error_of

S = f"/subscriptions/{SUBSCRIPTION}"
NETWORKS = "providers/Microsoft.Network/virtualNetworks"


@pytest.fixture(scope="module")
def arm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arm]:
    with arm_server(Settings(tmp_path_factory.mktemp("home"), page_size=3)) as server:
        yield server


def make(arm: Arm, group: str, location: str = "westus2", **more: object) -> None:
    assert arm.put(f"{S}/resourcegroups/{group}", {"location": location, **more}).status_code == 201


def test_subscription_tenant_and_regions(arm: Arm) -> None:
    listed = arm.get("/subscriptions", version="2022-12-01").json()["value"]
    assert [each["subscriptionId"] for each in listed] == [SUBSCRIPTION]
    assert arm.get(S).json() == listed[0]
    assert arm.get("/tenants").json()["value"][0]["tenantId"] == listed[0]["tenantId"]
    regions = {each["name"]: each for each in arm.get(f"{S}/locations").json()["value"]}
    assert regions["westus2"]["displayName"] == "West US 2"
    assert set(tables.regions()) <= set(regions)


def test_another_subscription_is_not_there(arm: Arm) -> None:
    for path in ("", "/resourcegroups", "/providers", "/resources", "/resourceGroups/aib/providers/A.B/c/d"):
        status, code, message = error_of(arm.get(f"/subscriptions/11111111-1111-1111-1111-111111111111{path}"))
        assert (status, code) == (404, "SubscriptionNotFound")
        assert "11111111" in message


def test_a_group_comes_changes_and_goes(arm: Arm) -> None:
    path = f"{S}/resourcegroups/life"
    assert arm.ask("HEAD", path).status_code == 404
    assert error_of(arm.get(path))[:2] == (404, "ResourceGroupNotFound")
    made = arm.put(path, {"location": "West US 2", "tags": {"a": "b"}})
    assert (made.status_code, made.json()["location"]) == (201, "westus2")
    assert made.json()["id"] == f"{S}/resourceGroups/life"
    again = arm.put(path.upper().replace("/SUBSCRIPTIONS", "/subscriptions"), {"location": "westus2"})
    assert (again.status_code, again.json()["name"], again.json()["tags"]) == (200, "life", {"a": "b"})
    assert arm.ask("HEAD", path).status_code == 204
    patched = arm.ask("PATCH", path, {"tags": {"c": "d"}})
    assert patched.json()["tags"] == {"c": "d"} == arm.get(path).json()["tags"]
    gone = arm.delete(path)
    assert (gone.status_code, gone.headers["Retry-After"]) == (202, "1")
    assert arm.finished(gone)["status"] == "Succeeded"
    assert arm.get(gone.headers["Location"]).status_code == 204
    assert arm.get(path).status_code == 404
    assert error_of(arm.delete(path))[1] == "ResourceGroupNotFound"


@pytest.mark.parametrize(
    ("name", "body", "status", "code"),
    [
        ("bad", {}, 400, "LocationRequired"),
        ("bad", {"location": 7}, 400, "LocationRequired"),
        ("bad", {"location": "atlantis"}, 400, "LocationNotAvailableForResourceGroup"),
        ("ends.", {"location": "eastus"}, 400, "InvalidResourceGroup"),
        ("has space", {"location": "eastus"}, 400, "InvalidResourceGroup"),
        ("x" * 91, {"location": "eastus"}, 400, "InvalidResourceGroup"),
        ("bad", {"location": "eastus", "tags": {"a": 1}}, 400, "InvalidTagFormat"),
        ("bad", {"location": "eastus", "tags": {f"t{n}": "" for n in range(51)}}, 400, "TagCountLimitExceeded"),
        ("bad", [], 400, "InvalidRequestContent"),
    ],
)
def test_a_group_that_cannot_be(arm: Arm, name: str, body: object, status: int, code: str) -> None:
    assert error_of(arm.put(f"{S}/resourcegroups/{name}", body))[:2] == (status, code)
    assert arm.get(f"{S}/resourcegroups/bad").status_code == 404


def test_a_group_stays_in_its_region(arm: Arm) -> None:
    make(arm, "placed", "eastus")
    refused = arm.put(f"{S}/resourcegroups/placed", {"location": "westus"})
    assert error_of(refused)[:2] == (409, "InvalidResourceGroupLocation")


def test_the_command_lines_groups_are_there(arm: Arm) -> None:
    gallery.create(arm.context.store, "g", location="eastus", scope=Scope(SUBSCRIPTION, "byhand"))
    names = []
    page = arm.get(f"{S}/resourcegroups").json()
    while True:
        names += [each["name"] for each in page["value"]]
        assert len(page["value"]) <= 3
        if "nextLink" not in page:
            break
        page = arm.get(page["nextLink"]).json()
    assert {"aib", "byhand"} <= set(names) and len(names) == len(set(names))
    assert arm.ask("HEAD", f"{S}/resourceGroups/byhand").status_code == 204
    assert arm.finished(arm.delete(f"{S}/resourceGroups/byhand"))["status"] == "Succeeded"
    assert gallery.list_galleries(arm.context.store) == []
    assert arm.ask("HEAD", f"{S}/resourceGroups/byhand").status_code == 404


def test_deleting_a_group_deletes_what_is_inside(arm: Arm) -> None:
    make(arm, "full")
    for name in ("one", "two"):
        assert arm.put(f"{S}/resourceGroups/full/{NETWORKS}/{name}", {"location": "westus2"}).status_code == 201
    child = f"{S}/resourceGroups/full/{NETWORKS}/one/subnets/s"
    assert arm.put(child, {"properties": {}}).status_code == 201
    make(arm, "full2")
    arm.put(f"{S}/resourceGroups/full2/{NETWORKS}/kept", {"location": "westus2"})
    assert arm.finished(arm.delete(f"{S}/resourceGroups/full"))["status"] == "Succeeded"
    assert not arm.context.store.list(under=f"{S}/resourceGroups/full")
    assert arm.get(f"{S}/resourceGroups/full2/{NETWORKS}/kept").status_code == 200


def test_a_deletion_goes_on_after_a_restart(tmp_path: Path) -> None:
    settings = Settings(tmp_path / "home")
    group = f"{S}/resourceGroups/cut"
    with arm_server(settings) as arm:
        make(arm, "cut")
        arm.put(f"{group}/{NETWORKS}/n", {"location": "westus2"})
        operation = arm.context.operations.begin(
            "DeleteGroup", group, subscription=SUBSCRIPTION, provider="Microsoft.Resources", location="westus2",
            api_version="2024-11-01",
        )  # fmt: skip
    with arm_server(settings) as arm:
        assert arm.context.operations.wait(operation).status == "Succeeded"
        assert arm.get(group).status_code == 404 and not arm.context.store.list(under=group)


def test_the_short_list_and_its_filters(arm: Arm) -> None:
    make(arm, "listed")
    for name, tags in (("n1", {"k": "v"}), ("n2", {})):
        arm.put(f"{S}/resourceGroups/listed/{NETWORKS}/{name}", {"location": "eastus", "tags": tags})

    def names(query: str, place: str = "/resourceGroups/listed") -> list[str]:
        return [each["name"] for each in arm.get(f"{S}{place}/resources{query}").json()["value"]]

    assert names("") == ["n1", "n2"]
    assert names("?$filter=name eq 'n2'") == ["n2"]
    assert names("?$filter=tagName eq 'k' and tagValue eq 'v'") == ["n1"]
    assert names("?$filter=tagName eq 'k' and tagValue eq 'w'") == []
    query = "?$filter=resourceType eq 'microsoft.network/VIRTUALNETWORKS' and resourceGroup eq 'LISTED'"
    assert names(query, "") == ["n1", "n2"]
    entry = arm.get(f"{S}/resourceGroups/listed/resources").json()["value"][0]
    assert "properties" not in entry and entry["type"] == "Microsoft.Network/virtualNetworks"
    refused = arm.get(f"{S}/resources?$filter=startswith(name,'n')")
    assert error_of(refused)[:2] == (400, "InvalidFilterInQueryString")


def test_providers(arm: Arm) -> None:
    one = arm.get(f"{S}/providers/microsoft.virtualmachineimages").json()
    assert (one["namespace"], one["registrationState"]) == (azure.IMAGE_BUILDER, "Registered")
    types = {each["resourceType"]: each for each in one["resourceTypes"]}
    newest = tables.tables().versions[-1]
    assert newest in types["imageTemplates/runOutputs"]["apiVersions"]
    assert "West US 2" in types["imageTemplates"]["locations"]
    assert one in arm.get(f"{S}/providers").json()["value"]
    assert arm.post(f"{S}/providers/{azure.IMAGE_BUILDER}/unregister").json()["registrationState"] == "Unregistered"
    assert arm.get(f"{S}/providers/{azure.IMAGE_BUILDER}").json()["registrationState"] == "Unregistered"
    assert arm.post(f"{S}/providers/{azure.IMAGE_BUILDER}/register").json()["registrationState"] == "Registered"
    assert error_of(arm.get(f"{S}/providers/No.Such"))[:2] == (404, "InvalidResourceNamespace")
    assert error_of(arm.post(f"{S}/providers/No.Such/register"))[:2] == (404, "InvalidResourceNamespace")
    names = [each["name"] for each in arm.get(f"/providers/{azure.IMAGE_BUILDER}/operations").json()["value"]]
    assert f"{azure.IMAGE_BUILDER}/imageTemplates/run/action" in names
