"""The source image."""

from __future__ import annotations

from orchestrator.template import resource_ids
from orchestrator.template.node import Node
from orchestrator.template.report import Report
from orchestrator.template.subject import Subject


def bad_id(report: Report, at: Node | None, shape: str, owner: str, *, matches: bool) -> None:
    """AIB022 with the service's words (E1) when an id does not have its shape."""
    if at is None or not isinstance(at.value, str) or matches or "<" in at.value:
        return  # a placeholder in it is reported as such
    report.error(
        "AIB022", at, f"Validation failed: 'ImageTemplate.properties.{owner}': Field '{at.key}' has a bad value: "
        f"'{at.value}'.", hint=f"expected {shape}", source="TRBL E1",
    )  # fmt: skip


def source_ids(subject: Subject, report: Report) -> None:
    """AIB022 for the ids of the source."""
    if subject.source is None:
        return
    image = subject.source.get("imageId")
    version = subject.source.get("imageVersionId")
    matches = bool(resource_ids.IMAGE.fullmatch(subject.source.string("imageId")))
    bad_id(report, image, resource_ids.IMAGE_SHAPE, "source", matches=matches)
    matches = bool(resource_ids.IMAGE_VERSION.fullmatch(subject.source.string("imageVersionId")))
    bad_id(report, version, resource_ids.IMAGE_VERSION_SHAPE, "source", matches=matches)


def empty_fields(subject: Subject, report: Report) -> None:
    """AIB020: publisher, offer, sku and version may not be empty."""
    if subject.source is None or subject.source.string("type") != "PlatformImage":
        return
    for name in ("publisher", "offer", "sku", "version"):
        at = subject.source.get(name)
        if at is not None and isinstance(at.value, str) and not at.value.strip():
            report.error("AIB020", at, f"{name} of the source is empty", source="SWG")


RULES = (source_ids, empty_fields)
