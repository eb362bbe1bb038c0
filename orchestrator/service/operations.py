"""Long-running operations: 201 or 202 with `Azure-AsyncOperation`, `Location` and `Retry-After`, polled to their end.

Each is a file in the store's home, so that a client that polls goes on polling after a restart. How an operation stands
is one of: what its file says; or, with `run`, what became of that run (`Operations.judge`, set by the run side).
An area begins one, and either works it off in a thread (`start`) or ends it itself (`end`).
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from hypervisor.deadline import CancelToken
from hypervisor.errors import AibError, HostError
from orchestrator.record import files
from orchestrator.service.entra import origin
from orchestrator.service.envelope import ArmError, of_ours
from orchestrator.service.faults import report_fault

IN_PROGRESS = "InProgress"
MOST = 2000
"""Ended operations that are kept."""
AT_ONCE = 32
"""Threads that work operations off; some wait for downloads."""
WAKE_SECONDS = 1.0
"""How often who waits for an operation looks by himself, should nobody wake him."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation. `kind`: Create, Update, Delete, Run, Cancel, ... `target`: the id of the resource it is about.

    `status`: InProgress, Succeeded, Failed or Canceled. `run`: the id of the run that decides how it ends.
    `more` is for the area that began it.
    """

    id: str
    kind: str
    target: str
    subscription: str
    provider: str
    location: str
    api_version: str
    started: str
    ended: str = ""
    status: str = IN_PROGRESS
    error: Mapping[str, Any] | None = None
    output: Any = None
    run: str = ""
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self.status != IN_PROGRESS

    @property
    def path(self) -> str:
        """The resource id of the operation, as the image builder forms it (azure-powershell#24244)."""
        return f"{self._place}/operations/{self.id}"

    @property
    def result_path(self) -> str:
        """Where `Location` points to."""
        return f"{self._place}/operationResults/{self.id}"

    @property
    def _place(self) -> str:
        return f"/subscriptions/{self.subscription}/providers/{self.provider}/locations/{self.location}"


class Operations:
    """All operations of one server. `judge` says how one with a `run` stands now; `closing` ends what waits."""

    def __init__(self, folder: Path, retry_after: int) -> None:
        self._folder = folder
        self._retry_after = retry_after
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="operation")
        self._lock = threading.Lock()
        self._ending = threading.Condition()
        self.closing = CancelToken()
        self.judge: Callable[[Operation], Operation] = lambda operation: operation
        with files.translating("creating", folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def begin(
        self,
        kind: str,
        target: str,
        *,
        subscription: str,
        provider: str,
        location: str,
        api_version: str,
        run: str = "",
        more: Mapping[str, Any] | None = None,
    ) -> Operation:
        """A new operation, on disk."""
        operation = Operation(
            id=str(uuid.uuid4()),
            kind=kind,
            target=target,
            subscription=subscription,
            provider=provider,
            location=location or "global",
            api_version=api_version,
            started=_now(),
            run=run,
            more=dict(more or {}),
        )
        self._write(operation)
        self._forget_old()
        return operation

    def get(self, operation_id: str) -> Operation | None:
        """The operation as it stands now, or None."""
        try:
            name = str(uuid.UUID(operation_id))
        except ValueError:
            return None
        operation = self._read(self._folder / f"{name}.json")
        if operation is None or operation.done or not operation.run:
            return operation
        judged = self.judge(operation)
        if judged.done:
            self._write(judged)
        return judged

    def pending(self) -> list[Operation]:
        """All that have not ended, for whoever must go on with them after a restart."""
        found = [self._read(path) for path in sorted(self._folder.glob("*.json"))]
        return [operation for operation in found if operation is not None and not operation.done]

    def end(
        self, operation: Operation, status: str = "Succeeded", error: ArmError | None = None, output: Any = None
    ) -> Operation:
        """The operation has ended."""
        ended = replace(operation, status=status, ended=_now(), error=error.error() if error else None, output=output)
        self._write(ended)
        with self._ending:
            self._ending.notify_all()
        return ended

    def wait(self, operation: Operation) -> Operation:
        """The operation when it has ended, which `start` or `end` of this server brings about."""
        with self._ending:
            while not (now := self.get(operation.id) or replace(operation, status="Failed")).done:
                self._ending.wait(WAKE_SECONDS)
        return now

    def start(self, operation: Operation, work: Callable[[], Any]) -> None:
        """Do `work` in a thread: what it returns is the output, what it raises the error of the operation."""
        self._pool.submit(self._worked_off, operation, work)

    def _worked_off(self, operation: Operation, work: Callable[[], Any]) -> None:
        try:
            try:
                self.end(operation, output=work())
            except ArmError as error:
                self.end(operation, "Failed", error)
            except AibError as error:
                self.end(operation, "Failed", of_ours(error))
        except Exception as error:  # noqa: BLE001 -- the last door of the thread: a client must not poll for ever
            place = report_fault(self._folder.parent.parent, error)
            message = f"aib failed unexpectedly ({type(error).__name__}); please report {place}"
            self.end(operation, "Failed", ArmError(500, "InternalOperationError", message))

    def close(self) -> None:
        """Have the threads come to their end, soon."""
        self.closing.cancel("the server has ended")
        self._pool.shutdown(wait=True, cancel_futures=False)

    def accepted(
        self,
        request: Request,
        operation: Operation,
        *,
        status: int = 202,
        body: Any = None,
        location: bool = True,
        status_url: bool = True,
    ) -> Response:
        """The answer that names the operation: with `body` and 201 for a PUT, with a `Location` for the others.

        Without `status_url` there is no `Azure-AsyncOperation` (a DELETE is polled by its `Location`).
        """
        headers = self.headers(request, operation, location=location)
        if not status_url:
            del headers["Azure-AsyncOperation"]
        return (
            JSONResponse(body, status, headers) if body is not None else Response(status_code=status, headers=headers)
        )

    def headers(self, request: Request, operation: Operation, *, location: bool) -> dict[str, str]:
        """`Azure-AsyncOperation`, `Retry-After` and, when wanted, `Location`."""
        query = f"?api-version={operation.api_version}"
        headers = {
            "Azure-AsyncOperation": f"{origin(request)}{quote(operation.path)}{query}",
            "Retry-After": str(self._retry_after),
        }
        if location:
            headers["Location"] = f"{origin(request)}{quote(operation.result_path)}{query}"
        return headers

    def status_response(self, operation: Operation) -> Response:
        """What `Azure-AsyncOperation` answers: always 200, with `status` and, at the end, `error` or `properties`."""
        body: dict[str, Any] = {
            "id": operation.path,
            "name": operation.id,
            "status": operation.status,
            "startTime": operation.started,
        }
        if not operation.done:
            return JSONResponse(body, headers={"Retry-After": str(self._retry_after)})
        body["endTime"] = operation.ended
        if operation.output is not None:
            body["properties"] = operation.output
        if operation.error:
            body["error"] = dict(operation.error)
        return JSONResponse(body)

    def result_response(self, request: Request, operation: Operation) -> Response:
        """What `Location` answers: 202 until the end; then 204, the output with 200, or the error."""
        if not operation.done:
            return self.accepted(request, operation)
        if operation.status != "Succeeded":
            error = dict(operation.error or {"code": "Canceled", "message": "The operation was canceled."})
            return JSONResponse({"error": error}, 409 if operation.status == "Canceled" else 400)
        return Response(status_code=204) if operation.output is None else JSONResponse(operation.output)

    def _write(self, operation: Operation) -> None:
        with self._lock:
            files.publish_json(self._folder / f"{operation.id}.json", asdict(operation))

    def _read(self, path: Path) -> Operation | None:
        try:
            value = files.read_json(path)
        except HostError:
            return None  # a damaged one is one that nobody can ask about
        known = {each.name for each in fields(Operation)}
        return Operation(**{name: member for name, member in value.items() if name in known}) if value else None

    def _forget_old(self) -> None:
        paths = list(self._folder.glob("*.json"))
        if len(paths) <= MOST:
            return
        for path in sorted(paths, key=lambda each: each.stat().st_mtime)[: MOST // 10]:
            operation = self._read(path)
            if operation is None or operation.done:
                path.unlink(missing_ok=True)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
