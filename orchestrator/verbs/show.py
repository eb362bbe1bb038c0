"""One run in full: its record, as JSON or as lines for people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from orchestrator.record.record import RunRecord, load
from orchestrator.record.runs import RunFolder
from orchestrator.record.store import Store
from orchestrator.verbs.runs import ABANDONED, find_run
from orchestrator.views.failure import explain
from orchestrator.views.summary import headline, summary
from orchestrator.views.text import duration, safe


@dataclass(frozen=True, slots=True)
class Shown:
    """A run, folded from its events."""

    folder: RunFolder
    record: RunRecord
    alive: bool

    @property
    def abandoned(self) -> bool:
        """Whether it has no last word and nobody who could still write one."""
        return self.record.finished is None and not self.alive

    def to_json(self) -> dict[str, Any]:
        """The record, and where the run's files are."""
        return {**self.record.to_json(), "runId": self.folder.id, "folder": str(self.folder.path), "alive": self.alive}

    def lines(self) -> list[str]:
        """The record for people."""
        return [*self._head(), *self._failures(), *summary(self.record, self.folder.path), *self._details()]

    def _head(self) -> list[str]:
        started = self.record.started
        lines = [f"Run {self.folder.id}"]
        if self.abandoned:
            lines.append(f"{ABANDONED}: it was {self.record.sub_state} when its process died")
        else:
            lines.append(headline(self.record))
        finished = self.record.finished
        if finished:
            said = (*finished.message.splitlines(), *finished.hint.splitlines())
            lines += [f"  {safe(line)}" for line in said]
        lines.append(f"Began {self.record.start_time or self.folder.created}")
        if started:
            lines.append(f"Template: {safe(started.template_name)}  {safe(started.template_id)}  {started.api_version}")
            lines.append(f"Source image: {safe(started.source)}, version {started.source_version}")
            asked = f", asked for {started.asked_vcpus} vCPU and {started.asked_memory_mib} MiB"
            differs = started.asked_vcpus and (started.asked_vcpus, started.asked_memory_mib) != (
                started.vcpus,
                started.memory_mib,
            )
            given = f"{started.vcpus} vCPU, {started.memory_mib} MiB"
            lines.append(f"Build VM: {started.vm_size}, given {given}{asked if differs else ''}")
        if self.record.connected:
            lines.append(f"Boot: {duration(self.record.connected.seconds)} until it answered")
        return lines

    def _failures(self) -> list[str]:
        lines: list[str] = []
        for _, step in sorted(self.record.steps.items()):
            if step.result == "failed":
                lines += ["", *explain(step, len(self.record.steps), self.folder.path)]
        return lines

    def _details(self) -> list[str]:
        deviations = [f"  {code}: {safe(message)}" for code, message in self.record.deviations]
        warnings = [f"  {safe(warning)}" for warning in self.record.warnings]
        lines = ["", "Deviations from the service:", *deviations] if deviations else []
        return [*lines, "", "Warnings:", *warnings] if warnings else lines


def show(store: Store, name: str) -> Shown:
    """The run that `name` means. Raises `UsageError` when there is none."""
    folder = find_run(store, name)
    alive = folder.alive()
    return Shown(folder, load(folder.path), alive)
