"""A plan as the document that `aib plan --json` prints: stable, and described by plan.schema.json.

The same inputs, catalogue, galleries and host size give the same document; what differs from run to run stands in its
`varies` alone, which `forecast` makes. Signatures of SAS tokens are not written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from orchestrator import fidelity
from orchestrator.plan.model import PlannedDistribution, RunPlan, Step
from orchestrator.plan.plan_json import plain
from orchestrator.plan.remote import SCRIPT_NAME, WINDOWS_NAME, System, command_of, script_of
from orchestrator.template.model import SharedImageTarget, VhdTarget
from provisioners.windows_powershell import Paths

KIND, VERSION = "RunPlan", 1
Document = dict[str, Any]


def plan_document(plan: RunPlan) -> Document:
    """The plan without `varies`. Reads the stored scripts, to say what is sent."""
    document = {
        "kind": KIND,
        "version": VERSION,
        "template": {
            "id": plan.template_id,
            "name": plan.template_name,
            "apiVersion": plan.api_version,
            "location": plan.location,
            "tags": dict(plan.tags),
        },
        "source": _source(plan),
        "machine": _machine(plan),
        "budgetSeconds": plan.budget,
        "errorHandling": {"onCustomizerError": plan.on_customizer_error, "onValidationError": plan.on_validation_error},
        "sourceValidationOnly": plan.source_validation_only,
        "continueDistributeOnFailure": plan.continue_distribute_on_failure,
        "steps": [_step(step, plan) for step in plan.steps],
        "downloads": _downloads(plan),
        "distribute": [_distribution(each) for each in plan.distributions],
        "warnings": list(plan.warnings),
        "deviations": [_deviation(code, text) for code, text in plan.deviations if code != "not-emulated"],
        "notEmulated": [text for code, text in plan.deviations if code == "not-emulated"],
    }
    cleaned = plain(document)
    assert isinstance(cleaned, dict)
    return cleaned


def is_document(data: object) -> bool:
    """Whether JSON data is such a document (of whatever version)."""
    return isinstance(data, Mapping) and data.get("kind") == KIND


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of the document."""
    text = files("orchestrator.plan").joinpath("plan.schema.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def _source(plan: RunPlan) -> Document:
    source = plan.source
    return {
        "kind": source.kind,
        "requested": source.requested,
        "resourceId": source.resource_id,
        "version": source.version,
        "sha256": source.digest or None,
        "stored": bool(source.digest),
        "virtualSize": source.virtual_size or None,
        "os": source.os,
        "generation": source.generation,
    }


def _machine(plan: RunPlan) -> Document:
    machine = plan.machine
    return {
        "vmSize": machine.vm_size,
        "asked": {"vcpus": machine.asked_vcpus, "memoryMiB": machine.asked_memory_mib},
        "given": {"vcpus": machine.vcpus, "memoryMiB": machine.memory_mib},
        "osDiskSize": machine.os_disk_bytes or None,
        "firmware": machine.firmware,
        "network": machine.network,
        "gpu": machine.gpu,
    }


def _step(step: Step, plan: RunPlan) -> Document:
    script = script_of(step, plan.source.os)
    settings = {key: value for key, value in step.settings.items() if key != "script"}
    return {
        "index": step.index,
        "name": step.name,
        "phase": step.phase,
        "kind": step.kind,
        "pointer": step.pointer,
        "digest": step.digest,
        "settings": settings,
        "download": step.payload.uri if step.payload else None,
        "script": {
            "sha256": script.sha256,
            "size": len(script.content),
            "firstLine": script.first_line,
            "lineEndsConverted": script.converted,
        }
        if script
        else None,
        "command": command_of(step, plan.source.os),
    }


def _downloads(plan: RunPlan) -> list[Document]:
    found: dict[tuple[str, str], Document] = {}
    for step in plan.steps:
        if step.payload is not None:
            payload = step.payload
            entry = found.setdefault(
                (payload.uri, payload.sha256),
                {"uri": payload.uri, "sha256": payload.sha256, "size": payload.size, "steps": []},
            )
            entry["steps"].append(step.index)
    return list(found.values())


def _distribution(planned: PlannedDistribution) -> Document:
    target = planned.target
    entry: Document = {
        "type": type(target).__name__.removesuffix("Target"),
        "runOutputName": target.run_output_name,
        "artifactId": planned.artifact_id,
        "version": planned.version or None,
        "versioning": None,
        "regions": [],
        "artifactTags": dict(target.artifact_tags),
    }
    if isinstance(target, VhdTarget):
        return {**entry, "type": "VHD"}
    if isinstance(target, SharedImageTarget):
        rule = target.versioning.scheme if target.versioning else "time"
        return {
            **entry,
            "versioning": "explicit" if planned.version else rule,
            "regions": [region.name for region in target.regions],
        }
    return {**entry, "regions": [target.location] if target.location else []}


def _deviation(code: str, text: str) -> Document:
    row = fidelity.behaviour(code)
    return {"code": code, "grade": row.grade if row else "unknown", "message": text}


def script_names(os: System) -> str:
    """What `varies` says of the scripts' names."""
    if os == "windows":
        return f"{Paths.of(WINDOWS_NAME).script}: {WINDOWS_NAME} is a UUID, drawn for each script"
    return f"{SCRIPT_NAME}.sh: N is drawn for each script, 0 to 9998"
