"""PATCH of a template: tags and identity; later also its distributors and the profile of its build VM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from orchestrator.record import arm_ids
from orchestrator.record.resources import Resource
from orchestrator.record.run_outputs import submission, without_signatures
from orchestrator.service.context import Context
from orchestrator.service.envelope import ArmError
from orchestrator.service.runs.runs import refuse_unless_idle
from orchestrator.service.templates import check, documents, versions
from orchestrator.service.templates.submit import conflict
from orchestrator.template.schema.tables import older


def change(context: Context, template: Resource, body: Mapping[str, Any], version: str, by: str) -> Resource:
    """The changed template, which is in the store. Raises `ArmError`: 400 as a PUT does, 409 for what cannot change."""
    refuse_unless_idle(template, "write", version)
    if not submission(template):
        raise conflict(version)  # recorded by the command line: there is nothing that a run would be made from
    asked = _asked(body, version)
    home = context.store.home
    whole = documents.document_of(home, template)
    whole |= {key: asked[key] for key in ("tags", "identity") if key in asked}
    whole["properties"] = {**whole["properties"], **_properties(whole["properties"], asked, version)}
    scope = arm_ids.parse(template.id).scope
    # Judged by the newer of the two versions: what this one brings may be unknown to the one of the submission.
    before = str(submission(template)["apiVersion"])
    judged_by = before if older(version, before) else version
    judged = check.judge(whole, template.name, judged_by, scope, context.settings)
    clean, key = without_signatures(judged.document), documents.keep(home, judged.document)
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def changed(existing: Resource) -> Resource:
        refuse_unless_idle(existing, "write", version)
        extra = {key: value for key, value in existing.extra.items() if key != "identity"}
        extra |= {"identity": clean["identity"]} if clean.get("identity") else {}
        system = {"lastModifiedBy": by, "lastModifiedByType": "Application", "lastModifiedAt": now}
        extra["systemData"] = {**extra.get("systemData", {}), **system}
        aib = existing.properties.get("aib") or {}
        kept = {**aib, "submission": {**submission(existing), "apiVersion": judged_by, "document": key}}
        properties = {**existing.properties, **clean["properties"], "aib": kept}
        return replace(existing, tags=dict(clean.get("tags") or {}), properties=properties, extra=extra)

    try:
        done = context.store.update(template.id, changed)
    except BaseException:
        documents.forget(home, key)
        raise
    documents.forget(home, documents.key_of(template))
    return done


def _asked(body: Mapping[str, Any], version: str) -> Mapping[str, Any]:
    """The body, all of whose members can be changed by this api-version; E6 for the others."""
    if any(key not in ("tags", "identity", "properties") for key in body):
        raise conflict(version)
    properties = body.get("properties") or {}
    if not isinstance(properties, Mapping):
        raise check.invalid("ImageTemplate", "Field 'properties' has a bad value", version)
    for key in properties:
        since = {"distribute": versions.PATCH_DISTRIBUTE, "vmProfile": versions.PATCH_VM_PROFILE}.get(key)
        if since is None or older(version, since):
            raise conflict(version)
    return body


def _properties(before: Mapping[str, Any], asked: Mapping[str, Any], version: str) -> dict[str, Any]:
    given = asked.get("properties") or {}
    made: dict[str, Any] = {}
    if isinstance(given.get("vmProfile"), Mapping):
        made["vmProfile"] = {**(before.get("vmProfile") or {}), **given["vmProfile"]}
    elif "vmProfile" in given:
        made["vmProfile"] = given["vmProfile"]
    if "distribute" in given:
        made["distribute"] = given["distribute"]
        _check_none_is_lost(before.get("distribute") or (), given["distribute"], version)
    return made


def _check_none_is_lost(before: Any, after: Any, version: str) -> None:
    """E7: a distributor can be changed or added, not removed."""
    names = [each.get("runOutputName") for each in before if isinstance(each, Mapping)]
    kept = {each.get("runOutputName") for each in after if isinstance(each, Mapping)} if isinstance(after, list) else ()
    for name in names:
        if name not in kept:
            message = (
                f"Validation failed: Distribute target with Runoutput name {name} not found in the update request. "
                "Deleting a distribution target is not allowed."
            )
            raise ArmError(400, "ValidationFailed", message, provider_version=version)
