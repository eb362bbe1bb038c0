"""Keeps `lastRunStatus` of the template's resource moving while its run goes on, as the service does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.plan.model import RunPlan
from orchestrator.record.events import Phase, RunFinished, Stamped
from orchestrator.record.record import RecordWriter
from orchestrator.record.run_outputs import record_template, set_last_run_status
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
        set_last_run_status(self.store, self.template_id, self.writer.record.last_run_status())
