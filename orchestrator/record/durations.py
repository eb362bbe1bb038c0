"""How long things took in earlier runs: a fold over the records of the store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from hypervisor.errors import HostError
from orchestrator.record.files import read_json
from orchestrator.record.store import Store

NEWEST = 200
"""How many runs are looked at: older ones say little of today's host, and planning must stay quick."""
AFTER_STEPS = frozenset({"PoweringOff", "Inspecting", "Exporting", "Distributing"})


@dataclass(frozen=True, slots=True)
class Known:
    """The median of `runs` durations, in seconds."""

    seconds: float
    runs: int


@dataclass(slots=True)
class Durations:
    """Seconds, by what they were measured of."""

    by_digest: dict[str, list[float]] = field(default_factory=dict)
    by_name: dict[tuple[str, str, str], list[float]] = field(default_factory=dict)
    boots: dict[str, list[float]] = field(default_factory=dict)
    rest: dict[str, list[float]] = field(default_factory=dict)

    def add(self, record: Mapping[str, Any]) -> None:
        """Take one record.json into account; what is not there, or did not succeed, says nothing."""
        template = str(_part(record, "template").get("name", "")).lower()
        source = str(_part(record, "source").get("sha256", ""))
        boot = record.get("bootSeconds")
        if source and isinstance(boot, int | float):
            self.boots.setdefault(source, []).append(float(boot))
        for step in _parts(record, "steps"):
            seconds = step.get("seconds")
            if step.get("result") != "succeeded" or not isinstance(seconds, int | float):
                continue
            if step.get("digest"):
                self.by_digest.setdefault(str(step["digest"]), []).append(float(seconds))
            name = (template, str(step.get("kind", "")), str(step.get("name", "")))
            self.by_name.setdefault(name, []).append(float(seconds))
        if _part(record, "lastRunStatus").get("runState") == "Succeeded":
            after = sum(float(p.get("seconds", 0.0)) for p in _parts(record, "phases") if p.get("name") in AFTER_STEPS)
            self.rest.setdefault(template, []).append(after)

    def step(self, template: str, kind: str, name: str, digest: str) -> tuple[Known, str] | None:
        """Of the step with this digest, else of the one with this name; and which of the two it is."""
        if same := self.by_digest.get(digest):
            return _known(same), "digest"
        if named := self.by_name.get((template.lower(), kind, name)):
            return _known(named), "name"
        return None

    def boot(self, source: str) -> Known | None:
        """Of booting this source image (its sha256) until it was connected."""
        return _known(self.boots[source]) if source in self.boots else None

    def after_steps(self, template: str) -> Known | None:
        """Of everything after the last step: power-off, proof, export, distribution."""
        found = self.rest.get(template.lower())
        return _known(found) if found else None


def of_records(records: Iterable[Mapping[str, Any]]) -> Durations:
    """The durations in `records`."""
    durations = Durations()
    for record in records:
        durations.add(record)
    return durations


def of_store(store: Store) -> Durations:
    """The durations of the newest runs; a record that cannot be read is passed over."""
    return of_records(record for folder in store.runs()[-NEWEST:] if (record := _read(folder.record)) is not None)


def _read(path: Path) -> Mapping[str, Any] | None:
    try:
        record = read_json(path)
    except HostError:
        return None
    return record if isinstance(record, Mapping) else None


def _known(seconds: list[float]) -> Known:
    return Known(round(median(seconds), 3), len(seconds))


def _part(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = record.get(name)
    return part if isinstance(part, Mapping) else {}


def _parts(record: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    parts = record.get(name)
    return [part for part in parts if isinstance(part, Mapping)] if isinstance(parts, list) else []
