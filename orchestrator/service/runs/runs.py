"""The runs of templates, whoever started them: starting, cancelling, and how they stand.

Nothing is kept in memory. A template names its last run (`properties.aib.run`); the run is alive as long as somebody
holds its folder; its record says how it ended. So a server that was killed finds all of them again: those that go on
are its own as before, those whose processes died with it become Failed, with the reason, when somebody looks.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from hypervisor.deadline import Deadline
from hypervisor.errors import AibError, DeadlineExceeded, InputError, UsageError
from orchestrator.build import control
from orchestrator.build.job import Job
from orchestrator.build.options import BuildOptions
from orchestrator.build.slots import need_of
from orchestrator.build.supervisor import CANCELLED, FAILED
from orchestrator.build.template_status import settle
from orchestrator.plan.sizes import HostCapacity
from orchestrator.record import arm_ids, files
from orchestrator.record.arm_ids import Scope
from orchestrator.record.messages import CANCELED
from orchestrator.record.record import finish_abandoned
from orchestrator.record.resources import Resource
from orchestrator.record.run_outputs import ours, submission
from orchestrator.record.runs import RunFolder
from orchestrator.record.store import Store
from orchestrator.service.envelope import ArmError
from orchestrator.service.operations import Operation, Operations
from orchestrator.service.runs.runner import Runner
from orchestrator.service.settings import Settings
from orchestrator.service.templates import documents, versions
from orchestrator.service.templates.check import load as load_document
from orchestrator.service.templates.form import (
    ACTIVE,
    provisioning_state,
    run_state,
    run_status,
    shown_document,
)
from orchestrator.verbs.runs import record_of
from orchestrator.verbs.tidy import ENDED_STATES, tidy
from orchestrator.views.customization_log import rewrite_logs

LOST = "The processes of this run were ended (was this machine shut down?)"
HEARD_SECONDS = 60.0
"""How long a run may take to listen: while its worker starts, nobody does."""
FAILED_CODE = "InternalOperationError"
PACKER_FAILED = "PackerBuildFailed"
BUILD_FAILED = "During the image build"
"""In the service's sentence for a customizer, a validator or the generalization that failed."""
ISOLATED = "isolated"


@dataclass
class Runs:
    """The run side of one server. `closing` is set when the server ends."""

    settings: Settings
    store: Store
    operations: Operations
    runner: Runner
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(8, thread_name_prefix="cancel"))
    closing: threading.Event = field(default_factory=threading.Event)

    # How things stand

    def fresh(self, template: Resource) -> Resource:
        """The template with the truth about its last run: one that died without a word is told of, and closed."""
        if run_status(template).get("runState") not in ACTIVE:
            return template
        run_id = str(ours(template).get("run", ""))
        folder = self._folder(run_id)
        if folder is not None:
            self._close_if_dead(folder)
            settle(self.store, folder, template.id)
        else:
            self._mark_lost(template.id, run_id)
        return self.store.get(template.id) or template

    def judge(self, operation: Operation) -> Operation:
        """An operation that is about a run, as that run stands."""
        folder = self._folder(operation.run)
        if folder is None:
            error = ArmError(500, FAILED_CODE, f"The run {operation.run} was removed.")
            return _ended(operation, "Failed", error.error())
        self._close_if_dead(folder)
        record = record_of(folder)
        status: Mapping[str, Any] = record.get("lastRunStatus") or {}
        if status.get("runState") not in ENDED_STATES:
            return operation
        settle(self.store, folder)
        if operation.kind == "Cancel" or status["runState"] == "Succeeded":
            return _ended(operation, "Succeeded")
        message = str(status.get("message") or "")
        if status["runState"] == "Canceled":
            return _ended(operation, "Canceled", {"code": "Canceled", "message": message})
        customized = BUILD_FAILED in message
        return _ended(operation, "Failed", {"code": PACKER_FAILED if customized else FAILED_CODE, "message": message})

    def _folder(self, run_id: str) -> RunFolder | None:
        try:
            return self.store.run(run_id) if run_id and run_id != "last" else None
        except UsageError:
            return None

    def _close_if_dead(self, folder: RunFolder) -> None:
        if record_of(folder).get("lastRunStatus", {}).get("runState") in ENDED_STATES:
            return
        with folder.if_dead() as dead:
            if dead:
                canceled = folder.cancel_asked.exists()
                state, code = ("Canceled", CANCELLED) if canceled else ("Failed", FAILED)
                finish_abandoned(folder.path, CANCELED if canceled else LOST, state=state, exit_code=code)
                rewrite_logs(folder.path)
                shutil.rmtree(folder.work, ignore_errors=True)

    def _mark_lost(self, template_id: str, run_id: str) -> None:
        def change(template: Resource) -> Resource:
            if ours(template).get("run", "") != run_id:
                return template
            before: Mapping[str, Any] = template.properties.get("lastRunStatus") or {}
            status = {**before, "runState": "Failed", "message": LOST, "endTime": before.get("endTime") or _now()}
            return replace(template, properties={**template.properties, "lastRunStatus": status})

        self.store.update(template_id, change)

    # Starting

    def start(self, template: Resource, api_version: str, by: str) -> Operation:
        """Begin a run. Raises `ArmError`: 409 in the wrong state, or when this server may not build in this way."""
        refuse_unless_idle(template, "run/action", api_version)
        if not submission(template):
            message = (
                f"The template {template.name} was recorded by a build of the command line and never submitted: "
                "PUT it first, or run `aib build` again."
            )
            raise ArmError(409, "OperationNotAllowed", message, provider_version=api_version)
        scope = arm_ids.parse(template.id).scope
        whole = documents.document_of(self.store.home, template)
        typed = load_document(whole, scope, str(submission(template)["apiVersion"]))
        need = need_of(typed, HostCapacity.measured())
        folder = self.store.new_run(template.name)
        try:
            operation = self._claimed(template, folder, api_version, by)
        except BaseException:
            folder.release()
            shutil.rmtree(folder.path, ignore_errors=True)
            raise
        job = Job(
            self.store.home,
            folder.id,
            self.settings.home / "service" / f"{template.name}.json",
            json.dumps(whole, ensure_ascii=False),
            self._options(scope),
            payloads=dict(submission(template).get("payloads") or {}),
        )
        try:
            self.runner.start(folder, job, need)
        except AibError as error:
            finish_abandoned(folder.path, error.message, hint=error.hint)
            settle(self.store, folder)
            folder.release()
            raise
        return operation

    def _claimed(self, template: Resource, folder: RunFolder, api_version: str, by: str) -> Operation:
        """The run is the template's: one of several that are asked for at once."""
        files.publish_json(folder.template, shown_document(template))

        def claim(existing: Resource) -> Resource:
            refuse_unless_idle(existing, "run/action", api_version)
            status = {"startTime": _now(), "runState": "Running", "runSubState": "Queued", "message": ""}
            aib = {**ours(existing), "run": folder.id}
            return replace(existing, properties={**existing.properties, "lastRunStatus": status, "aib": aib})

        operation = self.operations.begin("Run", template.id, **versions.place(template, api_version), run=folder.id)
        try:
            files.publish_json(
                folder.submission,
                {"template": template.id, "operation": operation.id, "by": by, "scripted": self.settings.scripted},
            )
            self.store.update(template.id, claim)
        except ArmError as error:
            self.operations.end(operation, "Failed", error)
            raise
        return operation

    def _options(self, scope: Scope) -> BuildOptions:
        """The owner's. Without their leave the build VM of somebody else's template reaches nothing of this machine."""
        options = self.settings.build
        network = options.network or ("" if self.settings.host_network else ISOLATED)
        return replace(
            options,
            subscription=scope.subscription,
            resource_group=scope.resource_group,
            name="",
            network=network,
        )

    # Ending

    def cancel(self, template: Resource, api_version: str) -> Operation:
        """Ask the template's run to stop. `ArmError` 409 when none runs, or when it was asked before."""
        if run_state(template) != "running":
            raise not_allowed(template, "cancel/action", api_version)
        run_id = str(ours(template).get("run", ""))

        def ask(existing: Resource) -> Resource:
            if run_state(existing) != "running" or ours(existing).get("run", "") != run_id:
                raise not_allowed(existing, "cancel/action", api_version)
            return replace(existing, properties={**existing.properties, "aib": {**ours(existing), "canceling": run_id}})

        self.store.update(template.id, ask)
        operation = self.operations.begin("Cancel", template.id, **versions.place(template, api_version), run=run_id)
        self.ask_to_stop(run_id)
        return operation

    def ask_to_stop(self, run_id: str) -> None:
        """Ask a run to stop; returns at once.

        Its supervisor sees the file that says so; its control socket is quicker, once somebody listens there.
        """
        folder = self._folder(run_id)
        if folder is not None:
            folder.cancel_asked.touch()
            self._pool.submit(self._ask_until_heard, folder)

    def _ask_until_heard(self, folder: RunFolder) -> None:
        def heard() -> bool:
            try:
                control.ask(folder.path, {"do": "cancel"})
            except InputError:
                return self.closing.is_set() or not folder.alive()
            return True

        try:
            Deadline.after(HEARD_SECONDS, "the time a run may take to listen").wait_until(
                heard, f"asking run {folder.id} to stop", interval=0.1
            )
        except DeadlineExceeded:
            pass  # it is still Canceling; who looks at it sees that it has not ended

    # The server's life

    def adopt(self) -> None:
        """After a start: close what died meanwhile, and ask again those that were to be cancelled."""
        if not self.settings.scripted:
            tidy(self.store)
        for template in self.store.list(arm_ids.TEMPLATE):
            found = self.fresh(template)
            if run_status(found).get("runState") == "Canceling":
                self.ask_to_stop(str(ours(found)["run"]))

    def close(self) -> None:
        """Let go; runs go on."""
        self.closing.set()
        self._pool.shutdown(wait=True)


def refuse_unless_idle(template: Resource, action: str, api_version: str = "") -> None:
    """`ArmError` 409 while the template is being made or runs (E8), and for a run of one that failed to be made."""
    busy = run_status(template).get("runState") in ACTIVE
    state = provisioning_state(template)
    made = state == "provisioned" or (action != "run/action" and state in ("failed", "canceled"))
    if busy or not made:
        raise not_allowed(template, action, api_version)


def not_allowed(template: Resource, action: str, api_version: str = "") -> ArmError:
    """E8, in the service's words; that its status is 409 is inferred."""
    return ArmError(
        409,
        "OperationNotAllowed",
        f"Operation {arm_ids.TEMPLATE}/{action} is not allowed in provisioning state: {provisioning_state(template)} "
        f"or run state: {run_state(template)}.",
        provider_version=api_version,
    )


def _ended(operation: Operation, status: str, error: Mapping[str, Any] | None = None) -> Operation:
    return replace(operation, status=status, error=error, ended=_now())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
