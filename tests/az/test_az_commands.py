"""Every az command of the reference (arm-and-guest 4, az-requests), in the order in which people give them.

The tests of this file share one server and one sign-in, and build on each other.
"""

from __future__ import annotations

import json
import re
import shlex
import time
from typing import Any

import pytest

from tests.az.conftest import Az
from tests.contract.installing import ROOT

SUBSCRIPTION = "00000000-0000-0000-0000-000000000000"
GROUP = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg"
TEMPLATES = f"{GROUP}/providers/Microsoft.VirtualMachineImages/imageTemplates"
TYPE = "Microsoft.VirtualMachineImages/imageTemplates"
IDENTITY = f"{GROUP}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/id1"


def template(image: str) -> dict[str, Any]:
    """The body of an image template."""
    return {
        "location": "westus2",
        "identity": {"type": "UserAssigned", "userAssignedIdentities": {IDENTITY: {}}},
        "properties": {
            "source": {"type": "PlatformImage", "publisher": "Debian", "offer": "debian-12", "sku": "12",
                       "version": "latest"},
            "customize": [{"type": "Shell", "name": "s", "inline": ["echo hello"]}],
            "distribute": [
                {"type": "ManagedImage", "runOutputName": "out", "location": "westus2",
                 "imageId": f"{GROUP}/providers/Microsoft.Compute/images/{image}"},
            ],
        },
    }  # fmt: skip


DEPLOYMENT = """{ // a comment, as ARM allows
  "$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#",
  "contentVersion": "1.0.0.0",
  "parameters": { "imageTemplateName": { "type": "string" } },
  "resources": [
    {
      "type": "Microsoft.VirtualMachineImages/imageTemplates",
      "apiVersion": "2022-07-01",
      "name": "[parameters('imageTemplateName')]",
      %s
    }
  ],
  "outputs": { "id": { "type": "string", "value": "[resourceId('%s', parameters('imageTemplateName'))]" } }
}
"""


@pytest.fixture(scope="module", autouse=True)
def prepared(az: Az) -> None:
    inside = json.dumps(template("dep1"))[1:-1]
    (az.folder / "tpl.json").write_text(DEPLOYMENT % (inside, TYPE))
    (az.folder / "bad.json").write_text(DEPLOYMENT % (inside.replace('"ManagedImage"', '"managedimage"'), TYPE))
    (az.folder / "it.json").write_text(json.dumps(template("mi2")))


def test_signing_in_and_groups(az: Az) -> None:
    assert az("account", "show", "--query", "id") == SUBSCRIPTION
    assert az("account", "get-access-token", "--query", "tokenType") == "Bearer"
    assert az("group", "create", "-n", "rg", "-l", "westus2")["properties"]["provisioningState"] == "Succeeded"
    assert "rg" in az("group", "list", "--query", "[].name")
    assert az("group", "show", "-n", "RG", "--query", "location") == "westus2"
    assert az("group", "exists", "-n", "none") is False
    assert "westus2" in az("account", "list-locations", "--query", "[].name")


def test_providers(az: Az) -> None:
    name = "Microsoft.VirtualMachineImages"
    az("provider", "register", "-n", name)
    assert az("provider", "show", "-n", name, "--query", "registrationState") == "Registered"
    types = az("provider", "show", "-n", name, "--query", "resourceTypes[].resourceType")
    assert {"imageTemplates", "imageTemplates/runOutputs"} <= set(types)


def test_what_templates_stand_on(az: Az) -> None:
    assert az("identity", "create", "-g", "rg", "-n", "id1", "--query", "clientId")
    assert az("sig", "create", "-g", "rg", "--gallery-name", "g", "--query", "name") == "g"
    definition = ("-g", "rg", "--gallery-name", "g", "-i", "d")
    more = ("--publisher", "p", "--offer", "o", "--sku", "s", "--os-type", "Linux", "--hyper-v-generation", "V1")
    assert az("sig", "image-definition", "create", *definition, *more, "--query", "name") == "d"
    assert az("sig", "image-definition", "list", "-g", "rg", "--gallery-name", "g", "--query", "[].name") == ["d"]


def test_a_template_by_flags(az: Az) -> None:
    az(
        "image", "builder", "create", "-n", "azt1", "-g", "rg",
        "--image-source", "Debian:debian-12:12:latest",
        "--scripts", "https://example.invalid/a.sh",
        "--managed-image-destinations", "mi1=westus2",
        "--shared-image-destinations", "g/d=westus2,eastus",
        "--identity", "id1", "--build-timeout", "30", "--vm-size", "Standard_D2s_v3",
    )  # fmt: skip
    shown = az("image", "builder", "show", "-n", "azt1", "-g", "rg")
    assert (shown["provisioningState"], shown["source"]["publisher"]) == ("Succeeded", "Debian")
    assert az("image", "builder", "list", "-g", "rg", "--query", "[].name") == ["azt1"]
    assert az("image", "builder", "list", "--query", "[].name") == ["azt1"]


def test_a_run_to_its_end(az: Az) -> None:
    az.script(seconds=0.2)
    az("image", "builder", "run", "-n", "azt1", "-g", "rg")
    assert az("image", "builder", "show", "-n", "azt1", "-g", "rg", "--query", "lastRunStatus.runState") == "Succeeded"
    assert {each["name"] for each in az("image", "builder", "show-runs", "-n", "azt1", "-g", "rg")} >= {"mi1"}


def test_run_outputs_as_resources(az: Az) -> None:
    output = f"{TEMPLATES}/azt1/runOutputs/mi1"
    image = f"{GROUP}/providers/Microsoft.Compute/images/mi1"
    query = ("--query", "properties.artifactId")
    assert az("resource", "show", "--ids", output, *query) == image
    assert az("resource", "show", "--ids", output, "--api-version", "2022-07-01", *query) == image
    assert az("resource", "show", "--ids", output, "--api-version", "2019-05-01-preview", *query) == image


def test_images_and_versions(az: Az) -> None:
    assert az("image", "show", "-n", "mi1", "-g", "rg", "--query", "id").endswith("/images/mi1")
    assert "mi1" in az("image", "list", "--query", "[].name")
    assert "mi1" in az("image", "list", "-g", "rg", "--query", "[].name")
    where = ("-g", "rg", "--gallery-name", "g", "--gallery-image-definition", "d")
    [version] = az("sig", "image-version", "list", *where, "--query", "[].name")
    assert az("sig", "image-version", "show", *where, "-e", version, "--query", "provisioningState") == "Succeeded"
    assert az("sig", "list", "-g", "rg", "--query", "[].name") == ["g"]


def test_the_marketplace(az: Az) -> None:
    where = ("-l", "westus2", "--all", "--publisher", "Debian")
    assert any(each["urn"].startswith("Debian:debian-12:12:") for each in az("vm", "image", "list", *where))
    assert "Debian" in az("vm", "image", "list-publishers", "-l", "westus2", "--query", "[].name")
    assert az("vm", "image", "list-offers", "-l", "westus2", "-p", "Debian", "--query", "[].name")


def test_rest_and_a_run_without_waiting(az: Az) -> None:
    url = f"{TEMPLATES}?api-version=2024-02-01"
    assert az("rest", "--method", "get", "--url", url, "--query", "value[].name") == ["azt1"]
    az.script(holdAt="s")
    az.script(holdAt="Building")
    az("image", "builder", "run", "-n", "azt1", "-g", "rg", "--no-wait")
    status = az("image", "builder", "show", "-n", "azt1", "-g", "rg", "--query", "lastRunStatus")
    assert status["runState"] == "Running"
    said = az.refused("image", "builder", "run", "-n", "azt1", "-g", "rg")
    assert "OperationNotAllowed" in said
    said = az.refused("image", "builder", "delete", "-n", "azt1", "-g", "rg")
    assert "is not allowed in provisioning state: provisioned or run state: running" in said
    az("image", "builder", "cancel", "-n", "azt1", "-g", "rg")
    az("image", "builder", "wait", "-n", "azt1", "-g", "rg", "--custom", "lastRunStatus.runState!='Running'")
    assert az("image", "builder", "show", "-n", "azt1", "-g", "rg", "--query", "lastRunStatus.runState") == "Canceled"
    assert "OperationNotAllowed" in az.refused("image", "builder", "cancel", "-n", "azt1", "-g", "rg")


def test_a_failed_run_is_az_s_failure(az: Az) -> None:
    az.script(failAt="Building", message="no room")
    said = az.refused("image", "builder", "run", "-n", "azt1", "-g", "rg")
    assert "InternalOperationError" in said
    assert "no room" in said
    az.script()


def test_a_template_by_a_deployment(az: Az) -> None:
    where = ("-g", "rg", "--template-file", "tpl.json", "--parameters", "imageTemplateName=dep1")
    az("deployment", "group", "validate", *where)
    made = az("deployment", "group", "create", "-n", "d1", *where)["properties"]
    assert made["provisioningState"] == "Succeeded"
    assert made["outputs"]["id"]["value"] == f"{TEMPLATES}/dep1"
    names = "[].properties.targetResource.resourceName"
    assert az("deployment", "operation", "group", "list", "-g", "rg", "-n", "d1", "--query", names) == ["dep1"]
    assert az("deployment", "group", "show", "-g", "rg", "-n", "d1", "--query", "name") == "d1"
    assert "d1" in az("deployment", "group", "list", "-g", "rg", "--query", "[].name")
    foreseen = az("deployment", "group", "what-if", "--no-pretty-print", *where)
    assert foreseen["status"] == "Succeeded"


def test_a_bad_deployment_says_what_is_wrong(az: Az) -> None:
    parameters = ("--parameters", "imageTemplateName=dep2")
    said = az.refused(
        "deployment", "group", "create", "-g", "rg", "-n", "d2", "--template-file", "bad.json", *parameters
    )
    assert "distribute[0].type" in said
    said = az.refused("deployment", "group", "create", "-g", "rg", "-n", "d3", "--template-file", "tpl.json",
                      "--no-prompt", "true")  # fmt: skip
    assert "imageTemplateName" in said


def test_actions_of_a_resource(az: Az) -> None:
    action = ("resource", "invoke-action", "--action", "Run", "--ids", f"{TEMPLATES}/dep1")
    az.script(holdAt="s")
    az(*action, "--api-version", "2022-07-01", "--no-wait")
    for _ in range(20):
        status = az("image", "builder", "show", "-n", "dep1", "-g", "rg", "--query", "lastRunStatus")
        if status["runSubState"] == "Customizing":
            break
        time.sleep(0.5)
    assert (status["runState"], status["runSubState"]) == ("Running", "Customizing")
    az("image", "builder", "cancel", "-n", "dep1", "-g", "rg")
    assert az("image", "builder", "show", "-n", "dep1", "-g", "rg", "--query", "lastRunStatus.runState") == "Canceled"
    az.script()
    az(*action, "--api-version", "2022-07-01")
    az("image", "builder", "wait", "-n", "dep1", "-g", "rg", "--created", "--interval", "2")


def test_what_az_or_the_service_refuses(az: Az) -> None:
    customizer = ("--customizer-name", "x", "--type", "shell", "--inline-script", "echo hi")
    assert az.refused("image", "builder", "customizer", "add", "-n", "dep1", "-g", "rg", *customizer)
    said = az.refused("image", "builder", "update", "-n", "dep1", "-g", "rg", "--set", "buildTimeoutInMinutes=33")
    assert "Update/Upgrade of image templates is currently not supported" in said
    assert "ResourceNotFound" in az.refused("image", "builder", "show", "-n", "none", "-g", "rg", code=3)
    assert "ResourceGroupNotFound" in az.refused("image", "builder", "list", "-g", "nowhere", code=3)


def test_a_template_by_a_file(az: Az) -> None:
    az("image", "builder", "create", "-g", "rg", "-n", "f1", "--image-template", "it.json")
    query = "[provisioningState,source.publisher,identity.type]"
    assert az("image", "builder", "show", "-g", "rg", "-n", "f1", "--query", query) == [
        "Succeeded", "Debian", "UserAssigned",
    ]  # fmt: skip
    az.script(holdAt="s")
    az("image", "builder", "run", "-g", "rg", "-n", "f1", "--no-wait")
    az("image", "builder", "cancel", "-g", "rg", "-n", "f1")
    assert az("image", "builder", "show", "-g", "rg", "-n", "f1", "--query", "lastRunStatus.runState") == "Canceled"
    az.script()


def test_templates_as_resources(az: Az) -> None:
    named = ("-g", "rg", "-n", "f2", "--resource-type", TYPE)
    made = az(
        "resource", "create", *named, "--is-full-object", "--properties", "@it.json", "--api-version", "2022-07-01"
    )
    assert made["properties"]["provisioningState"] == "Succeeded"
    assert az("resource", "show", *named, "--query", "name") == "f2"
    assert "f2" in az("resource", "list", "-g", "rg", "--resource-type", TYPE, "--query", "[].name")
    az("resource", "delete", *named, "--api-version", "2022-07-01")
    assert "ResourceNotFound" in az.refused("resource", "show", *named, "--query", "name", code=3)


def test_deferred_edits(az: Az) -> None:
    """az keeps the template to itself, adds to it, and submits it with `update`."""
    flags = ("--image-source", "Debian:debian-12:12:latest", "--scripts", "https://example.invalid/a.sh")
    named = ("-n", "late", "-g", "rg")
    az("image", "builder", "create", *named, *flags, "--identity", "id1", "--defer")
    step = ("--customizer-name", "x", "--type", "shell", "--inline-script", "echo hi")
    az("image", "builder", "customizer", "add", *named, *step, "--defer")
    output = ("--output-name", "out", "--managed-image", "mi9", "--managed-image-location", "westus2")
    az("image", "builder", "output", "add", *named, *output, "--defer")
    az("image", "builder", "update", *named)
    assert [each["name"] for each in az("image", "builder", "show", *named, "--query", "customize")][-1] == "x"


def test_the_commands_of_the_readme(az: Az) -> None:
    readme = (ROOT / "README.md").read_text()
    commands = re.findall(r"^\$ aib az (.*)$", readme, re.MULTILINE)
    assert len(commands) == 2
    (az.folder / "template.json").write_text(json.dumps(template("mi3")))
    for command in commands:
        az(*shlex.split(command))
    named = ("-n", "nightly", "-g", "aib")
    assert az("image", "builder", "show", *named, "--query", "lastRunStatus.runState") == "Succeeded"


def test_the_end(az: Az) -> None:
    az("image", "builder", "delete", "-n", "azt1", "-g", "rg")
    assert "ResourceNotFound" in az.refused("image", "builder", "show", "-n", "azt1", "-g", "rg", code=3)
    az("group", "delete", "-n", "rg", "-y")
    assert az("group", "exists", "-n", "rg") is False
