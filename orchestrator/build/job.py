"""What the supervisor hands to a worker: one JSON line on its standard input, never a file (it may hold SAS tokens)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.build.options import BuildOptions


@dataclass(frozen=True, slots=True)
class Job:
    """One run to be executed: the store's home, the run's id, the template as the user gave it, and the options.

    `attached`: the run belongs to the command that started it and ends with it. `payloads`: the sha256 of each script
    and file by its pointer in the template, when they were fetched before (None: the run fetches them).
    """

    home: Path
    run_id: str
    template_file: Path
    template_text: str
    options: BuildOptions
    attached: bool = True
    payloads: Mapping[str, str] | None = field(default=None)

    def to_line(self) -> bytes:
        """One line of JSON."""
        data: dict[str, Any] = {
            "home": str(self.home),
            "run_id": self.run_id,
            "template_file": str(self.template_file),
            "template_text": self.template_text,
            "options": self.options.to_json(),
            "attached": self.attached,
            "payloads": None if self.payloads is None else dict(self.payloads),
        }
        return json.dumps(data).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Job:
        """The job that `to_line` wrote; raises ValueError or KeyError on anything else."""
        data = json.loads(line)
        return cls(
            home=Path(data["home"]),
            run_id=data["run_id"],
            template_file=Path(data["template_file"]),
            template_text=data["template_text"],
            options=BuildOptions.from_json(data["options"]),
            attached=data["attached"],
            payloads=data.get("payloads"),
        )
