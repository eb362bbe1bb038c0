"""Deployments under way in this server: planned within limits, run in threads, canceled, remembered."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from orchestrator.record.resources import Resource
from orchestrator.service.context import Context
from orchestrator.service.deployments.errors import InvalidDeployment
from orchestrator.service.deployments.planned import Plan, Planned
from orchestrator.service.deployments.planner import plan
from orchestrator.service.deployments.record import Record, failed
from orchestrator.service.deployments.request import Requested, refused
from orchestrator.service.deployments.run import Run
from orchestrator.service.envelope import ArmError
from orchestrator.service.faults import report_fault
from orchestrator.service.operations import Operation
from orchestrator.service.resources import emptying, owners
from orchestrator.service.resources.engine import DEPLOYMENT

KIND = "Deployment"
AT_ONCE = 4
MOST_WAITING = 16
"""Deployments that run or wait for their turn; more are told to come back."""
PLANNED_AT_ONCE = 3
KEPT = 800
"""Deployments that a group remembers, as in ARM."""
_STAND_IN = "<reference("


class AtWork:
    """The deployments of one server."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="deployment")
        self._lock = threading.Lock()
        self._active: dict[str, threading.Event] = {}
        self._planning = threading.BoundedSemaphore(PLANNED_AT_ONCE)

    def plan(self, asked: Requested, *, previews: Callable[[str], bool] | None = None) -> Plan:
        """What a request would do, checked as ARM and the providers check it. Raises `ArmError`."""
        with self._planning:
            try:
                made = plan(
                    asked.body.template,
                    asked.body.parameters,
                    asked.scope,
                    asked.facts,
                    previews=previews or (lambda kind: owners.of(kind) is not None),
                )
            except InvalidDeployment as error:
                raise refused(error) from None
            self._check_providers(asked, made)
        return made

    def record(self, asked: Requested, made: Plan) -> Record:
        """A record of a deployment that begins now."""
        record = Record(
            self._context.store, asked.id, asked.name, asked.body.mode, asked.body.location, dict(asked.body.tags)
        )
        record.describe(made)
        return record

    def begin(self, asked: Requested) -> tuple[Resource, Operation, bool]:
        """Start a deployment: (its resource, the operation to poll, whether it is new). Raises `ArmError`."""
        made = self.plan(asked)
        record = self.record(asked, made)
        cancel = self._take(asked)
        try:
            new = self._context.store.get(asked.id) is None
            operation = self._context.operations.begin(
                KIND,
                asked.id,
                subscription=asked.scope.subscription,
                provider="Microsoft.Resources",
                location=asked.scope.location,
                api_version=asked.api_version,
            )
            record.operation = operation.id
            record.save()
            shown = record.resource()
            self._pool.submit(self._work_off, asked, made, record, operation, cancel)
        except BaseException:
            self._give_up(asked.id)
            raise
        return shown, operation, new

    def cancel(self, deployment_id: str) -> bool:
        """Ask a deployment to stop; false when it does not run."""
        with self._lock:
            event = self._active.get(deployment_id.lower())
        if event is not None:
            event.set()
        return event is not None

    def is_active(self, deployment_id: str) -> bool:
        """Whether it runs or waits for its turn."""
        with self._lock:
            return deployment_id.lower() in self._active

    def close(self) -> None:
        """Ask all to stop, and wait for them."""
        with self._lock:
            for event in self._active.values():
                event.set()
        self._pool.shutdown(wait=True)

    def _take(self, asked: Requested) -> threading.Event:
        with self._lock:
            if asked.id.lower() in self._active:
                raise ArmError(
                    409,
                    "DeploymentActive",
                    f"Unable to edit or replace deployment '{asked.name}': previous deployment is still active. "
                    "Please see https://aka.ms/arm-deploy for usage details.",
                )
            if len(self._active) >= MOST_WAITING:
                raise ArmError(
                    429, "TooManyRequests", f"{MOST_WAITING} deployments are under way.", headers={"Retry-After": "5"}
                )
            event = self._active[asked.id.lower()] = threading.Event()
            return event

    def _give_up(self, deployment_id: str) -> None:
        with self._lock:
            self._active.pop(deployment_id.lower(), None)

    def _work_off(
        self, asked: Requested, made: Plan, record: Record, operation: Operation, cancel: threading.Event
    ) -> None:
        try:
            Run(asked.world, asked.facts, cancel.is_set).deploy(made, record)
            if record.state == "Succeeded" and asked.body.mode == "Complete":
                self._complete(asked, made, record)
        except Exception as error:  # noqa: BLE001 -- the last door of the thread: a client must not poll for ever
            place = report_fault(self._context.settings.home, error)
            message = f"aib failed unexpectedly ({type(error).__name__}); please report {place}"
            record.finish("Failed", {"code": "InternalServerError", "message": message})
        finally:
            self._give_up(asked.id)  # who sees the operation's end may deploy again at once
            self._context.operations.end(operation, record.state, _as_error(record.error))
        self._forget_old(asked.level)

    def _complete(self, asked: Requested, made: Plan, record: Record) -> None:
        """Remove what the template does not name."""
        try:
            emptying.empty(self._context, asked.level, [*(each.id for each in made.everything()), asked.id])
        except ArmError as error:
            record.finish("Failed", failed(record.id, [error.error()]))

    def _check_providers(self, asked: Requested, made: Plan) -> None:
        """What a provider would refuse is told before anything is made, as ARM's preflight does."""
        found: list[Mapping[str, Any]] = []
        for planned in made.everything():
            if planned.preview is None or owners.of(planned.kind) is None or not _is_certain(planned):
                continue
            try:
                asked.world.check(planned, planned.preview)
            except ArmError as error:
                found.append({"target": planned.id, **error.error()})
        if found:
            raise ArmError(
                400,
                "InvalidTemplateDeployment",
                f"The template deployment '{asked.name}' is not valid according to the validation procedure. The "
                f"tracking id is '{uuid.uuid4()}'. See inner errors for details.",
                details=found,
            )

    def _forget_old(self, level: str) -> None:
        found = [
            each
            for each in self._context.store.list(DEPLOYMENT, under=level)
            if each.id.rpartition("/providers/")[0].lower() == level.lower()
        ]
        found.sort(key=lambda each: str(each.properties.get("timestamp", "")))
        for old in found[:-KEPT]:
            if not self.is_active(old.id):
                self._context.store.delete(old.id)


def _is_certain(planned: Planned) -> bool:
    """Whether the body holds no stand-in for what is not there yet."""
    work = [planned.preview]
    while work:
        value = work.pop()
        if isinstance(value, str) and _STAND_IN in value:
            return False
        if isinstance(value, Mapping):
            work += value.values()
        elif isinstance(value, list):
            work += value
    return planned.preview is not None


def _as_error(error: Mapping[str, Any] | None) -> ArmError | None:
    if not error:
        return None
    return ArmError(
        400,
        str(error.get("code", "DeploymentFailed")),
        str(error.get("message", "")),
        target=str(error.get("target", "")),
        details=error.get("details", ()),
    )
