"""What only this machine can say of a template: known sizes, images and versions in its store, how long runs took."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hypervisor.errors import HostError, TemplateError
from orchestrator.record.files import read_json
from orchestrator.record.runs import RunFolder, Runs
from orchestrator.template.diagnostics import Diagnostic, Position, Severity
from orchestrator.template.model import ManagedImage, PlatformImage, SharedImageTarget, SharedImageVersion, Template

if TYPE_CHECKING:
    from orchestrator.record.resources import Resource
    from orchestrator.record.store import Store

GIB = 1 << 30
NEWEST = 5
"""Runs of a template whose time counts."""
NEAR = 0.8
"""Of the budget: the service's machines are not this one."""


def check(template: Template, home: Path) -> Iterator[Diagnostic]:
    """AIB019, AIB062, AIB064 and AIB065 as far as they need this machine, whose store is in `home`.

    Each imports what it needs: most templates need little of it, and a check is to be quick. Raises `HostError`: the
    store is damaged.
    """
    yield from _size(template)
    yield from _disk(template, home)
    yield from _versions(template, home)
    yield from _time(template, home)


def _size(template: Template) -> Iterator[Diagnostic]:
    name = template.vm_profile.vm_size
    if not name:
        return
    from orchestrator.plan import sizes

    try:
        sizes.find(name)
    except TemplateError as error:
        at = _at(template, "/properties/vmProfile/vmSize")
        yield Diagnostic("AIB064", Severity.ERROR, error.message, *at, error.hint, "SEED S8")


def _disk(template: Template, home: Path) -> Iterator[Diagnostic]:
    asked = template.vm_profile.os_disk_size_gb
    if not asked:
        return
    from orchestrator.record.store import Store

    store = Store(home)
    image = _stored(template, store)
    layer = store.layer(image.digest) if image is not None and image.digest else None
    if image is None or layer is None or asked * GIB >= layer.virtual_size:
        return
    needed = -(-layer.virtual_size // GIB)
    at = _at(template, "/properties/vmProfile/osDiskSizeGB")
    message = f"osDiskSizeGB {asked}: the stored image {image.name} has a disk of {layer.virtual_size} bytes"
    hint = f"write at least {needed}, or 0 to keep the source's size"
    yield Diagnostic("AIB065", Severity.ERROR, message, *at, hint, "SEED S9")


def _stored(template: Template, store: Store) -> Resource | None:
    """The source image, if it is stored here; of `latest` the newest."""
    from orchestrator.plan.platform_images import Urn, stored_version, stored_versions

    source = template.source
    if isinstance(source, PlatformImage):
        urn = Urn(source.publisher, source.offer, source.sku)
        if source.version.lower() == "latest":
            return next(reversed(stored_versions(store, urn)), None)
        return stored_version(store, urn, source.version)
    if isinstance(source, ManagedImage):
        return store.get(source.image_id)
    if isinstance(source, SharedImageVersion) and not source.image_version_id.lower().endswith("/latest"):
        return store.get(source.image_version_id)
    return None


def _versions(template: Template, home: Path) -> Iterator[Diagnostic]:
    for target in template.distribute:
        if not isinstance(target, SharedImageTarget) or "/versions/" not in target.gallery_image_id.lower():
            continue
        from orchestrator.record.store import Store

        taken = Store(home).get(target.gallery_image_id)
        if taken is not None and taken.digest:
            message = f"the version {taken.name} is in the store already: a run would be refused"
            hint = "leave /versions/... out, write another version, or remove that one"
            at = _at(template, f"{target.pointer}/galleryImageId")
            yield Diagnostic("AIB062", Severity.WARNING, message, *at, hint, "JSON")


def _time(template: Template, home: Path) -> Iterator[Diagnostic]:
    """AIB019 by the clock: what earlier runs of this template took that ran every step."""
    budget = template.build_timeout_minutes * 60.0
    took = sorted(seconds for folder in _runs_of(template, home) if (seconds := _whole(folder)) is not None)
    if not took or took[len(took) // 2] < NEAR * budget:
        return
    minutes = f"{took[len(took) // 2] / 60:.1f} minutes (median of {len(took)})"
    message = f"earlier runs here took {minutes} of a budget of {template.build_timeout_minutes}"
    hint = "raise buildTimeoutInMinutes"
    at = _at(template, "/properties/buildTimeoutInMinutes")
    yield Diagnostic("AIB019", Severity.WARNING, message, *at, hint, "TRBL E17")


def _runs_of(template: Template, home: Path) -> list[RunFolder]:
    named = [folder for folder in Runs(home / "runs").all() if folder.template_name.lower() == template.name.lower()]
    return named[-NEWEST:]


def _whole(folder: RunFolder) -> float | None:
    """Seconds of a run that succeeded and took nothing from a checkpoint."""
    try:
        record = read_json(folder.record)
    except HostError:
        return None
    if not isinstance(record, dict) or record.get("lastRunStatus", {}).get("runState") != "Succeeded":
        return None
    if any(step.get("result") == "cached" for step in record.get("steps", ())):
        return None
    return float(record["seconds"])


def _at(template: Template, pointer: str) -> tuple[str, Position]:
    """The value, or the nearest thing around it that was written."""
    while pointer and pointer not in template.positions:
        pointer = pointer.rpartition("/")[0]
    return pointer, template.positions.get(pointer, Position())
