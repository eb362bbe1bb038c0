"""Deployments to a server of ours, in as few words as tests want."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import requests

from tests.contract.arm_client import SUBSCRIPTION, Arm

S = f"/subscriptions/{SUBSCRIPTION}"
SCHEMA = "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#"
GALLERIES = "Microsoft.Compute/galleries"
IDENTITIES = "Microsoft.ManagedIdentity/userAssignedIdentities"
DEPLOYMENTS = "Microsoft.Resources/deployments"


def template(*resources: Any, **more: Any) -> dict[str, Any]:
    """A deployment template."""
    return {"$schema": SCHEMA, "contentVersion": "1.0.0.0", **more, "resources": list(resources)}


def gallery(name: str, **more: Any) -> dict[str, Any]:
    return resource(GALLERIES, name, location="westus2", **more)


def identity(name: str, **more: Any) -> dict[str, Any]:
    return resource(IDENTITIES, name, location="westus2", **more)


def resource(kind: str, name: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "apiVersion": "2023-01-31", "name": name, **more}


def nested(name: str, inside: Mapping[str, Any], *, scope: str = "inner", **more: Any) -> dict[str, Any]:
    properties = {"mode": "Incremental", "template": inside, "expressionEvaluationOptions": {"scope": scope}}
    given = more.pop("parameters", None)
    if given is not None:
        properties["parameters"] = {key: {"value": value} for key, value in given.items()}
    return resource(DEPLOYMENTS, name, properties=properties, **more)


def body(what: Mapping[str, Any], mode: str = "Incremental", **parameters: Any) -> dict[str, Any]:
    given = {name: {"value": value} for name, value in parameters.items()}
    return {"properties": {"mode": mode, "parameters": given, "template": what}}


def spliced(what: Mapping[str, Any], comment: str = "// a comment", **parameters: Any) -> bytes:
    """The body as az sends it: the template's text as it is, under a name without quotes."""
    given = json.dumps({name: {"value": value} for name, value in parameters.items()})
    text = json.dumps(what, indent=2)
    head = f'{{"properties": {{"parameters": {given}, "mode": "Incremental", template:'
    return f"{head}{{ {comment}\n{text[1:]}}}}}".encode()


def path(name: str, group: str = "rg") -> str:
    return f"{S}/resourcegroups/{group}/providers/{DEPLOYMENTS}/{name}"


def deploy(arm: Arm, name: str, what: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Deploy and wait; the deployment afterwards, and under `poll` the last answer of the operation."""
    answer = arm.put(path(name, more.pop("group", "rg")), body(what, **more))
    done = arm.finished(answer)
    found: dict[str, Any] = arm.get(answer.json()["id"]).json()
    return {**found, "poll": done}


def outputs(deployment: Mapping[str, Any]) -> dict[str, Any]:
    assert deployment["properties"]["provisioningState"] == "Succeeded", deployment["poll"]
    return {name: each.get("value") for name, each in deployment["properties"]["outputs"].items()}


def make_group(arm: Arm, name: str = "rg", location: str = "westus2") -> requests.Response:
    return arm.put(f"{S}/resourcegroups/{name}", {"location": location})
