"""What each distributor will make, checked against the galleries that exist, before anything is started.

Every violation is a `TemplateError` (exit 2) that says how to mend it; all of them are told at once.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

from hypervisor.errors import TemplateError
from orchestrator.plan.gallery_versions import next_version
from orchestrator.plan.model import PlannedDistribution, ResolvedSource
from orchestrator.record import arm_ids, galleries
from orchestrator.record.arm_ids import ArmId, InvalidResourceId, Scope
from orchestrator.record.resources import Resource
from orchestrator.record.store import Store
from orchestrator.template.model import Distributor, ManagedImageTarget, SharedImageTarget, Template, VhdTarget

_RESERVED_URI_SCHEMES = {"http", "https"}


def plan_distributions(
    template: Template, store: Store, now: datetime, source: ResolvedSource | None = None
) -> tuple[PlannedDistribution, ...]:
    """The distributors of the template, resolved.

    `artifact_id` is the image's id, the image definition's for a gallery version that is chosen when it is
    distributed (`version` is "" then), and the file's URI for a VHD. With `source` the image definition is compared
    with the source image too. Raises `TemplateError`.
    """
    planned, faults = [], []
    seen: set[str] = set()
    for target in template.distribute:
        try:
            plan = _plan(template, target, store, now, source)
            _check_alone(plan, seen)
            planned.append(plan)
        except TemplateError as error:
            faults.append(error)
    if len(faults) > 1:
        lines = "".join(f"\n- {fault.message}\n    {fault.hint}" for fault in faults)
        raise TemplateError(f"{len(faults)} distributors cannot be satisfied:{lines}")
    if faults:
        raise faults[0]
    return tuple(planned)


def vhd_path(store: Store, template_name: str, target: VhdTarget) -> Path:
    """Where the VHD goes: `uri` when it is a file:// URI or an absolute path, else under AIB_HOME/vhds.

    An http(s) `uri` names a blob in Azure, which is not written to from here: the file stays under AIB_HOME then.
    """
    parts = urlsplit(target.uri)
    if not target.uri or parts.scheme in _RESERVED_URI_SCHEMES:
        if not template_name.strip(".") or "/" in f"{template_name}{target.run_output_name}":
            raise TemplateError(f"{template_name!r} cannot be the name of a template", hint="give it another name")
        return store.home / "vhds" / template_name / f"{target.run_output_name}.vhd"
    if parts.scheme == "file" and parts.netloc in {"", "localhost"}:
        path = Path(unquote(parts.path))
    else:
        path = Path(target.uri)
    if not path.is_absolute() or path.is_dir():
        raise TemplateError(
            f"{target.run_output_name}: uri {target.uri!r} names no file that can be written here",
            hint="use file:///absolute/path/name.vhd, an absolute path, or leave `uri` out (AIB_HOME/vhds is used)",
        )
    return path


def _plan(
    template: Template, target: Distributor, store: Store, now: datetime, source: ResolvedSource | None
) -> PlannedDistribution:
    try:
        if isinstance(target, SharedImageTarget):
            return _shared_image(template, target, store, now, source)
        if isinstance(target, ManagedImageTarget):
            return PlannedDistribution(target, str(arm_ids.parse_managed_image(target.image_id)))
    except InvalidResourceId as error:
        raise TemplateError(f"{target.run_output_name}: {error}", hint=_where(target)) from error
    return PlannedDistribution(target, vhd_path(store, template.name, target).as_uri())


def _check_alone(plan: PlannedDistribution, seen: set[str]) -> None:
    """Two distributors cannot write one thing; a definition takes any number of versions."""
    if isinstance(plan.target, SharedImageTarget) and not plan.version:
        return
    key = plan.artifact_id if isinstance(plan.target, VhdTarget) else plan.artifact_id.lower()
    if key in seen:
        raise TemplateError(
            f"{plan.target.run_output_name}: another distributor of this template writes {plan.artifact_id} too",
            hint=f"give one of them another target. {_where(plan.target)}".strip(),
        )
    seen.add(key)


def _shared_image(
    template: Template, target: SharedImageTarget, store: Store, now: datetime, source: ResolvedSource | None
) -> PlannedDistribution:
    definition_id, version = arm_ids.parse_gallery_target(target.gallery_image_id)
    gallery = store.get(str(definition_id.parent))
    if gallery is None:
        region = target.regions[0].name if target.regions else template.location
        raise TemplateError(
            f"{target.run_output_name}: there is no gallery {definition_id.parent}",
            hint=f"create it: {create_command(definition_id.parent, region)}",
        )
    definition = store.get(str(definition_id))
    if definition is None:
        os, generation = (source.os, source.generation) if source else ("linux", "V1")
        raise TemplateError(
            f"{target.run_output_name}: the gallery {gallery.name} has no image definition {definition_id.name}",
            hint=f"define it: {define_command(definition_id, os, generation)}",
        )
    _check_regions(target, gallery)
    if source:
        _check_kind(target, definition_id, definition, source)
    existing = galleries.versions(store, definition_id)
    taken = {arm_ids.parse_version(found.name) for found in existing if not galleries.is_stale(store, found)}
    if version:
        _check_free(target, definition_id, version, taken)
        return PlannedDistribution(target, str(definition_id.child("versions", version)), version)
    if source or not target.versioning or target.versioning.scheme != "Source":
        next_version(target.versioning, taken, now, source.version if source else "")  # only: is there one at all?
    return PlannedDistribution(target, str(definition_id))


def _check_regions(target: SharedImageTarget, gallery: Resource) -> None:
    """One of the regions must be the gallery's (S31); no region at all stands for it (since 2022-07-01)."""
    regions = [arm_ids.region(region.name) for region in target.regions]
    if regions and arm_ids.region(gallery.location) not in regions:
        raise TemplateError(
            f"{target.run_output_name}: the gallery {gallery.name} is in {gallery.location}, which is not among the "
            f"replication regions {', '.join(region.name for region in target.regions)}",
            hint=f'add "{gallery.location}" to them, or create a gallery in one of them: '
            f"{create_command(arm_ids.parse(gallery.id), target.regions[0].name, name='<another name>')}",
        )


def _check_kind(target: SharedImageTarget, definition_id: ArmId, definition: Resource, source: ResolvedSource) -> None:
    """Azure refuses a version whose OS or generation is not its definition's."""
    os = str(definition.properties.get("osType", "Linux")).lower()
    generation = str(definition.properties.get("hyperVGeneration", "V1"))
    if (os, generation) != (source.os, source.generation):
        command = define_command(definition_id, source.os, source.generation, name="<another name>")
        raise TemplateError(
            f"{target.run_output_name}: the image definition {definition_id.name} takes {os} images of generation "
            f"{generation}; the source {source.requested} is {source.os} of generation {source.generation}",
            hint=f"define one that fits: {command}",
        )


def _check_free(
    target: SharedImageTarget, definition_id: ArmId, version: str, taken: set[tuple[int, int, int]]
) -> None:
    if arm_ids.parse_version(version) in taken:
        gallery, name = definition_id.names
        command = _command("delete-version", definition_id.scope, gallery, name, version)
        raise TemplateError(
            f"{target.run_output_name}: the version {version} of {gallery}/{name} exists already",
            hint=f"raise the version in galleryImageId, leave `/versions/{version}` out to have one chosen, "
            f"or remove it: {command}",
        )


def create_command(gallery_id: ArmId, location: str, name: str = "") -> str:
    """The command that creates the gallery."""
    return _command("create", gallery_id.scope, name or gallery_id.name, "--location", arm_ids.region(location))


def define_command(definition_id: ArmId, os: str, generation: str, name: str = "") -> str:
    """The command that defines the image."""
    names = (definition_id.names[0], name or definition_id.names[1])
    return _command("define", definition_id.scope, *names, "--os", os, "--generation", generation)


def _command(verb: str, scope: Scope, *arguments: str) -> str:
    return shlex.join(["aib", "gallery", verb, *arguments, *_scope_options(scope)])


def _scope_options(scope: Scope) -> Iterator[str]:
    default = arm_ids.DEFAULT_SCOPE
    if scope.resource_group.lower() != default.resource_group:
        yield from ("--resource-group", scope.resource_group)
    if scope.subscription.lower() != default.subscription:
        yield from ("--subscription", scope.subscription)


def _where(target: Distributor) -> str:
    return f"See {target.pointer} in the template." if target.pointer else ""
