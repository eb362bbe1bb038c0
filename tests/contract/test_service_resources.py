"""Resources of any type by their ids: identities, roles, storage accounts, and what nobody knows more of."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from orchestrator.service.entra import TENANT
from orchestrator.service.settings import Settings
from tests.contract.arm_client import GROUP, SUBSCRIPTION, Arm, arm_server, error_of
from tests.contract.conftest import files_with

S = f"/subscriptions/{SUBSCRIPTION}"
ROLES = "providers/Microsoft.Authorization"
IDENTITY = f"{GROUP}/providers/Microsoft.ManagedIdentity/userAssignedIdentities"
STORAGE = f"{GROUP}/providers/Microsoft.Storage/storageAccounts"
ANY = f"{GROUP}/providers/Contoso.Things/widgets"
CONTRIBUTOR = "b24988ac-6180-42a0-ab88-20f7382dd24c"


@pytest.fixture(scope="module")
def arm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arm]:
    with arm_server(Settings(tmp_path_factory.mktemp("home"), page_size=2)) as server:
        yield server


def test_any_resource_by_its_id(arm: Arm) -> None:
    body = {
        "location": "East US", "tags": {"a": "b"}, "kind": "big", "sku": {"name": "S1"}, "zones": ["1"],
        "plan": {"name": "p"}, "properties": {"x": {"y": [1, None, "z"]}, "aib": {"digest": "0" * 64}},
    }  # fmt: skip
    made = arm.put(f"{ANY}/w", body)
    assert made.status_code == 201
    shown = arm.get(f"{ANY}/W").json()
    assert shown == made.json() and shown["id"] == f"{ANY}/w"
    assert (shown["location"], shown["kind"], shown["sku"], shown["zones"]) == ("eastus", "big", {"name": "S1"}, ["1"])
    assert shown["properties"] == {"x": {"y": [1, None, "z"]}, "provisioningState": "Succeeded"}
    assert "aib" not in arm.context.store.get(f"{ANY}/w").properties  # nothing of ours comes in by a request
    assert arm.put(f"{ANY}/w", body).status_code == 200
    patched = arm.ask("PATCH", f"{ANY}/w", {"tags": {"c": "d"}, "properties": {"x": {"q": 1}}}).json()
    assert patched["tags"] == {"c": "d"}
    assert patched["properties"]["x"] == {"y": [1, None, "z"], "q": 1}
    assert arm.ask("HEAD", f"{ANY}/w").status_code == 204
    assert arm.delete(f"{ANY}/w").status_code == 200
    assert arm.delete(f"{ANY}/w").status_code == 204
    status, code, message = error_of(arm.get(f"{ANY}/w"))
    assert (status, code) == (404, "ResourceNotFound")
    assert message.startswith("The Resource 'Contoso.Things/widgets/w' under resource group 'aib' was not found.")


def test_signatures_of_addresses_are_not_kept(arm: Arm) -> None:
    address = "https://a.blob.core.windows.net/c/d.vhd?sv=1&sig=SECRETSECRET%3D"
    shown = arm.put(f"{ANY}/signed", {"properties": {"from": [{"uri": address}]}}).json()
    assert "SECRETSECRET" not in str(shown)
    home = arm.context.store.home
    assert files_with(home, b"sv=1") and not files_with(home, b"SECRETSECRET")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"location": 5}, 400, "InvalidRequestContent"),
        ({"location": "east-us!"}, 400, "LocationNotAvailableForResourceType"),
        ({"properties": []}, 400, "InvalidRequestContent"),
        ({"tags": ["a"]}, 400, "InvalidTagFormat"),
        ({"tags": {"a<b": "c"}}, 400, "InvalidTagName"),
        ({"identity": "me"}, 400, "InvalidRequestContent"),
        ({"identity": {"type": "UserAssigned", "userAssignedIdentities": []}}, 400, "InvalidRequestContent"),
        (b"{", 400, "InvalidRequestContent"),
    ],
)
def test_what_is_no_resource(arm: Arm, body: object, status: int, code: str) -> None:
    assert error_of(arm.put(f"{ANY}/bad", body))[:2] == (status, code)
    assert arm.get(f"{ANY}/bad").status_code == 404


def test_places_that_are_none(arm: Arm) -> None:
    assert error_of(arm.put(f"{S}/resourceGroups/none/providers/A.B/c/d", {}))[:2] == (404, "ResourceGroupNotFound")
    assert error_of(arm.put(f"{ANY}/none/parts/p", {}))[:2] == (404, "ParentResourceNotFound")
    assert error_of(arm.put(f"{GROUP}/providers/Microsoft.Resources/x/y", {}))[1] == "InvalidResourceType"
    assert error_of(arm.get(f"{GROUP}/nonsense"))[:2] == (404, "NotFound")
    assert error_of(arm.put(f"{ANY}/none/{ROLES}/locks/l", {}))[:2] == (404, "ResourceNotFound")
    assert error_of(arm.post(f"{ANY}/none/do"))[:2] == (404, "ResourceNotFound")
    arm.put(f"{ANY}/act", {})
    assert error_of(arm.post(f"{ANY}/act/do"))[:2] == (400, "InvalidAction")
    assert arm.ask("PATCH", ANY, {}).status_code == 405


def test_a_resource_keeps_its_region(arm: Arm) -> None:
    arm.put(f"{ANY}/placed", {"location": "eastus"})
    assert error_of(arm.put(f"{ANY}/placed", {"location": "westus"}))[:2] == (409, "InvalidResourceLocation")
    assert arm.put(f"{ANY}/placed", {"location": "East US"}).status_code == 200


def test_lists_have_pages(arm: Arm) -> None:
    kind = f"{GROUP}/providers/Contoso.Things/gadgets"
    for number in range(5):
        arm.put(f"{kind}/g{number}", {})
    names, page = [], arm.get(kind).json()
    while True:
        names += [each["name"] for each in page["value"]]
        if "nextLink" not in page:
            break
        page = arm.get(page["nextLink"]).json()
    assert names == [f"g{number}" for number in range(5)]
    everywhere = arm.get(f"{S}/providers/contoso.things/GADGETS?$top=1").json()
    assert [each["name"] for each in everywhere["value"]] == ["g0"]


def test_an_identity(arm: Arm) -> None:
    made = arm.put(f"{IDENTITY}/id9", {"location": "westus2"}, version="2025-05-31-preview")
    assert made.status_code == 201
    facts = made.json()["properties"]
    assert facts["tenantId"] == TENANT
    assert len({str(uuid.UUID(facts[key])) for key in ("principalId", "clientId", "tenantId")}) == 3
    assert arm.put(f"{IDENTITY}/id9", {"location": "westus2"}).json()["properties"] == facts
    user = {"type": "UserAssigned", "userAssignedIdentities": {f"{IDENTITY}/id9": {}}}
    used = arm.put(f"{ANY}/user", {"identity": user}).json()["identity"]["userAssignedIdentities"]
    assert used[f"{IDENTITY}/id9"] == {"principalId": facts["principalId"], "clientId": facts["clientId"]}
    own = arm.put(f"{ANY}/own", {"identity": {"type": "SystemAssigned"}}).json()["identity"]
    assert uuid.UUID(own["principalId"])
    assert error_of(arm.put(f"{IDENTITY}/new", {}))[:2] == (400, "LocationRequired")
    assert error_of(arm.put(f"{IDENTITY}/a", {"location": "eastus"}))[:2] == (400, "InvalidResourceName")


def test_roles_as_the_quickstart_makes_them(arm: Arm) -> None:
    principal = arm.put(f"{IDENTITY}/builder", {"location": "eastus"}).json()["properties"]["principalId"]
    found = arm.get(f"{GROUP}/{ROLES}/roleDefinitions?$filter=roleName eq 'Contributor'").json()["value"]
    assert [each["name"] for each in found] == [CONTRIBUTOR]
    assert arm.get(f"{S}/{ROLES}/roleDefinitions/{CONTRIBUTOR}").json()["properties"]["roleName"] == "Contributor"
    custom = {
        "roleName": "Image creator", "description": "", "assignableScopes": [GROUP],
        "permissions": [{"actions": ["Microsoft.Compute/images/write"], "notActions": []}],
    }  # fmt: skip
    role = f"{S}/{ROLES}/roleDefinitions/{uuid.uuid4()}"
    assert arm.put(role, {"properties": custom}).status_code == 201
    listed = arm.get(f"{S}/{ROLES}/roleDefinitions?$filter=roleName eq 'Image creator'").json()["value"]
    assert [each["id"] for each in listed] == [role]
    twin = f"{S}/{ROLES}/roleDefinitions/{uuid.uuid4()}"
    assert error_of(arm.put(twin, {"properties": custom}))[:2] == (409, "RoleDefinitionWithSameNameExists")
    assignment = f"{GROUP}/{ROLES}/roleAssignments/{uuid.uuid4()}"
    properties = {"roleDefinitionId": role, "principalId": principal, "principalType": "ServicePrincipal"}
    made = arm.put(assignment, {"properties": properties})
    assert (made.status_code, made.json()["properties"]["scope"]) == (201, GROUP)
    twin = f"{GROUP}/{ROLES}/roleAssignments/{uuid.uuid4()}"
    assert error_of(arm.put(twin, {"properties": properties}))[:2] == (409, "RoleAssignmentExists")
    for scope, wanted in ((GROUP, 1), (S, 1), (f"{GROUP}/providers/Contoso.Things/widgets/x", 1)):
        query = f"?$filter=principalId eq '{principal}'"
        assert len(arm.get(f"{scope}/{ROLES}/roleAssignments{query}").json()["value"]) == wanted
    assert arm.get(f"{S}/{ROLES}/roleAssignments?$filter=atScope()").json()["value"] == []
    assert arm.delete(assignment).json()["id"] == assignment
    assert arm.delete(assignment).status_code == 204


@pytest.mark.parametrize(
    ("kind", "name", "properties", "code"),
    [
        ("roleAssignments", "x", {}, "InvalidRoleAssignmentId"),
        ("roleAssignments", str(uuid.UUID(int=1)), {}, "InvalidPrincipalId"),
        (
            "roleAssignments",
            str(uuid.UUID(int=1)),
            {"roleDefinitionId": f"/{uuid.UUID(int=2)}", "principalId": str(uuid.UUID(int=3))},
            "RoleDefinitionDoesNotExist",
        ),
        ("roleDefinitions", str(uuid.UUID(int=1)), {}, "RoleDefinitionNameNullOrEmpty"),
        ("roleDefinitions", str(uuid.UUID(int=1)), {"roleName": "x"}, "InvalidRoleDefinition"),
        ("roleDefinitions", CONTRIBUTOR, {"roleName": "x"}, "CannotModifySystemRole"),
    ],
)
def test_roles_that_cannot_be(arm: Arm, kind: str, name: str, properties: object, code: str) -> None:
    assert error_of(arm.put(f"{S}/{ROLES}/{kind}/{name}", {"properties": properties}))[1] == code


def test_a_storage_account(arm: Arm) -> None:
    check = f"{S}/providers/Microsoft.Storage/checkNameAvailability"
    assert arm.post(check, {"name": "aibscripts1"}).json() == {"nameAvailable": True}
    made = arm.put(f"{STORAGE}/aibscripts1", {"location": "eastus", "sku": {"name": "Standard_LRS"}})
    assert made.status_code == 200
    assert made.json()["properties"]["primaryEndpoints"]["blob"] == f"{arm.origin}/blob/aibscripts1/"
    assert (made.json()["kind"], made.json()["sku"]["name"]) == ("StorageV2", "Standard_LRS")
    assert arm.post(check, {"name": "aibscripts1"}).json()["reason"] == "AlreadyExists"
    assert arm.post(check, {"name": "Not_a_name"}).json()["reason"] == "AccountNameInvalid"
    keys = arm.post(f"{STORAGE}/aibscripts1/listKeys").json()["keys"]
    assert [each["keyName"] for each in keys] == ["key1", "key2"] and keys[0]["value"] != keys[1]["value"]
    assert arm.post(f"{STORAGE}/aibscripts1/listKeys").json()["keys"] == keys
    assert error_of(arm.put(f"{STORAGE}/other", {"location": "eastus"}))[:2] == (400, "InvalidRequestContent")
    assert error_of(arm.put(f"{STORAGE}/Other", {"location": "eastus"}))[:2] == (400, "AccountNameInvalid")
