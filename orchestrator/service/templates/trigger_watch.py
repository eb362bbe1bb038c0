"""When triggers run their templates: as soon as the store has a newer version of a template's source.

A version is there when it was imported, pulled or built. Whoever brings it in, a running server notices within
`Settings.trigger_seconds`; one that was not running, when it starts. Each version is run once.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from hypervisor.errors import AibError, InputError
from orchestrator.plan.platform_images import Urn, stored_versions
from orchestrator.record import arm_ids, galleries
from orchestrator.record.resources import Resource
from orchestrator.record.run_outputs import ours, submission
from orchestrator.record.store import Store
from orchestrator.service.context import Context
from orchestrator.service.envelope import ArmError
from orchestrator.service.faults import report_fault
from orchestrator.service.templates import check, documents
from orchestrator.service.templates.form import ACTIVE, run_status
from orchestrator.template.model import PlatformImage, SharedImageVersion, Template

TRIGGER = "Microsoft.VirtualMachineImages/imageTemplates/triggers"
MOST_FAILURES = 3
"""So many runs in a row may fail before a trigger is switched off; the service's own number is not known."""
BY = "trigger"


def newest(store: Store, template: Template) -> str:
    """The newest version of the template's source in the store; "" when there is none."""
    source = template.source
    if isinstance(source, PlatformImage):
        found = stored_versions(store, Urn(source.publisher, source.offer, source.sku))
        return found[-1].name if found else ""
    if not isinstance(source, SharedImageVersion):
        return ""
    definition = arm_ids.parse_image_version(source.image_version_id).parent
    there = [
        each
        for each in galleries.versions(store, definition)
        if each.digest and not (each.properties.get("publishingProfile") or {}).get("excludeFromLatest")
    ]
    return there[-1].name if there else ""


def typed(store: Store, template: Resource) -> Template:
    """What a submitted template says; `ArmError` 409 for one that never was."""
    if not submission(template):
        raise ArmError(409, "OperationNotAllowed", "A template that was never submitted cannot have a trigger.")
    scope = arm_ids.parse(template.id).scope
    document = documents.document_of(store.home, template)
    return check.load(document, scope, str(submission(template)["apiVersion"]))


def watch(context: Context) -> None:
    """Look at once, and then again and again in a thread until the server ends."""

    def look_until_stopped() -> None:
        while True:
            try:
                pull(context)
            except Exception as error:  # noqa: BLE001 -- one trigger that cannot be judged must not end the others
                report_fault(context.settings.home, error)
            if context.runs.closing.wait(context.settings.trigger_seconds):
                return

    threading.Thread(target=look_until_stopped, name="triggers", daemon=True).start()


def pull(context: Context) -> list[str]:
    """Run the templates whose source has a newer version than their trigger has seen; returns the triggers' ids."""
    return [trigger.id for trigger in context.store.list(TRIGGER) if _pull_one(context, trigger)]


def _pull_one(context: Context, trigger: Resource) -> bool:
    known = ours(trigger)
    template = context.store.get(trigger.id.rpartition("/triggers/")[0])
    if template is None or known.get("off") or not submission(template):
        return False
    latest = newest(context.store, typed(context.store, template))
    if latest in ("", known.get("seen")):
        return False
    template = context.runs.fresh(template)
    status = run_status(template)
    if status.get("runState") in ACTIVE:
        return False  # its turn comes after this run
    failed = known.get("run") == ours(template).get("run") and status.get("runState") == "Failed"
    failures = int(known.get("failures", 0)) + 1 if failed else 0
    if not _claim(context.store, trigger, latest, failures) or failures >= MOST_FAILURES:
        return False
    try:
        operation = context.runs.start(template, str(submission(template)["apiVersion"]), BY)
    except (ArmError, AibError) as error:
        _note(context.store, trigger.id, {}, status_of("Failed", error.message))
        return False
    _note(context.store, trigger.id, {"run": operation.run}, status_of("Healthy"))
    return True


def _claim(store: Store, trigger: Resource, latest: str, failures: int) -> bool:
    """Whether this version is ours to run: whoever notes it first."""
    mine = False

    def change(existing: Resource) -> Resource:
        nonlocal mine
        mine = ours(existing).get("seen") != latest
        aib = {**ours(existing), "seen": latest, "failures": failures}
        status = existing.properties["status"]
        if failures >= MOST_FAILURES:
            aib["off"] = True
            status = status_of("Disabled", f"{failures} runs in a row failed. Create the trigger anew.")
        return replace(existing, properties={**existing.properties, "aib": aib, "status": status})

    try:
        store.update(trigger.id, change)
    except InputError:
        return False  # it was deleted meanwhile
    return mine


def _note(store: Store, trigger_id: str, more: Mapping[str, Any], status: Mapping[str, str]) -> None:
    def change(existing: Resource) -> Resource:
        properties = {**existing.properties, "status": dict(status), "aib": {**ours(existing), **more}}
        return replace(existing, properties=properties)

    try:
        store.update(trigger_id, change)
    except InputError:
        pass  # it was deleted meanwhile


def status_of(code: str, message: str = "") -> dict[str, str]:
    """The words of `code` are not documented but for Healthy."""
    return {"code": code, "message": message, "time": datetime.now(UTC).isoformat(timespec="seconds")}
