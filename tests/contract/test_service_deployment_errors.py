"""Deployments that are refused or fail: the code, the words, the place, and nothing made where ARM makes nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from orchestrator.service.settings import Settings
from tests.contract.arm_client import Arm, arm_server, error_of
from tests.contract.conftest import files_with
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
    path,
    resource,
    template,
)

SIG = "https://a.blob.core.windows.net/c/x.sh?sv=1&sig=SECRETSECRET%3D"


@pytest.fixture(scope="module")
def arm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arm]:
    with arm_server(Settings(tmp_path_factory.mktemp("home"))) as server:
        make_group(server)
        yield server


def refused(arm: Arm, data: Any) -> tuple[int, str, str]:
    """Both doors say the same."""
    put, validated = arm.put(path("bad"), data), arm.post(f"{path('bad')}/validate", data)
    mask = re.compile(r"tracking id is '[0-9a-f-]{36}'")
    assert mask.sub("", str(error_of(put))) == mask.sub("", str(error_of(validated)))
    assert arm.get(path("bad")).status_code == 404
    return error_of(put)


@pytest.mark.parametrize(
    ("data", "code", "word"),
    [
        (b"", "InvalidRequestContent", "there is no JSON value"),
        (b"\xff\xfe", "InvalidRequestContent", "not UTF-8"),
        (b"[]", "InvalidRequestContent", "not a JSON object"),
        (b'{"properties": {"mode": "Incremental", template: {', "InvalidRequestContent", "still open"),
        (b'{"properties": {"mode": "Incremental", "template": <x>}}', "InvalidRequestContent", "not JSON"),
        ({"properties": {"mode": "Incremental"}}, "InvalidRequestContent", "'template' or 'templateLink'"),
        (
            {"properties": {"mode": "Sometimes", "template": template()}},
            "InvalidRequestContent",
            "Incremental or Complete",
        ),
        ({"properties": {"mode": "Incremental", "template": []}}, "InvalidRequestContent", "not an object"),
        (body({"contentVersion": "1.0.0.0", "resources": []}), "InvalidRequestContent", "Required property '$schema'"),
        (body(template(resourcez=[])), "InvalidRequestContent", "Could not find member 'resourcez'"),
        (
            {"properties": {"mode": "Incremental", "template": template(), "onErrorDeployment": {"type": "X"}}},
            "InvalidDeployment",
            "onErrorDeployment",
        ),
        (
            {"properties": {"mode": "Incremental", "templateLink": {"uri": "http://169.254.169.254/"}}},
            "InvalidContentLink",
            "fetches no templateLink",
        ),
        (
            {
                "properties": {
                    "mode": "Incremental",
                    "template": template(),
                    "parameters": {"p": {"reference": {"keyVault": {"id": "x"}, "secretName": "s"}}},
                }
            },
            "KeyVaultParameterReferenceNotFound",
            "no Key Vault",
        ),
        (
            {"properties": {"mode": "Incremental", "template": template(), "parameters": {"p": 1}}},
            "InvalidRequestContent",
            "'value'",
        ),
    ],
)
def test_bodies_that_are_none(arm: Arm, data: Any, code: str, word: str) -> None:
    status, found, message = refused(arm, data)
    assert (status, found) == (400, code)
    assert word in message


STRING = {"type": "string"}


def many(letter: str) -> dict[str, Any]:
    """500 galleries."""
    return gallery(f"[concat('{letter}', copyIndex())]", copy={"name": letter, "count": 500})


@pytest.mark.parametrize(
    ("what", "given", "word"),
    [
        (template(parameters={"p": STRING}), {}, "The value for the template parameter 'p' at line '1'"),
        (template(parameters={"p": STRING}), {"p": 1}, "Expected 'String, Uri'. Actual 'Integer'"),
        (template(parameters={"p": STRING}), {"p": "x", "q": 1}, "The template parameters 'q' in the parameters file"),
        (template(parameters={"p": {**STRING, "allowedValues": ["a"]}}), {"p": "b"}, "not part of the allowed"),
        (template(parameters={"p": {**STRING, "minLength": 3}}), {"p": "b"}, "outside its declared"),
        (template(parameters={"p": {"type": "text"}}), {"p": "b"}, "The type 'text' is not supported"),
        (template({"type": GALLERIES, "apiVersion": "1"}), {}, "missing the required property 'name'"),
        (template({"type": GALLERIES, "name": "x"}), {}, "missing the required property 'apiVersion'"),
        (template(["x"]), {}, "is not an object"),
        (template(resource("galleries", "x")), {}, "The resource type 'galleries' is not valid"),
        (template(resource(GALLERIES, "a/b")), {}, "incorrect segment lengths"),
        (template(resource(GALLERIES, "..")), {}, "cannot be a part of an id"),
        (template(gallery("a"), gallery("A")), {}, "defined multiple times"),
        (template(gallery("a", dependsOn=["b"])), {}, "The resource 'b' is not defined in the template"),
        (
            template(gallery("a", dependsOn=["b"]), gallery("b", dependsOn=["a"])),
            {},
            "Circular dependency detected on resource: '/subscriptions/",
        ),
        (template(gallery("a", tags={"x": "[reference('a').y]"})), {}, "Circular dependency detected on resource"),
        (template(gallery("[nosuch()]")), {}, "there is no function nosuch()"),
        (template(gallery("[reference('x').y]")), {}, "The template function 'reference' is not expected"),
        (template(gallery("[variables('v')]"), variables={"v": "[listKeys('x', '1')]"}), {}, "variable 'v'"),
        (template(gallery("[variables('v')]"), variables={"v": "[variables('v')]"}), {}, "depends on itself"),
        (template(gallery("a", tags={"x": "[parameters('p')]"})), {}, "no parameter 'p'"),
        (template(gallery("a", copy={"name": "c", "count": 801})), {}, "copy loop of 801"),
        (template(many("a"), many("b")), {}, "exceeds the limit of '800'"),
        (template(outputs={"o": {"type": "string", "value": "[concat(]"}}), {}, "The template output 'o'"),
        (template(nested("n", template(gallery("[parameters('q')]"), parameters={"q": STRING}))), {}, "parameter 'q'"),
    ],
)  # fmt: skip
def test_templates_that_are_not_valid(arm: Arm, what: dict[str, Any], given: dict[str, Any], word: str) -> None:
    status, code, message = refused(arm, body(what, **given))
    assert (status, code) == (400, "InvalidTemplate")
    assert word in message, message


def test_a_linked_template_is_not_fetched(arm: Arm) -> None:
    link = {"mode": "Incremental", "templateLink": {"uri": "http://127.0.0.1/"}}
    status, code, message = refused(
        arm, body(template(resource("Microsoft.Resources/deployments", "n", properties=link)))
    )
    assert (status, code) == (400, "InvalidContentLink")
    assert "'n' links to its template" in message


def test_the_place_of_a_mistake_is_told(arm: Arm) -> None:
    what = json.dumps(template(gallery("a"), gallery("[nosuch()]")), indent=1)
    answer = arm.put(path("bad"), f'{{"properties": {{"mode": "Incremental", template:{what}}}}}'.encode())
    info = answer.json()["error"]["additionalInfo"][0]
    assert info["type"] == "TemplateViolation"
    line = what.split("\n")[info["info"]["lineNumber"] - 1]
    assert line[info["info"]["linePosition"] - 1 :].startswith('"[nosuch()]"')
    assert info["info"]["path"] == "resources.1.name"


def test_a_resource_that_fails_does_not_stop_the_others(arm: Arm) -> None:
    what = template(
        resource(f"{GALLERIES}/images", "none/def", location="westus2", properties={}),
        identity("after", dependsOn=["none/def"]),
        identity("other"),
    )
    done = deploy(arm, "partly", what)
    assert done["poll"]["status"] == "Failed"
    error = done["poll"]["error"]
    assert (error["code"], len(error["details"])) == ("DeploymentFailed", 1)
    assert error["target"].endswith("/deployments/partly")
    assert error["message"].startswith("At least one resource deployment operation failed.")
    detail = error["details"][0]
    assert detail["code"] == "ParentResourceNotFound" and detail["target"].endswith("/galleries/none/images/def")
    assert done["properties"]["error"] == error
    assert arm.get(f"{S}/resourceGroups/rg/providers/{IDENTITIES}/other").status_code == 200
    assert arm.get(f"{S}/resourceGroups/rg/providers/{IDENTITIES}/after").status_code == 404
    failed = [
        each["properties"] for each in arm.get(f"{path('partly')}/operations").json()["value"]
        if each["properties"]["provisioningState"] == "Failed"
    ]  # fmt: skip
    assert failed[0]["statusMessage"]["error"]["code"] == "ParentResourceNotFound"


def test_a_nested_failure_is_nested(arm: Arm) -> None:
    inner = template(resource(f"{GALLERIES}/images", "none/def", location="westus2", properties={}))
    error = deploy(arm, "deep", template(nested("inside", inner)))["poll"]["error"]
    outer = error["details"][0]
    assert (outer["code"], outer["target"].rpartition("/")[2]) == ("ResourceDeploymentFailure", "inside")
    assert "terminal provisioning state 'Failed'" in outer["message"]
    assert outer["details"][0]["code"] == "DeploymentFailed"
    assert outer["details"][0]["details"][0]["code"] == "ParentResourceNotFound"
    assert arm.get(path("inside")).json()["properties"]["provisioningState"] == "Failed"


def test_a_group_of_a_nested_deployment_must_be_there(arm: Arm) -> None:
    error = deploy(arm, "nowhere", template(nested("n", template(), resourceGroup="nogroup")))["poll"]["error"]
    assert error["details"][0]["code"] == "ResourceGroupNotFound"


def test_a_reference_to_nothing(arm: Arm) -> None:
    what = template(gallery("lost", tags={"x": "[reference(resourceId('Microsoft.Compute/images', 'none')).y]"}))
    detail = deploy(arm, "lost", what)["poll"]["error"]["details"][0]
    assert detail["code"] == "ResourceNotFound" and "Microsoft.Compute/images/none" in detail["message"]
    what = template(gallery("lost", tags={"x": "[reference('/etc/passwd').y]"}))
    assert deploy(arm, "lost", what)["poll"]["error"]["details"][0]["code"] == "NotFound"


def test_outputs_that_cannot_be(arm: Arm) -> None:
    shown = {
        "a": {"type": "int", "value": "[reference('out').identifier.uniqueName]"},
        "b": {"type": "string", "value": "[reference('out').nosuch]"},
    }
    done = deploy(arm, "outs", template(gallery("out"), outputs=shown))
    error = done["poll"]["error"]
    assert error["code"] == "DeploymentOutputEvaluationFailed" and "'a,b'" in error["message"]
    assert [each["target"] for each in error["details"]] == ["a", "b"]


def test_secrets_are_not_kept(arm: Arm) -> None:
    what = template(
        gallery("quiet", tags={"note": "x"}),
        parameters={"secret": {"type": "securestring"}, "address": STRING},
        outputs={
            "secret": {"type": "securestring", "value": "[parameters('secret')]"},
            "address": {"type": "string", "value": "[parameters('address')]"},
        },
        variables={"unused": SIG},
    )
    done = deploy(arm, "quiet", what, secret="hush-hush-hush", address=SIG)
    assert done["properties"]["outputs"]["secret"] == {"type": "SecureString"}
    home = arm.context.store.home
    assert files_with(home, b"deployments/quiet")
    assert not files_with(home, b"hush-hush") and not files_with(home, b"SECRETSECRET")


def test_names_and_places_of_deployments(arm: Arm) -> None:
    assert error_of(arm.put(path("a b"), body(template())))[:2] == (400, "InvalidDeploymentName")
    assert error_of(arm.put(path("x" * 65), body(template())))[:2] == (400, "InvalidDeploymentName")
    assert error_of(arm.put(path("d", "nogroup"), body(template())))[:2] == (404, "ResourceGroupNotFound")
    assert error_of(arm.get(path("none")))[:2] == (404, "DeploymentNotFound")
    assert arm.delete(path("none")).status_code == 204
