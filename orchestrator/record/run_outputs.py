"""runOutputs and the template itself as resources: what can be asked about after a run (S28, S29)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from orchestrator.record import arm_ids
from orchestrator.record.redact import Redactor
from orchestrator.record.resources import Resource
from orchestrator.record.store import Store

State = Literal["Succeeded", "Failed", "Canceled"]


@dataclass(frozen=True, slots=True)
class RunOutput:
    """How one distributor ended. `kind` is its type; a VHD has an `artifact_uri`, the others an `artifact_id`."""

    name: str
    kind: str
    state: State
    artifact_id: str = ""
    artifact_uri: str = ""
    message: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)

    def to_resource(self, template_id: str) -> Resource:
        """The resource under the template; the service's runOutputs carry no location and no tags (S29)."""
        properties = {"artifactId": self.artifact_id, "artifactUri": self.artifact_uri, "provisioningState": self.state}
        return Resource(
            arm_ids.run_output_id(template_id, self.name),
            arm_ids.RUN_OUTPUT,
            self.name,
            properties={key: value for key, value in properties.items() if value},
        )


def rest_form(resource: Resource) -> dict[str, Any]:
    """A runOutput as the service's REST interface shows it."""
    properties = dict(resource.properties)
    return {"id": resource.id, "name": resource.name, "type": resource.type, "properties": properties}


def az_form(resource: Resource) -> dict[str, Any]:
    """A runOutput as `az resource show` prints it (S29): every ARM field, null where the service gives none."""
    nothing = dict.fromkeys(("identity", "kind", "location", "managedBy", "plan", "sku", "tags"))
    group = {"resourceGroup": arm_ids.parse(resource.id).scope.resource_group}
    return dict(sorted({**rest_form(resource), **nothing, **group}.items()))


def run_outputs(store: Store, template_id: str) -> list[Resource]:
    """The runOutputs of a template, by name."""
    return store.list(arm_ids.RUN_OUTPUT, under=template_id)


def record_template(
    store: Store, template_id: str, *, location: str, tags: Mapping[str, str], properties: Mapping[str, Any]
) -> Resource:
    """Record the template as a resource, without the signatures of its URLs; its last run's status stays.

    One that was submitted stays as it was submitted.
    """
    clean: dict[str, Any] = without_signatures(dict(properties))

    def change(existing: Resource | None) -> Resource:
        if existing is not None and submission(existing):
            return existing
        before = existing.properties if existing else {}
        kept = {"provisioningState": "Succeeded", **{k: before[k] for k in ("lastRunStatus", "aib") if before.get(k)}}
        name = arm_ids.parse(template_id).name
        return Resource(template_id, arm_ids.TEMPLATE, name, location, dict(tags), {**clean, **kept})

    return store.upsert(template_id, change)


def ensure_template(store: Store, template_id: str, *, location: str, tags: Mapping[str, str]) -> Resource:
    """The template's resource, made without properties when nobody has recorded the template."""

    def change(existing: Resource | None) -> Resource:
        name = arm_ids.parse(template_id).name
        properties = {"provisioningState": "Succeeded"}
        return existing or Resource(template_id, arm_ids.TEMPLATE, name, location, dict(tags), properties)

    return store.upsert(template_id, change)


def submission(template: Resource) -> Mapping[str, Any]:
    """What is kept of a template's submission (`properties.aib.submission`); empty when a run recorded it itself."""
    return ours(template).get("submission") or {}


def ours(template: Resource) -> Mapping[str, Any]:
    """`properties.aib` of a template: what only aib needs to know. `run` is the id of its last run."""
    aib = template.properties.get("aib")
    return aib if isinstance(aib, Mapping) else {}


def set_last_run_status(store: Store, template_id: str, status: Mapping[str, Any], run_id: str = "") -> Resource:
    """Put the service's `lastRunStatus` {startTime, endTime, runState, runSubState, message} on the template.

    `run_id` notes which run that is.
    """

    def change(existing: Resource | None) -> Resource:
        template = existing or Resource(template_id, arm_ids.TEMPLATE, arm_ids.parse(template_id).name)
        aib = {"aib": {**ours(template), "run": run_id}} if run_id else {}
        return replace(template, properties={**template.properties, "lastRunStatus": dict(status), **aib})

    return store.upsert(template_id, change)


def without_signatures(value: Any) -> Any:
    """A tree of JSON values whose strings hold no signature of a SAS."""
    redactor = Redactor()

    def clean(item: Any) -> Any:
        if isinstance(item, str):
            return redactor.text(item)
        if isinstance(item, Mapping):
            return {key: clean(member) for key, member in item.items()}
        if isinstance(item, list | tuple):
            return [clean(each) for each in item]
        return item

    return clean(value)
