"""Keeps `lastRunStatus` of the template's resource moving while its run goes on, as the service does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.plan.model import RunPlan
from orchestrator.record import files
from orchestrator.record.events import Phase, RunFinished, Stamped
from orchestrator.record.record import RecordWriter, load
from orchestrator.record.run_outputs import ours, record_template, set_last_run_status
from orchestrator.record.runs import RunFolder
from orchestrator.record.store import Store


@dataclass(frozen=True, slots=True)
class TemplateStatus:
    """A journal's subscriber; `writer` must have been subscribed before it."""

    store: Store
    template_id: str
    writer: RecordWriter

    @classmethod
    def begun(cls, store: Store, plan: RunPlan, raw: Mapping[str, Any], writer: RecordWriter) -> TemplateStatus:
        """Record the template of a run that is about to start, and its status so far."""
        properties = raw.get("properties", {})
        record_template(store, plan.template_id, location=plan.location, tags=plan.tags, properties=properties)
        status = cls(store, plan.template_id, writer)
        status.write()
        return status

    def __call__(self, stamped: Stamped) -> None:
        """Follow the run's state."""
        if isinstance(stamped.event, Phase | RunFinished):
            self.write()

    def write(self) -> None:
        """Put the record's lastRunStatus on the template."""
        set_last_run_status(self.store, self.template_id, self.writer.record.last_run_status(), self.writer.folder.name)


def settle(store: Store, folder: RunFolder, template_id: str = "") -> None:
    """Say on the template how its run ended, when the run did not live to say it itself.

    For whoever knows that the run has ended, and perhaps the template. One that has had another run since stays as it
    is.
    """
    record = load(folder.path)
    template_id = template_id or template_of(folder) or (record.started.template_id if record.started else "")
    template = store.get(template_id) if template_id else None
    if template is None or record.finished is None or ours(template).get("run") != folder.id:
        return
    if template.properties.get("lastRunStatus") != record.last_run_status():
        set_last_run_status(store, template_id, record.last_run_status(), folder.id)


def template_of(folder: RunFolder) -> str:
    """The id of the template that a submitted run is of; "" for a run that nobody submitted."""
    return str((files.read_json(folder.submission) or {}).get("template", ""))
