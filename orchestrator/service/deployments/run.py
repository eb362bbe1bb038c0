"""A deployment at work: resource after resource, `reference()` answered by what is there, then the outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from orchestrator.service.deployments import outputs
from orchestrator.service.deployments.errors import InvalidDeployment
from orchestrator.service.deployments.facts import Facts, refuse
from orchestrator.service.deployments.planned import Plan, Planned
from orchestrator.service.deployments.planner import Planner, expanded, is_inner
from orchestrator.service.deployments.record import Record, failed, failed_resource
from orchestrator.service.deployments.world import ServerWorld
from orchestrator.service.envelope import ArmError
from orchestrator.template.arm.context import Context
from orchestrator.template.arm.deployment import Shared
from orchestrator.template.arm.expression import ExpressionError
from orchestrator.template.arm.functions_text import text_of
from orchestrator.template.arm.values import MAX_MADE, MAX_WORK, Budget
from orchestrator.template.report import EnoughFound, Report

PASSES = 6
"""How often the work of planning may be done again: nested deployments are planned anew at each level."""


def budget() -> Budget:
    """What all of one deployment may cost while it runs."""
    made = Budget(PASSES * MAX_WORK)
    made.to_make = PASSES * MAX_MADE
    return made


@dataclass(slots=True)
class Run:
    """One deployment, or one nested in it. `canceled` is asked before each resource; all share one `budget`."""

    world: ServerWorld
    facts: Facts
    canceled: Callable[[], bool]
    budget: Budget = field(default_factory=budget)
    shared: Shared = field(init=False)
    _missing: ArmError | None = None

    def __post_init__(self) -> None:
        self.shared = Shared(Report(), self.budget, datetime.now(UTC), live=self.facts.referring(refuse))

    def deploy(self, plan: Plan, record: Record) -> None:
        """Deploy every resource, and write into the record how that went; nothing is raised."""
        record.state = "Running"
        record.save()
        errors: dict[Planned, Mapping[str, Any]] = {}
        for planned in plan.resources:
            if self.canceled():
                record.finish("Canceled", {"code": "DeploymentCanceled", "message": "The deployment was canceled."})
                return
            if not planned.deployed or any(each in errors for each in planned.before):
                if planned.deployed:
                    errors[planned] = {}  # what it needs is not there; that has been told
                continue
            began = datetime.now(UTC)
            error = self._attempt(planned, plan, record)
            if error is not None:
                errors[planned] = error
            record.ended(planned, began, error)
        told = [error for error in errors.values() if error]
        if told:
            record.finish("Failed", failed(record.id, told))
        elif self.canceled():
            record.finish("Canceled", {"code": "DeploymentCanceled", "message": "The deployment was canceled."})
        else:
            self._finish(plan, record)

    def _finish(self, plan: Plan, record: Record) -> None:
        began = datetime.now(UTC)
        context = plan.context.within(live=self._live(plan), notes={}, budget=self.budget)
        try:
            record.outputs = outputs.evaluate(plan.template, context)
        except InvalidDeployment as error:
            record.finish("Failed", {"code": error.code, "message": error.message, "details": list(error.details)})
            return
        record.evaluated(began)
        record.finish("Succeeded")

    def _attempt(self, planned: Planned, plan: Plan, record: Record) -> Mapping[str, Any] | None:
        """Deploy one resource; the error in ARM's form when that failed."""
        self._missing = None
        self.shared.report = Report()  # what an earlier resource got wrong is not this one's fault
        try:
            if planned.is_nested:
                return self._nested(planned, plan, record)
            body = expanded(planned, self._live(plan), self.shared)
            self.world.put(planned, body)
        except InvalidDeployment as error:
            missing = self._missing
            found = missing.error() if missing else {"code": error.code, "message": error.message}
            return {**found, "target": planned.id}
        except EnoughFound:
            return {"code": "InvalidTemplate", "message": "The template has too many errors.", "target": planned.id}
        except ArmError as error:
            nested = error.code in ("ResourceOperationFailure", "InternalOperationError")
            own = {"target": planned.id, **error.error()}
            return failed_resource(planned.id, [own]) if nested else own
        return None

    def _nested(self, planned: Planned, plan: Plan, record: Record) -> Mapping[str, Any] | None:
        inside = planned.context.within(live=self._live(plan), notes={}, budget=self.budget)
        nested = planned.nested
        if nested is None:
            return {
                "code": "InvalidTemplate",
                "message": "The nested deployment has no template.",
                "target": planned.id,
            }
        facts = self.facts.called(planned.name)
        if is_inner(planned.node):
            self.shared.made = 0
            planner = Planner(self.shared, facts)
            given = planner.given(planned.node, inside, plan)
            nested = planner.again(nested.template, given, nested.scope)
        self.world.check_scope(nested.scope)
        mode = planned.node.string("properties", "mode").capitalize() or "Incremental"
        own = Record(record.store, planned.id, planned.name, mode, correlation=record.correlation)
        own.describe(nested)
        Run(self.world, facts, self.canceled, self.budget).deploy(nested, own)
        if own.state != "Succeeded":
            return failed_resource(planned.id, [own.error] if own.error else [])
        record.made += [each for each in own.made if each not in record.made]
        return None

    def _live(self, plan: Plan) -> Facts:
        def refer(call: Any, arguments: list[Any], context: Context) -> Any:
            if not arguments:
                raise ExpressionError(f"{call.name}() needs the name or the id of a resource", call.offset)
            name = text_of(arguments[0], f"the first argument of {call.name}()")
            planned = plan.find(name)
            resource_id = planned.id if planned is not None else name
            if not resource_id.startswith("/"):
                raise ExpressionError(f"The resource '{name[:200]}' is not defined in the template", call.offset)
            try:
                if call.name.lower() == "reference":
                    found = self.world.resource(resource_id)
                    full = len(arguments) > 2 and str(arguments[2]).lower() == "full"
                    return dict(found) if full else found.get("properties", {})
                return self.world.action(resource_id, call.name)
            except ArmError as error:
                self._missing = error
                raise ExpressionError(error.message, call.offset) from None

        return self.facts.referring(refer)
