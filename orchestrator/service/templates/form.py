"""A stored template as the service shows it, for one api-version; and back: the document that a run works with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.record import arm_ids
from orchestrator.record.resources import Resource
from orchestrator.record.run_outputs import ours, submission
from orchestrator.service.templates import versions
from orchestrator.service.templates.check import document
from orchestrator.template.schema.tables import older

ACTIVE = ("Running", "Canceling")
_POWERSHELL_DEFAULTS = {"runElevated": False}


def template_form(resource: Resource, version: str) -> dict[str, Any]:
    """The resource for a client. Defaults that the service adds are echoed (SWG's examples: of PowerShell)."""
    properties = {key: value for key, value in resource.properties.items() if key not in ("aib", "lastRunStatus")}
    properties["customize"] = [_echoed(each, version) for each in properties.get("customize") or ()]
    if not properties["customize"]:
        del properties["customize"]
    status = run_status(resource, version)
    if status:
        properties["lastRunStatus"] = status
    form: dict[str, Any] = {
        "id": resource.id,
        "name": resource.name,
        "type": arm_ids.TEMPLATE,
        "location": resource.location,
        "tags": dict(resource.tags),
    }
    if "identity" in resource.extra:
        form["identity"] = resource.extra["identity"]
    if "systemData" in resource.extra and not older(version, versions.SYSTEM_DATA):
        form["systemData"] = resource.extra["systemData"]
    return {**form, "properties": properties}


def _echoed(step: Any, version: str) -> Any:
    if not isinstance(step, Mapping) or str(step.get("type", "")).lower() != "powershell":
        return step
    system = {} if older(version, versions.SYSTEM_DATA) else {"runAsSystem": False}
    return {**step, **{key: value for key, value in {**_POWERSHELL_DEFAULTS, **system}.items() if key not in step}}


def run_status(resource: Resource, version: str = "") -> dict[str, Any]:
    """`lastRunStatus`, empty before the first run; a run that was asked to stop is Canceling until it has ended.

    `runSubState` is left out once it has ended (a choice: what the service does is not known).
    """
    stored: Mapping[str, Any] = resource.properties.get("lastRunStatus") or {}
    if not stored:
        return {}
    status = {key: value for key, value in stored.items() if value is not None}
    if status.get("runState") == "Running" and ours(resource).get("canceling") == ours(resource).get("run", ""):
        status["runState"] = "Canceling"
    if status.get("runState") not in ACTIVE:
        status.pop("runSubState", None)
    if version and older(version, versions.RUN_STATUS_WORDS):
        for key in ("runState", "runSubState"):
            if key in status:
                status[key] = str(status[key]).lower()
    return status


def run_state(resource: Resource) -> str:
    """The state of the last run in lower case, as the service's refusals name it; `ready` before the first one."""
    return str(run_status(resource).get("runState", "ready")).lower()


def provisioning_state(resource: Resource) -> str:
    """As the service's refusals name it: `provisioned` for Succeeded."""
    state = str(resource.properties.get("provisioningState", "Succeeded"))
    return "provisioned" if state == "Succeeded" else state.lower()


def shown_document(resource: Resource) -> dict[str, Any]:
    """The document of a submitted template as its resource shows it, without signatures (see `documents`)."""
    version = str(submission(resource).get("apiVersion", ""))
    body = {"location": resource.location, "tags": dict(resource.tags), "properties": dict(resource.properties)}
    if "identity" in resource.extra:
        body["identity"] = resource.extra["identity"]
    return document(body, resource.name, version)
