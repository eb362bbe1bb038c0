"""What `aib plan` shows: the document of a template's plan, and the difference of two plans."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hypervisor.deadline import Deadline
from hypervisor.errors import InputError, UsageError
from orchestrator.build.options import BuildOptions
from orchestrator.plan import plan_diff
from orchestrator.plan.document import VERSION, Document, is_document, plan_document
from orchestrator.plan.forecast import varies
from orchestrator.plan.model import RunPlan
from orchestrator.plan.plan_diff import PlanDiff
from orchestrator.plan.plan_json import from_json
from orchestrator.record import durations
from orchestrator.record.files import read_json
from orchestrator.record.store import Store
from orchestrator.template.regular_file import read_regular
from orchestrator.verbs.build import STANDARD_INPUT, Checked, check
from orchestrator.verbs.plan import plan
from orchestrator.verbs.runs import find_run

_LARGEST_PLAN = 64 * 1024 * 1024  # bytes

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Planner:
    """How templates are planned: the options of a build, the store, and what may be done."""

    options: BuildOptions
    store: Store
    deadline: Deadline
    say: Say
    prepare: bool = False

    def check(self, template: Path) -> Checked:
        """Read and judge a template; `-` is standard input, and relative paths in it count from the present folder."""
        return check(template, self.options)

    def plan(self, checked: Checked) -> RunPlan:
        """The plan of a checked template. Raises as `orchestrator.verbs.plan.plan` does."""
        return plan(
            checked.template(),
            checked.file.absolute().parent,
            self.options,
            self.store,
            deadline=self.deadline,
            say=self.say,
            prepare=self.prepare,
        )

    def document(self, made: RunPlan) -> Document:
        """The plan's document, with what varies in its own block."""
        now = datetime.now(UTC)
        return {**plan_document(made), "varies": varies(made, self.store, durations.of_store(self.store), now)}

    def diff(self, old: str, new: str) -> PlanDiff:
        """What differs between two template files, saved plans (`--json`, or a run's plan.json), or runs."""
        sides = self._side(old), self._side(new)
        try:
            return plan_diff.diff(*sides)
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{old} or {new} is not a whole plan: {type(error).__name__} {error}",
                hint="save plans with `aib plan TEMPLATE --json`",
            ) from error

    def _side(self, name: str) -> Document:
        path = Path(name)
        if path == STANDARD_INPUT:
            return plan_document(self.plan(self.check(path)))
        if not path.is_file():
            return self._of_run(name)
        data = _json(path)
        if is_document(data):
            if data["version"] != VERSION:
                raise InputError(f"{name} is a plan of version {data['version']!r}; this aib knows {VERSION}")
            return dict(data)
        if isinstance(data, dict) and {"template_id", "steps"} <= set(data):
            return plan_document(from_json(data))
        return plan_document(self.plan(self.check(path)))

    def _of_run(self, name: str) -> Document:
        try:
            folder = find_run(self.store, name)
        except UsageError as error:
            hint = "; ".join(filter(None, (error.hint, "or name a template file, or a saved plan")))
            raise UsageError(f"{name} is no file, and {error.message}", hint=hint) from error
        data = read_json(folder.plan)
        if data is None:
            raise InputError(f"run {folder.id} ended before it had a plan", hint=f"see `aib show {folder.id}`")
        return plan_document(from_json(data))


def _json(path: Path) -> Any:
    """The file as JSON, or None: a template may be JSON with comments, which its own reader understands."""
    try:
        data = read_regular(path, _LARGEST_PLAN + 1)
        return json.loads(data) if len(data) <= _LARGEST_PLAN else None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}", hint="check the path") from error
    except (ValueError, RecursionError):
        return None
