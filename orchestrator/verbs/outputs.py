"""The runOutputs of a template, as the service shows them (S29)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypervisor.errors import InputError, UsageError
from orchestrator.record import arm_ids
from orchestrator.record.arm_ids import InvalidResourceId
from orchestrator.record.resources import Resource
from orchestrator.record.run_outputs import rest_form, run_outputs
from orchestrator.record.store import Store
from orchestrator.template.load import inspect_templates

Form = Callable[[Resource], dict[str, Any]]


def outputs(store: Store, template: str, form: Form = rest_form) -> list[dict[str, Any]]:
    """All runOutputs of a template, by name. Raises `InputError` when no such template was built."""
    return [form(resource) for resource in run_outputs(store, find_template(store, template).id)]


def output(store: Store, template: str, name: str, form: Form = rest_form) -> dict[str, Any]:
    """One runOutput; `InputError` when it is not there."""
    found = find_template(store, template)
    resource = store.get(arm_ids.run_output_id(found.id, name))
    if resource is None:
        names = ", ".join(known.name for known in run_outputs(store, found.id)) or "none"
        raise InputError(f"the template {found.name} has no runOutput {name}", hint=f"it has: {names}")
    return form(resource)


def find_template(store: Store, given: str) -> Resource:
    """The template that was built under this resource id, template file or name.

    Raises `InputError` when there is none, `UsageError` when several have the name.
    """
    if "/providers/" in given.lower():
        try:
            wanted = str(arm_ids.parse_as(given, arm_ids.TEMPLATE))
        except InvalidResourceId as error:
            raise UsageError(str(error)) from error
        found = [resource for resource in [store.get(wanted)] if resource is not None]
    else:
        names = _names(given)
        found = [known for known in store.list(arm_ids.TEMPLATE) if known.name.lower() in names]
    if not found:
        known = ", ".join(resource.name for resource in store.list(arm_ids.TEMPLATE)) or "none"
        raise InputError(f"no template {given} was built here", hint=f"templates that were: {known}")
    if len(found) > 1:
        ids = "".join(f"\n  {resource.id}" for resource in found)
        raise UsageError(f"several templates answer to {given}", hint=f"give the id of one:{ids}")
    return found[0]


def _names(given: str) -> set[str]:
    """The names that a file's templates have, or the name itself."""
    if Path(given).suffix.lower() not in {".json", ".jsonc"} or not Path(given).is_file():
        return {given.lower()}
    loaded = inspect_templates(Path(given))
    return {template.name.lower() for template in loaded.templates} or {Path(given).stem.lower()}
