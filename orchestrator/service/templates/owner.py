"""Image templates for those who reach them in another way: deployments and the deletion of groups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.record.arm_ids import Scope
from orchestrator.record.resources import Resource
from orchestrator.service.context import Context
from orchestrator.service.envelope import ArmError
from orchestrator.service.resources.targets import Target
from orchestrator.service.templates import check, submit, versions
from orchestrator.service.templates.form import template_form
from orchestrator.template.schema.tables import tables

CALLER = "deployment"


class Templates:
    """The owner of imageTemplates (`resources.owners`)."""

    def check(self, context: Context, target: Target, body: Mapping[str, Any], api_version: str) -> None:
        """The rules of the pre-flight, as for a PUT."""
        version = versions.check(api_version, location=str(body.get("location", "")))
        check.judge(body, target.name, version, _scope(target), context.settings)

    def put(self, context: Context, target: Target, body: Mapping[str, Any], api_version: str) -> None:
        """Submit the template and wait until it is provisioned."""
        version = versions.check(api_version, location=str(body.get("location", "")))
        asked = submit.Request(context, _scope(target), target.name, version, CALLER)
        done = submit.put(asked, body)
        if done.operation is None:
            return
        ended = context.operations.wait(done.operation)
        if ended.status != "Succeeded":
            error = ended.error or {}
            raise ArmError(
                400,
                "ResourceOperationFailure",
                "The resource operation completed with terminal provisioning state 'Failed'.",
                details=[error] if error else [],
            )

    def delete(self, context: Context, resource: Resource) -> None:
        """Remove the template with its runOutputs."""
        submit.remove(context, resource, tables().versions[-1])

    def shown(self, context: Context, resource: Resource, origin: str) -> dict[str, Any]:
        """The template as its GET shows it, by the newest api-version."""
        return template_form(context.runs.fresh(resource), tables().versions[-1])


def _scope(target: Target) -> Scope:
    return Scope(target.subscription, target.group)
