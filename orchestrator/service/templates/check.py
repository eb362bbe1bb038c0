"""A template as a client sends it, judged by the rules of `aib validate` and refused in the service's words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from orchestrator.plan.fetch import is_local, wanted_by
from orchestrator.record.arm_ids import Scope, region
from orchestrator.service.envelope import ArmError
from orchestrator.service.settings import Settings
from orchestrator.template.arm.functions_azure import Scope as DeploymentScope
from orchestrator.template.diagnostics import Diagnostic, Severity
from orchestrator.template.load import inspect_templates
from orchestrator.template.model import Template, VhdTarget
from orchestrator.template.schema.tables import RESOURCE_TYPE, is_strict, regions
from orchestrator.verbs import local_checks

REVIEW = (
    "Please review  http://aka.ms/azvmimagebuildertmplref  for details on fields requirements in the Image Builder "
    "Template."
)
READ_ONLY = ("provisioningState", "provisioningError", "lastRunStatus", "exactStagingResourceGroup", "aib")
_ENVELOPE = ("location", "tags", "identity", "properties", "dependsOn", "comments")
_SAYS = "; the service: "
_REGION = re.compile(r"[a-z0-9]{1,40}")
"""Any name that could be a region's: whether the service is there is a warning of the pre-flight (AIB013)."""
_UNKNOWN = re.compile(r'unknown field "(.*)"')
_WRITTEN = re.compile(r"(\S+) is written ")
MOST_DETAILS = 50


@dataclass(frozen=True, slots=True)
class Judged:
    """A template without errors: the whole document, and what it says. Both may hold signatures."""

    document: Mapping[str, Any]
    template: Template


def document(body: Mapping[str, Any], name: str, version: str) -> dict[str, Any]:
    """The resource that the body describes, without what only the service sets."""
    known = {key: value for key, value in body.items() if key not in ("id", "name", "type", "apiVersion", "systemData")}
    properties = known.get("properties")
    if isinstance(properties, Mapping):
        known["properties"] = {key: value for key, value in properties.items() if key not in READ_ONLY}
    return {"type": RESOURCE_TYPE, "apiVersion": version, "name": name, **known}


def judge(body: Mapping[str, Any], name: str, version: str, scope: Scope, settings: Settings) -> Judged:
    """Check what a client sent as template `name`. Raises `ArmError` 400 with everything that is wrong."""
    _check_envelope(body, name, version)
    whole = document(body, name, version)
    template = load(whole, scope, version)
    errors = [each for each in local_checks.check(template, settings.home) if each.severity is Severity.ERROR]
    errors += _reach(template, settings)
    if errors:
        raise refused(errors, version)
    return Judged(whole, template)


def load(whole: Mapping[str, Any], scope: Scope, version: str) -> Template:
    """The typed template of a document; `ArmError` 400."""
    text = json.dumps(whole, ensure_ascii=False)
    deployed_to = DeploymentScope(scope.subscription, scope.resource_group)
    loaded = inspect_templates(None, text, name=str(whole["name"]), scope=deployed_to)
    if not loaded.is_valid:
        raise refused([each for each in loaded.diagnostics if each.severity is Severity.ERROR], version)
    if len(loaded.templates) != 1:
        raise invalid("ImageTemplate", f"one resource is expected, not {len(loaded.templates)}", version)
    return loaded.templates[0]


def _check_envelope(body: Mapping[str, Any], name: str, version: str) -> None:
    if not isinstance(body.get("location"), str) or not body["location"].strip():
        raise ArmError(400, "LocationRequired", "The location property is required for this definition.")
    if not _REGION.fullmatch(region(body["location"])):
        message = (
            f"The provided location '{body['location'][:60]}' is not available for resource type '{RESOURCE_TYPE}'. "
            f"List of available regions for the resource type is '{','.join(sorted(regions()))}'."
        )
        raise ArmError(400, "LocationNotAvailableForResourceType", message)
    for key, here in (("type", RESOURCE_TYPE), ("name", name)):
        given = body.get(key)
        if given is not None and (not isinstance(given, str) or given.lower() != here.lower()):
            message = f"The {key} '{given}' in the request content is not the '{here}' of the address."
            raise ArmError(400, "InvalidRequestContent", message)
    if not isinstance(body.get("properties"), Mapping):
        raise invalid("ImageTemplate", "Missing field 'properties'", version)


def _reach(template: Template, settings: Settings) -> Iterator[Diagnostic]:
    """What a template of somebody else must not name: files of this machine, but for what the owner allowed."""
    for each in wanted_by(template):
        if is_local(each.uri) and not _allowed(each.uri, settings):
            yield _local(template, each.pointer, each.uri)
    for target in template.distribute:
        local = isinstance(target, VhdTarget) and target.uri and urlsplit(target.uri).scheme not in ("http", "https")
        if isinstance(target, VhdTarget) and local and not _allowed(target.uri, settings):
            yield _local(template, f"{target.pointer}/uri", target.uri)


def _allowed(uri: str, settings: Settings) -> bool:
    """Cheap, before anything is fetched; who opens the file looks again, with links resolved."""
    if not settings.local_roots:
        return False
    path = Path(urlsplit(uri).path if uri.lower().startswith("file:") else uri)
    whole = path if path.is_absolute() else settings.local_roots[0] / path
    return any(whole.resolve().is_relative_to(root.resolve()) for root in settings.local_roots)


def _local(template: Template, pointer: str, uri: str) -> Diagnostic:
    message = f"{uri!r} is a local path, and this server takes none from there"
    hint = "use an http(s) address, or have its owner allow the folder (aib serve --allow-local FOLDER)"
    return Diagnostic("AIB037", Severity.ERROR, message, pointer, template.positions.get(pointer, _NOWHERE), hint)


_NOWHERE = Diagnostic("", Severity.ERROR, "").position


def refused(errors: list[Diagnostic], version: str) -> ArmError:
    """400 ValidationFailed: the service tells of one error; the others are in `details`, by our rules."""
    details = [
        {
            "code": each.rule,
            "target": each.pointer or "/",
            "message": f"{each.message} ({each.hint})" if each.hint else each.message,
        }
        for each in errors[:MOST_DETAILS]
    ]
    target = owner_of(errors[0].pointer)
    return ArmError(
        400, "ValidationFailed", sentence(errors[0], version), target=target, details=details, provider_version=version
    )


def invalid(owner: str, problem: str, version: str) -> ArmError:
    """400 ValidationFailed for one problem that no rule has."""
    message = f"Validation failed: '{owner}': {problem}. {REVIEW}"
    return ArmError(400, "ValidationFailed", message, provider_version=version)


def sentence(error: Diagnostic, version: str) -> str:
    """The service's own words where they are known (2.7), else ours in its form."""
    if is_strict(version) and error.rule in ("AIB008", "AIB009"):
        found = _UNKNOWN.search(error.message) or _WRITTEN.match(error.message)
        inside = "struct field Properties: " if error.pointer.startswith("/properties") else ""
        return (
            f"Unmarshalling entity encountered error: unmarshalling type *v{version.replace('-', '_')}.ImageTemplate: "
            f'{inside}unknown field "{found[1] if found else error.message}". There is an issue with the syntax with '
            "the JSON template you are submitting."
        )
    ours, known, service = error.message.partition(_SAYS)
    said = service if known else ours
    if not said.startswith("Validation failed:"):
        said = f"Validation failed: '{owner_of(error.pointer)}': {said}."
    return said if REVIEW in said else f"{said} {REVIEW}"


def owner_of(pointer: str) -> str:
    """`/properties/customize/0/inline` is `ImageTemplate.properties.customize[0].inline`."""
    parts = (part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:])
    return "ImageTemplate" + "".join(f"[{part}]" if part.isdecimal() else f".{part}" for part in parts)


def same(first: Template, second: Template) -> bool:
    """Whether two templates ask for the same, however they were written."""

    def bare(template: Template) -> Template:
        return replace(template, raw={}, positions={}, api_version="", not_emulated=())

    return bare(first) == bare(second)
