"""What the Azure CLI 2.91.0 asks, command by command (reference: az-requests), asked by hand, with its api-versions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from orchestrator.service.settings import Settings
from tests.contract.arm_client import SUBSCRIPTION, Arm, arm_server
from tests.contract.deploying import template as deployment

S = f"/subscriptions/{SUBSCRIPTION}"
RG = f"{S}/resourcegroups/rg"
GROUP = f"{S}/resourceGroups/rg"
BUILDER = "providers/Microsoft.VirtualMachineImages"
IDENTITY = f"{GROUP}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/id1"
USER = {"type": "UserAssigned", "userAssignedIdentities": {IDENTITY: {}}}
ROLES = f"{GROUP}/providers/Microsoft.Authorization"
AZ = "2023-07-01"
DEPLOY = "2025-04-01"


@pytest.fixture(scope="module")
def arm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arm]:
    with arm_server(Settings(tmp_path_factory.mktemp("home"), scripted=True)) as server:
        assert server.put(RG, {"location": "westus2"}, version="2024-11-01").status_code == 201
        yield server


def properties(**more: Any) -> dict[str, Any]:
    image = f"{GROUP}/providers/Microsoft.Compute/images/mi1"
    source = {
        "type": "PlatformImage", "publisher": "Canonical", "offer": "0001-com-ubuntu-server-jammy",
        "sku": "22_04-lts-gen2", "version": "latest",
    }  # fmt: skip
    return {
        "source": source,
        "customize": [{"type": "Shell", "name": "a.sh", "scriptUri": "https://example.invalid/a.sh"}],
        "distribute": [{"type": "ManagedImage", "runOutputName": "mi1", "imageId": image, "location": "westus2"}],
        "buildTimeoutInMinutes": 30,
        "vmProfile": {"vmSize": "Standard_D2s_v3"},
        **more,
    }


def ended(arm: Arm, answer: requests.Response, statuses: tuple[int, ...]) -> str:
    """Polled as az polls: the asynchronous operation to its end, with the api-version of the address."""
    assert answer.status_code in statuses, answer.text
    assert answer.headers["Retry-After"] == "1"
    status: str = arm.finished(answer)["status"]
    return status


def test_group_and_provider(arm: Arm) -> None:
    assert arm.ask("HEAD", RG, version="2024-11-01").status_code == 204
    state = arm.get(f"{S}/{BUILDER}", version="2024-11-01").json()["registrationState"]
    assert state == "Registered"
    assert arm.post(f"{S}/{BUILDER}/register", version="2024-11-01").status_code == 200


def test_image_builder_from_create_to_delete(arm: Arm) -> None:
    assert arm.get(RG, version="2024-11-01").json()["location"] == "westus2"
    assert "westus2" in [each["name"] for each in arm.get(f"{S}/locations", version="2022-12-01").json()["value"]]
    path = f"{GROUP}/{BUILDER}/imageTemplates/azt1"
    body = {"tags": {}, "location": "westus2", "identity": USER, "properties": properties()}
    assert ended(arm, arm.put(path, body, version=AZ), (201,)) == "Succeeded"
    assert arm.get(path, version=AZ).json()["properties"]["provisioningState"] == "Succeeded"
    run = arm.post(f"{path}/run", version=AZ)
    assert ended(arm, run, (202,)) == "Succeeded"
    assert arm.get(run.headers["Location"]).status_code in (200, 204)
    runs = arm.get(f"{path}/runOutputs", version=AZ).json()["value"]
    assert [each["name"] for each in runs] == ["mi1"]
    versions = arm.get(f"{S}/{BUILDER}", version="2024-11-01").json()["resourceTypes"]
    newest = next(each for each in versions if each["resourceType"] == "imageTemplates/runOutputs")["apiVersions"][0]
    for version in (newest, "2022-07-01"):
        output = arm.get(f"{path}/runOutputs/mi1", version=version).json()
        assert output["properties"]["artifactId"].endswith("/images/mi1")
    assert [each["name"] for each in arm.get(path.rpartition("/")[0], version=AZ).json()["value"]] == ["azt1"]
    image = arm.get(f"{GROUP}/providers/Microsoft.Compute/images/mi1", version="2024-11-01")
    assert image.json()["properties"]["storageProfile"]["osDisk"]["osType"] == "Linux"
    gone = arm.delete(path, version=AZ)
    assert gone.status_code == 202
    assert arm.get(gone.headers["Location"]).status_code == 204
    assert arm.get(path, version=AZ).status_code == 404


TEMPLATE = deployment(
    {
        "type": "Microsoft.VirtualMachineImages/imageTemplates",
        "apiVersion": "2022-07-01",
        "name": "[parameters('imageTemplateName')]",
        "location": "[resourceGroup().location]",
        "tags": {"imagebuilderTemplate": "[uniqueString(resourceGroup().id)]"},
        "identity": USER,
        "properties": properties(),
    },
    parameters={"imageTemplateName": {"type": "string"}},
    outputs={
        "id": {
            "type": "string",
            "value": "[resourceId('Microsoft.VirtualMachineImages/imageTemplates', parameters('imageTemplateName'))]",
        },
        "state": {"type": "string", "value": "[reference(parameters('imageTemplateName')).provisioningState]"},
    },
)


def az_body(template: Any, name: str) -> bytes:
    """As az splices it: an unquoted name, and the comment of the user's file."""
    text = json.dumps(template, indent=1)[1:]
    given = json.dumps({"imageTemplateName": {"value": name}})
    head = f'{{"properties": {{"parameters": {given}, "mode": "Incremental", template:{{ // a JSONC comment\n'
    return f"{head}{text}}}}}".encode()


def test_deployment_group_create_then_run_by_resource_action(arm: Arm) -> None:
    path = f"{RG}/providers/Microsoft.Resources/deployments/d1"
    checked = arm.post(f"{path}/validate", az_body(TEMPLATE, "dep1"), version=DEPLOY)
    assert checked.json()["properties"]["provisioningState"] == "Succeeded"
    created = arm.put(path, az_body(TEMPLATE, "dep1"), version=DEPLOY)
    assert ended(arm, created, (201,)) == "Succeeded"
    found = arm.get(path, version=DEPLOY).json()["properties"]
    template_id = f"{GROUP}/{BUILDER}/imageTemplates/dep1"
    assert {name: each["value"] for name, each in found["outputs"].items()} == {"id": template_id, "state": "Succeeded"}
    operations = arm.get(f"{RG}/deployments/d1/operations", version=DEPLOY).json()["value"]
    assert [each["properties"].get("targetResource", {}).get("resourceName") for each in operations] == ["dep1", None]
    action = arm.post(f"{template_id}/Run", version="2022-07-01")
    assert ended(arm, action, (202,)) == "Succeeded"
    assert arm.get(action.headers["Location"]).status_code in (200, 204)
    doubled = f"{RG}/{BUILDER}//imageTemplates/dep1"
    assert arm.get(doubled, version="2024-02-01").json()["name"] == "dep1"
    again = arm.put(f"{path}-again", az_body(TEMPLATE, "dep1"), version=DEPLOY)
    assert ended(arm, again, (201,)) == "Succeeded"  # the same once more changes nothing


def test_a_second_deployment_of_another_template_is_told_e6(arm: Arm) -> None:
    path = f"{RG}/providers/Microsoft.Resources/deployments/second"
    assert ended(arm, arm.put(path, az_body(TEMPLATE, "dep6"), version=DEPLOY), (201,)) == "Succeeded"
    other = json.loads(json.dumps(TEMPLATE))
    other["resources"][0]["properties"]["buildTimeoutInMinutes"] = 31
    answer = arm.put(path, az_body(other, "dep6"), version=DEPLOY)
    assert ended(arm, answer, (200,)) == "Failed"
    detail = arm.get(path, version=DEPLOY).json()["properties"]["error"]["details"][0]
    assert detail["code"] == "Conflict" and "Update/Upgrade of image templates" in detail["message"]


def test_a_bad_template_is_refused_before_anything_is_made(arm: Arm) -> None:
    bad = json.loads(json.dumps(TEMPLATE))
    bad["resources"][0]["properties"]["distribute"][0]["type"] = "sharedImage"
    answer = arm.post(
        f"{RG}/providers/Microsoft.Resources/deployments/d2/validate", az_body(bad, "dep2"), version=DEPLOY
    )
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "InvalidTemplateDeployment")
    assert error["details"][0]["code"] == "ValidationFailed"
    assert "Missing field galleryImageId" in error["details"][0]["message"]
    assert arm.get(f"{GROUP}/{BUILDER}/imageTemplates/dep2", version=AZ).status_code == 404


def test_a_template_cannot_read_files_of_the_server_through_a_deployment(arm: Arm) -> None:
    bad = json.loads(json.dumps(TEMPLATE))
    bad["resources"][0]["properties"]["customize"] = [{"type": "Shell", "name": "s", "scriptUri": "/etc/passwd"}]
    answer = arm.put(f"{RG}/providers/Microsoft.Resources/deployments/d3", az_body(bad, "dep3"), version=DEPLOY)
    assert answer.status_code == 400
    assert "local path" in answer.text


def test_resource_create_show_delete_with_the_double_slash(arm: Arm) -> None:
    path = f"{RG}/{BUILDER}//imageTemplates/f2"
    body = {"location": "westus2", "identity": USER, "properties": properties()}
    assert ended(arm, arm.put(path, body, version="2022-07-01"), (201,)) == "Succeeded"
    assert arm.get(path, version="2024-02-01").json()["properties"]["provisioningState"] == "Succeeded"
    gone = arm.delete(path, version="2022-07-01")
    assert (gone.status_code, arm.get(gone.headers["Location"]).status_code) == (202, 204)
    assert arm.get(path, version="2024-02-01").status_code == 404


def test_identity_and_gallery_commands(arm: Arm) -> None:
    assert arm.put(IDENTITY, {"location": "westus2"}, version="2025-05-31-preview").json()["properties"]["clientId"]
    gallery = f"{GROUP}/providers/Microsoft.Compute/galleries/gg"
    assert arm.put(gallery, {"location": "westus2"}, version="2026-03-03").status_code == 201
    definition = {
        "location": "westus2",
        "properties": {
            "disallowed": {}, "features": [{"name": "SecurityType", "value": "TrustedLaunchSupported"}],
            "hyperVGeneration": "V2", "identifier": {"offer": "o", "publisher": "p", "sku": "s"},
            "osState": "Generalized", "osType": "Linux",
        },
    }  # fmt: skip
    assert arm.put(f"{gallery}/images/dd", definition, version="2021-10-01").status_code == 201
    assert arm.get(f"{gallery}/images/dd/versions", version="2024-03-03").json() == {"value": []}


def test_role_assignment_create_asks_graph_for_the_principal(arm: Arm) -> None:
    facts = arm.put(IDENTITY, {"location": "westus2"}).json()["properties"]
    cloud = requests.get(f"{arm.origin}/metadata/endpoints?api-version=2022-09-01", timeout=10).json()
    graph = cloud["microsoftGraphResourceId"]
    query = f"$filter=servicePrincipalNames/any(c:c eq '{facts['clientId']}')"
    assert requests.get(f"{graph}/v1.0/servicePrincipals?{query}", timeout=10).status_code == 401
    found = arm.get(f"{graph}/v1.0/servicePrincipals?{query}", version="").json()["value"]
    assert [each["id"] for each in found] == [facts["principalId"]]
    role = arm.get(f"{ROLES}/roleDefinitions?$filter=roleName eq 'Reader'").json()["value"][0]["id"]
    assignment = {"roleDefinitionId": role, "principalId": found[0]["id"], "principalType": "ServicePrincipal"}
    name = "0afbb090-7228-4547-96f8-b1659cb85265"
    assert arm.put(f"{ROLES}/roleAssignments/{name}", {"properties": assignment}).status_code == 201
    asked = {"ids": [facts["principalId"]], "types": ["user", "group", "servicePrincipal"]}
    told = arm.post(f"{graph}/v1.0/directoryObjects/getByIds", asked, version="").json()["value"]
    assert [each["appId"] for each in told] == [facts["clientId"]]
    for wrong in (b"[", b"[]", b'{"ids": 5}'):
        assert arm.post(f"{graph}/v1.0/directoryObjects/getByIds", wrong, version="").status_code in (200, 400)
    assert arm.get(f"{graph}/v1.0/users", version="").json() == {"value": []}


def test_group_delete_takes_the_templates_with_it(arm: Arm) -> None:
    assert arm.put(f"{S}/resourcegroups/gone", {"location": "westus2"}).status_code == 201
    path = f"{S}/resourceGroups/gone/{BUILDER}/imageTemplates/t"
    body = {"location": "westus2", "identity": USER, "properties": properties()}
    assert ended(arm, arm.put(path, body, version=AZ), (201,)) == "Succeeded"
    assert ended(arm, arm.post(f"{path}/run", version=AZ), (202,)) == "Succeeded"
    assert arm.finished(arm.delete(f"{S}/resourcegroups/gone"))["status"] == "Succeeded"
    assert arm.get(path, version=AZ).status_code == 404
    assert not arm.context.store.list(under=f"{S}/resourceGroups/gone")
