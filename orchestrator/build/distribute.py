"""Publish the exported disks as the template's distributors say, each with its own state (S28-S32).

One that fails does not lose the others. The engine decides what the states mean for the run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit

from hypervisor.deadline import Deadline
from hypervisor.errors import AibError, BuildError, Cancelled, DeadlineExceeded, HostError
from orchestrator.build import image_resources
from orchestrator.build.export import Artifact, ExportFormat, checksum_file, write_checksum
from orchestrator.plan.gallery_versions import next_version
from orchestrator.plan.model import PlannedDistribution, RunPlan
from orchestrator.plan.versions import vhd_path
from orchestrator.record import arm_ids, files, galleries
from orchestrator.record.arm_ids import ArmId
from orchestrator.record.events import Deviation, Event, RunOutputReady
from orchestrator.record.layers import Layer
from orchestrator.record.resources import Resource, ResourceExists
from orchestrator.record.run_outputs import RunOutput, State, ensure_template
from orchestrator.record.runs import RunFolder
from orchestrator.record.store import Store
from orchestrator.template.model import ManagedImageTarget, SharedImageTarget, VhdTarget

__all__ = ["RunOutput", "distribute", "overall_state"]

Emit = Callable[[Event], None]


def distribute(  # noqa: PLR0917 -- six different things, called in one place
    plan: RunPlan, artifacts: Iterable[Artifact], store: Store, run: RunFolder, deadline: Deadline, emit: Emit
) -> tuple[RunOutput, ...]:
    """Run every distributor of the plan; the result says how each ended, in the plan's order.

    When the time is over (`DeadlineExceeded`, `Cancelled`) the rest is recorded as Canceled and the error raised:
    what was published before stays.
    """
    work = _Distribution(plan, tuple(artifacts), store, run, deadline, emit)
    with suppress(HostError):  # a full disk is told of by the distributors
        ensure_template(store, plan.template_id, location=plan.location, tags=plan.tags)
    outputs: list[RunOutput] = []
    for number, planned in enumerate(plan.distributions):
        try:
            deadline.check(f"distributing {planned.target.run_output_name}")
            outputs.append(work.record(work.publish(planned)))
        except (DeadlineExceeded, Cancelled) as error:
            for left in plan.distributions[number:]:
                work.record(work.ended(left, "Canceled", error))
            raise
        except AibError as error:
            outputs.append(work.record(work.ended(planned, "Failed", error)))
    return tuple(outputs)


def overall_state(outputs: Sequence[RunOutput]) -> str:
    """The service's word for the run: Succeeded, PartiallySucceeded (some did) or Failed (none did)."""
    succeeded = sum(output.state == "Succeeded" for output in outputs)
    if succeeded == len(outputs):
        return "Succeeded"
    return "PartiallySucceeded" if succeeded else "Failed"


@dataclass(frozen=True, slots=True)
class _Distribution:
    """One run's distribution: everything its distributors need."""

    plan: RunPlan
    artifacts: tuple[Artifact, ...]
    store: Store
    run: RunFolder
    deadline: Deadline
    emit: Emit

    def publish(self, planned: PlannedDistribution) -> RunOutput:
        """Publish to one target; raises an error of the tree and leaves nothing of this target then."""
        target = planned.target
        if isinstance(target, ManagedImageTarget):
            return self._managed_image(target)
        if isinstance(target, SharedImageTarget):
            return self._shared_image(target)
        return self._vhd(target)

    def ended(self, planned: PlannedDistribution, state: State, error: AibError) -> RunOutput:
        """The output of a distributor that published nothing."""
        message = f"{error.message} ({error.hint})" if error.hint else error.message
        target = planned.target
        tags = image_resources.image_tags(self.plan, target.artifact_tags)
        return RunOutput(target.run_output_name, _KINDS[type(target)], state, message=message, tags=tags)

    def record(self, output: RunOutput) -> RunOutput:
        """Replace the runOutput of this name and tell of it; a store that cannot take it fails this output only."""
        try:
            self.store.put(output.to_resource(self.plan.template_id))
        except HostError as error:
            message = f"{output.message or 'the disk was published'}; its runOutput was not recorded: {error.message}"
            output = RunOutput(output.name, output.kind, "Failed", output.artifact_id, output.artifact_uri, message)
        self.emit(
            RunOutputReady(
                output.name, output.kind, output.state, output.artifact_id, output.artifact_uri, output.message,
                dict(output.tags),
            )
        )  # fmt: skip
        return output

    def _managed_image(self, target: ManagedImageTarget) -> RunOutput:
        image_id = arm_ids.parse_managed_image(target.image_id)
        with self._layer() as layer:
            resource = image_resources.managed_image(self.plan, target, image_id, layer, self.run.id)
            if self.store.get(resource.id) is not None:
                # What the service does to an image that is there is not documented.
                self.emit(Deviation("managed-image-replaced", f"the managed image {resource.id} was there: replaced"))
            self.store.put(resource)
        return self._succeeded(target, artifact_id=resource.id, tags=resource)

    def _shared_image(self, target: SharedImageTarget) -> RunOutput:
        with self._reserved(target) as reserved, self._layer() as layer:
            version = image_resources.image_version(self.plan, target, reserved, layer)
            self.store.put(version)
        self.emit(Deviation("replication", f"{version.id}: its regions are recorded, nothing is replicated"))
        return self._succeeded(target, artifact_id=version.id, tags=version)

    def _vhd(self, target: VhdTarget) -> RunOutput:
        artifact = self._artifact("vpc")
        path = vhd_path(self.store, self.plan.template_name, target)
        if urlsplit(target.uri).scheme in {"http", "https"}:
            where = target.uri.split("?")[0]
            self.emit(Deviation("vhd-uri", f"nothing is uploaded to {where}: the VHD is at {path}"))
        with files.translating("writing", path):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            checksum_file(path).unlink(missing_ok=True)  # never the sum of another file beside the new one
        files.publish_copy(artifact.path, path, mode=0o644, deadline=self.deadline)
        write_checksum(path, artifact.sha256)
        tags = image_resources.image_tags(self.plan, target.artifact_tags)
        resource = Resource(
            f"/aib/vhds/{self.plan.template_name}/outputs/{target.run_output_name}",
            "aib/vhds/outputs",
            target.run_output_name,
            self.plan.location,
            tags,
            {
                "uri": path.as_uri(),
                "sha256": artifact.sha256,
                "virtualSize": artifact.virtual_size,
                "size": artifact.size,
                "source": self.plan.source.resource_id or self.plan.source.requested,
                "run": self.run.id,
            },
        )
        self.store.put(resource)
        return self._succeeded(target, artifact_uri=path.as_uri(), tags=resource)

    def _succeeded(
        self,
        target: ManagedImageTarget | SharedImageTarget | VhdTarget,
        *,
        artifact_id: str = "",
        artifact_uri: str = "",
        tags: Resource,
    ) -> RunOutput:
        kind = _KINDS[type(target)]
        return RunOutput(target.run_output_name, kind, "Succeeded", artifact_id, artifact_uri, tags=tags.tags)

    def _artifact(self, format: ExportFormat) -> Artifact:
        for artifact in self.artifacts:
            if artifact.format == format:
                return artifact
        raise BuildError(f"there is no exported disk of the format {format}")

    @contextmanager
    def _layer(self) -> Iterator[Layer]:
        """The exported qcow2 as a layer of its own, protected until the block has put a resource that names it."""
        artifact = self._artifact("qcow2")
        layer = self.store.add_layer(
            artifact.path,
            artifact.format,
            move=False,
            virtual_size=artifact.virtual_size,
            digest=artifact.sha256,
            deadline=self.deadline,
        )
        try:
            yield layer
        finally:
            self.store.release_layer(layer.digest)

    @contextmanager
    def _reserved(self, target: SharedImageTarget) -> Iterator[Resource]:
        """A version that belongs to this run; it is given up again when the block fails."""
        definition_id, explicit = arm_ids.parse_gallery_target(target.gallery_image_id)
        reserved = self._reserve(target, definition_id, explicit)
        published = False
        try:
            yield reserved
            published = True
        finally:
            if not published:
                with suppress(HostError):  # a reservation of a dead run counts as free, and `aib gc` removes it
                    self.store.delete(reserved.id)

    def _reserve(self, target: SharedImageTarget, definition_id: ArmId, explicit: str) -> Resource:
        if target.versioning and target.versioning.scheme == "Source" and not explicit:
            text = "the service's rule for versioning by Source is not documented: the source's numbers are used"
            self.emit(Deviation("version-by-source", text))
        gallery = self.store.get(str(definition_id.parent))
        if gallery is None or self.store.get(str(definition_id)) is None:
            raise BuildError(f"{definition_id} was removed while the image was built", hint="define it and build again")
        while True:
            existing = galleries.versions(self.store, definition_id)
            stale = galleries.release_stale(self.store, existing)
            taken = {arm_ids.parse_version(found.name) for found in existing if found not in stale}
            version = explicit or ".".join(
                str(part)
                for part in next_version(target.versioning, taken, datetime.now(UTC), self.plan.source.version)
            )
            wanted = image_resources.reservation(
                self.plan, target, definition_id.child("versions", version), gallery.location, self.run.id
            )
            try:
                self.store.create(wanted)
            except ResourceExists as error:
                self.deadline.check(f"reserving a version of {definition_id}")
                if explicit:
                    raise BuildError(
                        f"the version {explicit} of {definition_id} was published by another run meanwhile",
                        hint="raise the version in galleryImageId, or leave it out to have one chosen",
                    ) from error
            else:
                return wanted


_KINDS = {ManagedImageTarget: "ManagedImage", SharedImageTarget: "SharedImage", VhdTarget: "VHD"}
