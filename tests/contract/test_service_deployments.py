"""Deployments that work: order, references, loops, conditions, nesting, scopes, outputs, what-if, modes."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from orchestrator.record.resources import Resource
from orchestrator.service.context import Context
from orchestrator.service.resources import owners
from orchestrator.service.resources.targets import Target
from orchestrator.service.settings import Settings
from tests.contract.arm_client import SUBSCRIPTION, Arm, arm_server, error_of
from tests.contract.deploying import (
    GALLERIES,
    IDENTITIES,
    S,
    body,
    deploy,
    gallery,
    identity,
    make_group,
    nested,
    outputs,
    path,
    resource,
    spliced,
    template,
)

SLOW = "Contoso.Tests/slow"


class Slow:
    """A type whose resources are there when the test says so."""

    def __init__(self) -> None:
        self.begun, self.go = threading.Event(), threading.Event()

    def check(self, context: Context, target: Target, body: Mapping[str, Any], api_version: str) -> None:
        """Everything is right."""

    def put(self, context: Context, target: Target, body: Mapping[str, Any], api_version: str) -> None:
        self.begun.set()
        assert self.go.wait(20)
        context.store.put(Resource(target.id, target.kind, target.name))

    def delete(self, context: Context, resource: Resource) -> None:
        context.store.delete(resource.id)

    def shown(self, context: Context, resource: Resource, origin: str) -> dict[str, Any]:
        return resource.to_json()


@pytest.fixture(scope="module")
def arm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arm]:
    with arm_server(Settings(tmp_path_factory.mktemp("home"))) as server:
        make_group(server)
        yield server


def text(value: str) -> dict[str, Any]:
    return {"type": "string", "value": value}


def test_what_is_referred_to_is_made_first(arm: Arm) -> None:
    what = template(
        gallery("[variables('name')]", tags={"client": "[reference('id1').clientId]"}),
        identity("id1"),
        parameters={"n": {"type": "string"}, "m": {"type": "int", "defaultValue": 3}},
        variables={"name": "[concat(parameters('n'), 'x')]"},
        outputs={
            "client": text(
                "[reference(resourceId('Microsoft.ManagedIdentity/userAssignedIdentities', 'id1')).clientId]"
            ),
            "place": text(
                "[reference(resourceId('Microsoft.Compute/galleries', 'g1x'), '2022-03-03', 'Full').location]"
            ),
            "number": {"type": "int", "value": "[parameters('m')]"},
            "where": text("[resourceGroup().location]"),
            "named": text("[deployment().name]"),
            "kinds": {"type": "array", "value": "[providers('Microsoft.Compute', 'galleries').locations]"},
        },
    )
    done = deploy(arm, "first", what, n="g1")
    facts = arm.get(f"{S}/resourceGroups/rg/providers/{IDENTITIES}/id1").json()["properties"]
    found = outputs(done)
    assert "West US 2" in found.pop("kinds")
    assert found == {
        "client": facts["clientId"], "place": "westus2", "number": 3, "where": "westus2", "named": "first"
    }  # fmt: skip
    made = arm.get(f"{S}/resourceGroups/rg/providers/{GALLERIES}/g1x").json()
    assert made["tags"] == {"client": facts["clientId"]}
    properties = done["properties"]
    assert [each["id"].rpartition("/")[2] for each in properties["outputResources"]] == ["id1", "g1x"]
    assert properties["parameters"] == {"n": {"type": "String", "value": "g1"}, "m": {"type": "Int", "value": 3}}
    assert properties["dependencies"][0]["dependsOn"][0]["resourceName"] == "id1"
    assert [each["namespace"] for each in properties["providers"]] == ["Microsoft.Compute", "Microsoft.ManagedIdentity"]
    assert "aib" not in properties


def test_the_body_that_az_sends(arm: Arm) -> None:
    what = template(gallery("spliced"), parameters={"p": {"type": "string"}}, outputs={"o": text("[parameters('p')]")})
    data = spliced(what, p="template: x")
    checked = arm.post(f"{path('az')}/validate", data)
    assert (checked.status_code, checked.json()["properties"]["provisioningState"]) == (200, "Succeeded")
    assert checked.json()["properties"]["validatedResources"][0]["id"].endswith("/galleries/spliced")
    assert arm.get(path("az")).status_code == 404
    created = arm.put(path("az"), data)
    assert created.status_code == 201
    assert "/deployments/az/operationStatuses/" in created.headers["Azure-AsyncOperation"]
    assert arm.finished(created)["status"] == "Succeeded"
    assert arm.get(path("az")).json()["properties"]["outputs"]["o"]["value"] == "template: x"
    assert arm.put(path("az"), data).status_code == 200


def test_loops_conditions_and_children(arm: Arm) -> None:
    definition = {
        "type": "images", "apiVersion": "2022-03-03", "name": "def", "location": "westus2",
        "dependsOn": ["[resourceId('Microsoft.Compute/galleries', 'parent')]"],
        "properties": {
            "osType": "Linux", "osState": "Generalized", "identifier": {"publisher": "p", "offer": "o", "sku": "s"}
        },
    }  # fmt: skip
    what = template(
        gallery("parent", resources=[definition]),
        gallery(
            "[concat('loop', copyIndex())]", copy={"name": "every", "count": 3}, tags={"i": "[string(copyIndex(1))]"}
        ),
        gallery("never", condition="[equals(1, 2)]"),
        identity("last", dependsOn=["every", "never"], tags={"seen": "[reference('loop2').identifier.uniqueName]"}),
        outputs={
            "all": {
                "type": "array",
                "copy": {"count": 2, "input": "[reference(concat('loop', copyIndex())).provisioningState]"},
            },
            "none": {"type": "string", "condition": False, "value": "x"},
        },
    )
    done = deploy(arm, "loops", what)
    assert outputs(done) == {"all": ["Succeeded", "Succeeded"]}
    made = [each["id"].partition("/providers/")[2] for each in done["properties"]["outputResources"]]
    assert made.index(f"{GALLERIES}/parent") < made.index(f"{GALLERIES}/parent/images/def")
    assert made[-1] == f"{IDENTITIES}/last" or made.index(f"{IDENTITIES}/last") > made.index(f"{GALLERIES}/loop2")
    assert not any("never" in each for each in made)
    last = arm.get(f"{S}/resourceGroups/rg/providers/{IDENTITIES}/last").json()
    assert last["tags"]["seen"].endswith("-LOOP2")


def test_symbolic_names(arm: Arm) -> None:
    what = template(languageVersion="2.0", outputs={"o": text("[reference('mine').clientId]")})
    what["resources"] = {
        "g": gallery("symbolic", tags={"c": "[reference('mine').clientId]"}),
        "mine": identity("sym"),
        "there": {"existing": True, "type": GALLERIES, "apiVersion": "2022-03-03", "name": "symbolic"},
        "more": identity("sym2", dependsOn=["g", "there"]),
    }
    assert outputs(deploy(arm, "symbols", what))["o"]


def test_role_assignments_of_every_shape(arm: Arm) -> None:
    """On the group, on a resource by `scope`, and in the old way, as a child of the resource's type."""
    role = "[subscriptionResourceId('Microsoft.Authorization/roleDefinitions', 'acdd72a7-3385-48ef-bd42-f606fba81ae7')]"
    given = {"roleDefinitionId": role, "principalId": "[reference('rid').principalId]"}
    assignments = "Microsoft.Authorization/roleAssignments"
    guid = "guid(resourceGroup().id, 'x')"
    what = template(
        identity("rid"),
        gallery("scoped"),
        resource(assignments, f"[{guid}]", properties={**given, "scope": "[resourceGroup().id]"}),
        resource(assignments, f"[{guid}]", properties=given, scope=f"{GALLERIES}/scoped", dependsOn=["scoped"]),
        resource(f"{IDENTITIES}/providers/roleAssignments", f"[concat('rid/Microsoft.Authorization/', {guid})]",
                 properties=given, dependsOn=["rid"]),
    )  # fmt: skip
    done = deploy(arm, "roles", what)
    assert done["poll"]["status"] == "Succeeded", done["poll"]
    made = [each["id"] for each in done["properties"]["outputResources"] if "roleAssignments" in each["id"]]
    places = sorted(
        each.partition("/resourceGroups/rg")[2].partition("/providers/Microsoft.Authorization")[0] for each in made
    )
    assert places == ["", f"/providers/{GALLERIES}/scoped", f"/providers/{IDENTITIES}/rid"]


def test_nested_deployments_of_both_scopes(arm: Arm) -> None:
    make_group(arm, "rg2")
    inner = template(
        gallery("[parameters('g')]", tags={"v": "[variables('v')]", "rg": "[resourceGroup().name]"}),
        parameters={"g": {"type": "string"}},
        variables={"v": "inner"},
        outputs={"id": text("[resourceId('Microsoft.Compute/galleries', parameters('g'))]")},
    )
    outer = template(
        gallery("[concat(variables('v'), '_outer')]"), outputs={"seen": text("[variables('v')]")}, variables={"v": "no"}
    )
    what = template(
        identity("[variables('id')]"),
        nested(
            "in",
            inner,
            resourceGroup="rg2",
            parameters={"g": "[replace(concat('g', reference('nid').clientId), '-', '')]"},
        ),
        nested("out", outer, scope="outer", dependsOn=["in"]),
        variables={"v": "around", "id": "nid"},
        outputs={
            "id": text("[reference('in').outputs.id.value]"),
            "seen": text("[reference('out').outputs.seen.value]"),
        },
    )
    done = deploy(arm, "nesting", what)
    found = outputs(done)
    assert found["seen"] == "around"
    assert "/resourceGroups/rg2/" in found["id"]
    made = arm.get(found["id"]).json()
    assert made["tags"] == {"v": "inner", "rg": "rg2"}
    assert arm.get(f"{S}/resourceGroups/rg/providers/{GALLERIES}/around_outer").status_code == 200
    own = arm.get(path("in", "rg2")).json()["properties"]
    assert (own["provisioningState"], own["correlationId"]) == ("Succeeded", done["properties"]["correlationId"])
    assert found["id"] in [each["id"] for each in done["properties"]["outputResources"]]


def test_a_deployment_to_the_subscription(arm: Arm) -> None:
    what = template(
        resource("Microsoft.Resources/resourceGroups", "made", location="[deployment().location]"),
        nested("into", template(gallery("insub")), resourceGroup="made", dependsOn=["made"]),
        outputs={"id": text("[subscriptionResourceId('Microsoft.Authorization/roleDefinitions', 'x')]")},
    )
    place = f"{S}/providers/Microsoft.Resources/deployments/sub1"
    assert error_of(arm.put(place, body(what)))[1] == "InvalidDeployment"
    refused = arm.finished(arm.put(place, {**body(what), "location": "westus2"}))
    assert refused["status"] == "Succeeded", refused
    assert arm.get(f"{S}/resourceGroups/made/providers/{GALLERIES}/insub").status_code == 200
    found = arm.get(place).json()
    assert found["location"] == "westus2"
    assert found["properties"]["outputs"]["id"]["value"].startswith(f"{S}/providers/Microsoft.Authorization/")
    assert [each["name"] for each in arm.get(place.rpartition("/")[0]).json()["value"]] == ["sub1"]


def test_what_if(arm: Arm) -> None:
    make_group(arm, "wi")
    deploy(arm, "before", template(gallery("same"), gallery("other", tags={"a": "1"}), gallery("extra")), group="wi")
    what = template(
        gallery("same"),
        gallery("other", tags={"a": "2"}),
        gallery("new"),
        identity("i", tags={"g": "[reference('new').x]"}),
    )
    answer = arm.post(f"{path('after', 'wi')}/whatIf", body(what, "Complete"))
    changes = {each["resourceId"].rpartition("/")[2]: each for each in answer.json()["properties"]["changes"]}
    kinds = {name: each["changeType"] for name, each in changes.items()}
    assert kinds == {"same": "NoChange", "other": "Modify", "new": "Create", "i": "Create", "extra": "Delete"}
    assert changes["other"]["delta"] == [
        {"path": "tags.a", "propertyChangeType": "Modify", "before": "1", "after": "2"}
    ]
    assert changes["i"]["after"]["tags"]["g"] == "<reference(new).x>"
    short = body(what)
    short["properties"]["whatIfSettings"] = {"resultFormat": "ResourceIdOnly"}
    changes = arm.post(f"{path('after', 'wi')}/whatIf", short).json()["properties"]["changes"]
    assert {each["changeType"] for each in changes} == {"NoChange", "Modify", "Create", "Ignore"}
    assert all("after" not in each for each in changes)
    assert arm.get(f"{S}/resourceGroups/wi/providers/{GALLERIES}/new").status_code == 404


def test_complete_removes_what_is_not_named(arm: Arm) -> None:
    make_group(arm, "whole")
    deploy(arm, "a", template(gallery("kept"), gallery("gone"), identity("gone")), group="whole")
    assert deploy(arm, "b", template(gallery("kept")), group="whole", mode="Complete")["poll"]["status"] == "Succeeded"
    left = [each["name"] for each in arm.get(f"{S}/resourceGroups/whole/resources").json()["value"]]
    assert left == ["kept"]
    assert len(arm.get(f"{S}/resourceGroups/whole/providers/Microsoft.Resources/deployments").json()["value"]) == 2


def test_operations_by_both_paths(arm: Arm) -> None:
    deploy(arm, "told", template(gallery("told"), identity("told")))
    found = arm.get(f"{path('told')}/operations").json()["value"]
    assert found == arm.get(f"{S}/resourcegroups/rg/deployments/told/operations", version="2025-04-01").json()["value"]
    named = [each["properties"].get("targetResource", {}).get("resourceType") for each in found]
    assert sorted(filter(None, named)) == [GALLERIES, IDENTITIES]
    assert {each["properties"]["provisioningOperation"] for each in found} == {"Create", "EvaluateDeploymentOutput"}
    assert arm.get(f"{path('told')}/operations/{found[0]['operationId']}").json() == found[0]
    assert error_of(arm.get(f"{path('told')}/operations/none"))[1] == "DeploymentOperationNotFound"
    exported = arm.post(f"{path('told')}/exportTemplate").json()["template"]
    assert exported["resources"][0]["name"] == "told"


def test_one_at_a_time_cancel_and_delete(arm: Arm) -> None:
    slow = Slow()
    owners.register(SLOW, slow)
    what = template(resource(SLOW, "s"), gallery("notmade", dependsOn=["s"]))
    first = arm.put(path("slow"), body(what))
    assert slow.begun.wait(20)
    assert arm.get(path("slow")).json()["properties"]["provisioningState"] == "Running"
    assert arm.get(first.headers["Azure-AsyncOperation"]).headers["Retry-After"] == "1"
    assert error_of(arm.put(path("slow"), body(what)))[:2] == (409, "DeploymentActive")
    assert error_of(arm.delete(path("slow")))[:2] == (409, "DeploymentActive")
    assert error_of(arm.post(f"{path('slow')}/exportTemplate"))[:2] == (409, "DeploymentActive")
    assert arm.post(f"{path('slow')}/cancel").status_code == 204
    assert arm.post(f"{path('slow')}/cancel").status_code == 204
    slow.go.set()
    done = arm.finished(first)
    assert (done["status"], done["error"]["code"]) == ("Canceled", "DeploymentCanceled")
    assert arm.get(path("slow")).json()["properties"]["provisioningState"] == "Canceled"
    assert arm.get(f"{S}/resourceGroups/rg/providers/{GALLERIES}/notmade").status_code == 404
    assert error_of(arm.post(f"{path('slow')}/cancel"))[:2] == (409, "DeploymentNotRunning")
    assert arm.delete(path("slow")).status_code == 204
    assert arm.ask("HEAD", path("slow")).status_code == 404
    assert error_of(arm.get(path("slow")))[:2] == (404, "DeploymentNotFound")


def test_a_server_that_stopped_leaves_no_deployment_running(tmp_path: Any) -> None:
    settings = Settings(tmp_path / "home")
    with arm_server(settings) as arm:
        make_group(arm)
        store, operations = arm.context.store, arm.context.operations
        place = f"{S}/resourceGroups/rg/providers/Microsoft.Resources/deployments/cut"
        store.put(
            Resource(place, "Microsoft.Resources/deployments", "cut", properties={"provisioningState": "Running"})
        )
        operation = operations.begin(
            "Deployment", place, subscription=SUBSCRIPTION, provider="Microsoft.Resources", location="westus2",
            api_version="2025-04-01",
        )  # fmt: skip
    with arm_server(settings) as arm:
        found = arm.get(place).json()["properties"]
        assert (found["provisioningState"], "stopped" in found["error"]["message"]) == ("Failed", True)
        assert arm.get(f"{place}/operationStatuses/{operation.id}").json()["status"] == "Failed"
