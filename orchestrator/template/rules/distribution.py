"""Distribution targets."""

from __future__ import annotations

from orchestrator.template import fixes, resource_ids
from orchestrator.template.diagnostics import Edit
from orchestrator.template.node import Node
from orchestrator.template.placeholders import is_open
from orchestrator.template.report import Report
from orchestrator.template.rules.envelope import NAME, NAME_SHAPE
from orchestrator.template.rules.source import bad_id
from orchestrator.template.schema.tables import older
from orchestrator.template.subject import Subject

MAX_VERSION_PART = 2147483647


def targets(subject: Subject, report: Report) -> None:
    """AIB058: there is a target, and each runOutputName stands once; AIB015: it has the right shape."""
    array = subject.properties.get("distribute")
    if array is not None and array.is_array and not array.items():
        report.error("AIB058", array, "distribute is empty: the image would go nowhere", source="SWG")
    seen: dict[str, Node] = {}
    for target in subject.distributors:
        at = target.get("runOutputName")
        if at is None or not isinstance(at.value, str) or is_open(at.value):
            continue
        if not NAME.fullmatch(at.value):
            report.error("AIB015", at, f"{at.value!r} is no runOutputName", hint=NAME_SHAPE, source="SDK")
        first = seen.setdefault(at.value.lower(), at)
        if first is not at:
            message = f"runOutputName {at.value!r} is also used on line {first.position.line}"
            report.error("AIB058", at, message, hint="each target needs its own", source="SEED S28")


def target_ids(subject: Subject, report: Report) -> None:
    """AIB022 for the ids of the targets."""
    for target in subject.distributors:
        owner = f"distribute[{target.key}]"
        matches = bool(resource_ids.IMAGE.fullmatch(target.string("imageId")))
        bad_id(report, target.get("imageId"), resource_ids.IMAGE_SHAPE, owner, matches=matches)
        matches = bool(resource_ids.GALLERY_IMAGE.fullmatch(target.string("galleryImageId")))
        bad_id(report, target.get("galleryImageId"), resource_ids.GALLERY_IMAGE_SHAPE, owner, matches=matches)


def regions(subject: Subject, report: Report) -> None:
    """AIB059: regions are required before 2022-07-01; AIB060: the two ways exclude each other; AIB061: the old one."""
    for target in subject.distributors:
        if target.string("type") != "SharedImage":
            continue
        old_way, new_way = target.get("replicationRegions"), target.get("targetRegions")
        has_new = not older(subject.version, "2022-07-01")
        if old_way is None and new_way is None and not has_new:
            hint = "one of them is the gallery's own"
            report.error("AIB059", target, "SharedImage has no replicationRegions", hint=hint, source="SDK")
        if old_way is not None and new_way is not None:
            report.error("AIB060", new_way, "replicationRegions and targetRegions exclude each other", source="SWG")
        if old_way is not None and has_new:
            message = "replicationRegions is deprecated since 2022-07-01"
            report.info(
                "AIB061", target, message, hint="use targetRegions", source="NOTES", key="replicationRegions",
                fix=_as_target_regions(target, old_way) if new_way is None else (),
            )  # fmt: skip
        _storage(subject, target, report)


def _as_target_regions(target: Node, old_way: Node) -> tuple[Edit, ...]:
    """replicationRegions rewritten as targetRegions, where no storage type stands beside them."""
    if target.get("storageAccountType") is not None:
        return ()
    edits = list(fixes.rename_key(target, "replicationRegions", "targetRegions"))
    for region in old_way.items():
        if not isinstance(region.value, str):
            return ()
        edit = fixes.replace_value(region, f'{{ "name": {fixes.quote(region.value)} }}')
        if not edit or not edits:
            return ()
        edits += edit
    return tuple(edits)


def _storage(subject: Subject, target: Node, report: Report) -> None:
    at = target.get("storageAccountType")
    if at is None or at.value == "":
        return
    if target.get("replicationRegions") is None:
        message = "storageAccountType stands beside replicationRegions alone"
        report.error("AIB060", at, message, hint="put it into each of targetRegions", source="SWG")
    elif at.value == "Premium_LRS" and older(subject.version, "2022-07-01"):
        message = f"Premium_LRS does not exist in {subject.version}"
        report.error("AIB060", at, message, hint="Standard_LRS or Standard_ZRS", source="SDK")


def explicit_version(subject: Subject, report: Report) -> None:
    """AIB062: a version in galleryImageId is three integers up to 2147483647, and good for one run."""
    for target in subject.distributors:
        at = target.get("galleryImageId")
        _, mark, version = target.string("galleryImageId").lower().partition("/versions/")
        if at is None or not mark or is_open(version):
            continue
        parts = version.split(".")
        good = len(parts) == 3 and all(
            p.isascii() and p.isdigit() and len(p) <= 10 and int(p) <= MAX_VERSION_PART for p in parts
        )
        if good:
            message = f"the version {version} is fixed: a second run finds it taken, and triggers are refused"
            report.warning("AIB062", at, message, hint="leave /versions/... out", source="JSON")
        if not good:
            report.error(
                "AIB062", at, f"{version!r} is no version", hint="three integers up to 2147483647: 1.2.3", source="JSON"
            )


def versioning(subject: Subject, report: Report) -> None:
    """AIB063: `major` belongs to scheme Latest; a version given in the id leaves nothing to `versioning`."""
    for target in subject.distributors:
        at = target.get("versioning")
        if at is None:
            continue
        if at.string("scheme") == "Source" and at.get("major") is not None:
            report.warning("AIB063", at, "major has no meaning with scheme Source", source="SDK", key="major")
        if "/versions/" in target.string("galleryImageId").lower():
            report.warning(
                "AIB063", at, "galleryImageId already names a version; versioning has no effect", source="SDK"
            )


RULES = (targets, target_ids, regions, explicit_version, versioning)
