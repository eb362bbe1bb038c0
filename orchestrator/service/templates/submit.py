"""Making, changing and removing templates: what the routes, deployments and triggers call.

As the service does, a template's scripts and files are fetched and checked when it is submitted, into the store; its
runs use these. A template is not changed afterwards but by PATCH: another PUT is a conflict, unless it says the same.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from hypervisor.deadline import Deadline
from hypervisor.errors import AibError, Cancelled, UsageError
from orchestrator.build.export import checksum_file
from orchestrator.plan.catalogue import Catalogue
from orchestrator.plan.config import Config
from orchestrator.plan.credentials import Credentials
from orchestrator.plan.fetch import Allowed, Fetcher, wanted_by
from orchestrator.plan.fetched_store import FetchedStore
from orchestrator.plan.platform_images import Urn, stored_versions
from orchestrator.record import arm_ids
from orchestrator.record.arm_ids import Scope
from orchestrator.record.resources import Resource
from orchestrator.record.run_outputs import ours, run_outputs, submission, without_signatures
from orchestrator.record.store import Store
from orchestrator.service.context import Context
from orchestrator.service.envelope import ArmError
from orchestrator.service.operations import Operation
from orchestrator.service.runs.runs import refuse_unless_idle
from orchestrator.service.templates import check, documents, versions
from orchestrator.template.model import ManagedImage, PlatformImage, SharedImageVersion, Template

FETCH_SECONDS = 4 * 3600.0
"""For all scripts and files of one template."""
CONFLICT = "Update/Upgrade of image templates is currently not supported"
_SERVICE_SAYS = re.compile(r"\(The service says: (.*)\)")
INTERRUPTED = "The server ended while it fetched what the template needs. Delete the template and submit it again."


@dataclass(frozen=True, slots=True)
class Request:
    """One request to make a template: who asks for which one, by which api-version."""

    context: Context
    scope: Scope
    name: str
    version: str
    by: str

    @property
    def id(self) -> str:
        """The template's id."""
        return arm_ids.template_id(self.name, self.scope)


@dataclass(frozen=True, slots=True)
class Put:
    """What became of it: the resource, whether it is new, and the operation that goes on with it."""

    resource: Resource
    new: bool
    operation: Operation | None


def put(request: Request, body: Mapping[str, Any]) -> Put:
    """Submit a template: it is Creating until its operation has ended. Raises `ArmError`."""
    context = request.context
    judged = check.judge(body, request.name, request.version, request.scope, context.settings)
    key = documents.keep(context.store.home, judged.document)
    try:
        return _put(request, judged, key)
    except BaseException:
        documents.forget(context.store.home, key)
        raise


def _put(request: Request, judged: check.Judged, key: str) -> Put:
    context = request.context
    existing = context.store.get(request.id)
    if existing is not None:
        existing = context.runs.fresh(existing)
    made = _resource(request, judged, key)
    new = existing is None

    def change(found: Resource | None) -> Resource:
        nonlocal new
        new = found is None
        if found is None:
            return made
        if submission(found):
            _refuse_unless_same(request, found, judged)
            return found
        refuse_unless_idle(found, "write", request.version)  # recorded by the command line: now it is submitted
        last = {key: found.properties[key] for key in ("lastRunStatus",) if key in found.properties}
        aib = {**ours(found), **ours(made)}
        return replace(made, id=found.id, name=found.name, properties={**made.properties, **last, "aib": aib})

    resource = context.store.upsert(request.id, change)
    if submission(resource).get("token") != submission(made)["token"]:
        documents.forget(context.store.home, key)
        return Put(resource, new=False, operation=None)
    operation = context.operations.begin("Create", resource.id, **versions.place(resource, request.version))
    context.operations.start(operation, lambda: _provision(request, resource.id, judged.template))
    return Put(resource, new, operation)


def _resource(request: Request, judged: check.Judged, key: str) -> Resource:
    whole, now = without_signatures(judged.document), _now()
    system = {
        "createdBy": request.by,
        "createdByType": "Application",
        "createdAt": now,
        "lastModifiedBy": request.by,
        "lastModifiedByType": "Application",
        "lastModifiedAt": now,
    }
    identity = {"identity": whole["identity"]} if whole.get("identity") else {}
    kept: dict[str, Any] = {"apiVersion": request.version, "by": request.by, "token": secrets.token_hex(8)}
    kept |= {"payloads": {}} | ({"document": key} if key else {})
    return Resource(
        request.id,
        arm_ids.TEMPLATE,
        request.name,
        arm_ids.region(str(whole["location"])),
        dict(whole.get("tags") or {}),
        {**whole["properties"], "provisioningState": "Creating", "aib": {"submission": kept}},
        {**identity, "systemData": system},
    )


def _refuse_unless_same(request: Request, found: Resource, judged: check.Judged) -> None:
    """E6, unless the request says what is there already (a choice: a deployment may be repeated)."""
    if found.properties.get("provisioningState") in ("Succeeded", "Creating"):
        whole = documents.document_of(request.context.store.home, found)
        before = check.load(whole, request.scope, str(submission(found)["apiVersion"]))
        asked = {**judged.document, "location": arm_ids.region(str(judged.document["location"]))}
        now = check.load(asked, request.scope, request.version)
        if check.same(replace(before, name=""), replace(now, name="")):
            return
    raise conflict(request.version)


def conflict(version: str) -> ArmError:
    """E6."""
    return ArmError(409, "Conflict", CONFLICT, provider_version=version)


def _provision(request: Request, template_id: str, template: Template) -> None:
    """Fetch and check everything; the template is Succeeded or Failed afterwards."""
    context = request.context
    try:
        payloads = {} if context.settings.scripted else _fetched(context, template)
    except ArmError as error:
        _provisioned(context.store, template_id, "Failed", error=error)
        raise
    except AibError as error:
        refused = _in_service_words(error)
        _provisioned(context.store, template_id, "Failed", error=refused)
        raise refused from error
    resource = _provisioned(context.store, template_id, "Succeeded", payloads=payloads)
    automatic = resource.properties.get("autoRun")
    if isinstance(automatic, Mapping) and automatic.get("state") == "Enabled":
        with contextlib.suppress(ArmError, AibError):  # the template was made; its lastRunStatus tells of the run
            context.runs.start(resource, request.version, request.by)


def _in_service_words(error: AibError) -> ArmError:
    """E9 and E10 where the service has words for it; ours are in the details then."""
    if isinstance(error, Cancelled):
        return ArmError(500, "ServerError", INTERRUPTED)
    ours_ = f"{error.message} {error.hint}".strip()
    said = _SERVICE_SAYS.search(error.hint)
    if said is None:
        return ArmError(400, "ValidationFailed", ours_)
    return ArmError(400, "ValidationFailed", said[1], details=[{"code": type(error).__name__, "message": ours_}])


def _fetched(context: Context, template: Template) -> dict[str, str]:
    _find_source(context, template)
    settings, home = context.settings, context.store.home
    what = "the time for fetching a template's scripts and files"
    deadline = Deadline.after(FETCH_SECONDS, what, context.operations.closing)
    credentials = Credentials(template.identities, Config.load(home), deadline)
    fetcher = Fetcher(
        FetchedStore(home),
        settings.local_roots[0] if settings.local_roots else home / "service",
        credentials,
        deadline,
        offline=settings.build.offline,
        allowed=Allowed(settings.local_roots, settings.private_fetch),
    )
    return {pointer: found.sha256 for pointer, found in fetcher.fetch_all(wanted_by(template)).items()}


def _find_source(context: Context, template: Template) -> None:
    """Whether there is such an image at all; which version it is, a run finds out."""
    source, store = template.source, context.store
    if isinstance(source, PlatformImage):
        build = context.settings.build
        catalogue = Catalogue.of(store.home, Path(build.catalogue) if build.catalogue else None)
        urn = Urn(source.publisher, source.offer, source.sku)
        if catalogue.find(source.publisher, source.offer, source.sku) is None and not stored_versions(store, urn):
            raise _bad_source("BadPIRSource", f"the platform image {source.urn} is not known here")
    elif isinstance(source, ManagedImage):
        if store.get(source.image_id) is None:
            raise _bad_source("BadManagedImageSource", f"there is no image {source.image_id}")
    elif isinstance(source, SharedImageVersion):
        latest = source.image_version_id.lower().endswith("/latest")
        wanted = source.image_version_id.rpartition("/versions/")[0] if latest else source.image_version_id
        if store.get(wanted) is None:
            raise _bad_source("BadSharedImageVersionSource", f"there is no {wanted}")


def _bad_source(code: str, problem: str) -> ArmError:
    return ArmError(400, code, f"Validation failed: 'ImageTemplate.properties.source': {problem}.")


def _provisioned(
    store: Store,
    template_id: str,
    state: str,
    *,
    payloads: Mapping[str, str] | None = None,
    error: ArmError | None = None,
) -> Resource:
    def change(existing: Resource) -> Resource:
        kept = {**submission(existing), "payloads": dict(payloads or {})}
        properties = {**existing.properties, "provisioningState": state, "aib": {**ours(existing), "submission": kept}}
        if error is not None:
            code = error.code if error.code.startswith("Bad") else "Other"
            properties["provisioningError"] = {"provisioningErrorCode": code, "message": error.message}
        return replace(existing, properties=properties)

    return store.update(template_id, change)


def remove(context: Context, template: Resource, version: str) -> None:
    """Delete a template with its runOutputs, triggers and staged VHDs; what it distributed stays, and so do VHDs of
    builds by the command line. Raises `ArmError` 409 while it runs or is being made.
    """
    store, current = context.store, context.runs.fresh(template)
    refuse_unless_idle(current, "delete", version)

    def still_idle(existing: Resource) -> bool:
        refuse_unless_idle(existing, "delete", version)
        return True

    outputs = run_outputs(store, current.id)
    store.delete(current.id, only_if=still_idle)
    documents.forget(store.home, documents.key_of(current))
    for output in outputs:
        _remove_staged(store, current.name, output)
    for child in reversed(store.list(under=current.id)):
        store.delete(child.id)


def _remove_staged(store: Store, template: str, output: Resource) -> None:
    uri = urlsplit(str(output.properties.get("artifactUri", "")))
    path = Path(unquote(uri.path))
    staged = store.get(f"/aib/vhds/{template}/outputs/{output.name}")
    inside = uri.scheme == "file" and path.is_relative_to(store.home / "vhds")
    if staged is None or not inside or not _was_submitted(store, str(staged.properties.get("run", ""))):
        return
    for file in (path, checksum_file(path)):
        file.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        path.parent.rmdir()
    store.delete(staged.id)


def _was_submitted(store: Store, run_id: str) -> bool:
    try:
        return bool(run_id) and store.run(run_id).submission.exists()
    except UsageError:  # nobody knows whose it was: it stays
        return False


def end_interrupted(context: Context) -> None:
    """After a start: templates that the server was making when it ended are Failed, and say why."""
    for operation in context.operations.pending():
        if operation.kind == "Create" and not operation.run and arm_ids.TEMPLATE.lower() in operation.target.lower():
            error = ArmError(500, "InternalOperationError", INTERRUPTED)
            context.operations.end(operation, "Failed", error)
    for template in context.store.list(arm_ids.TEMPLATE):
        if submission(template) and template.properties.get("provisioningState") == "Creating":
            _provisioned(context.store, template.id, "Failed", error=ArmError(500, "ServerError", INTERRUPTED))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
