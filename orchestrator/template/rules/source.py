"""The source image, and whether the steps fit its system."""

from __future__ import annotations

import re

from orchestrator.template import resource_ids
from orchestrator.template.node import Node
from orchestrator.template.placeholders import is_open
from orchestrator.template.report import Report
from orchestrator.template.schema.tables import older
from orchestrator.template.subject import LINUX_TYPES, WINDOWS_TYPES, Subject, os_of_source

_ENDED = (
    (re.compile(r"(?:14|16|17|18|19|21|23)[._]\d\d(?:[._-]|$)"), "ubuntu", "this Ubuntu release left support"),
    (re.compile(r"(?:^|[^\d])20[._]04(?:[._-]|$)"), "ubuntu", "Ubuntu 20.04 left standard support in 2025-05"),
    (re.compile(r""), "centos", "CentOS Linux has ended"),
    (re.compile(r"(?:^|debian-)(?:8|9|10)(?:$|-)"), "debian", "this Debian release has left regular support"),
    (re.compile(r"win7|windows-7|2008|2012"), "windows", "this Windows release has left support"),
    (re.compile(r"win10|windows-10"), "windows", "Windows 10 left support on 2025-10-14"),
)  # fmt: skip
_PAID = (
    "cis", "center-for-internet-security", "paloaltonetworks", "kali-linux", "nvidia", "f5-networks", "fortinet",
    "bitnami", "procomputers", "cognosys", "erockyenterprisesoftwarefoundationinc1653071250513", "resf",
)  # fmt: skip


def bad_id(report: Report, at: Node | None, shape: str, owner: str, *, matches: bool) -> None:
    """AIB022 with the service's words (E1) when an id does not have its shape."""
    if at is None or not isinstance(at.value, str) or matches or is_open(at.value):
        return  # a placeholder in it is reported as such; what only Azure knows is not judged
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


def latest(subject: Subject, report: Report) -> None:
    """AIB023: `latest` is resolved when the build runs; AIB024: for gallery versions only since 2022-07-01."""
    if subject.source is None:
        return
    version = subject.source.get("version")
    if version is not None and str(version.value).lower() == "latest":
        message = "latest is resolved when the build runs: two builds may differ"
        report.info("AIB023", version, message, hint="pin an exact version", source="SEED S11")
    gallery = subject.source.get("imageVersionId")
    if gallery is not None and str(gallery.value).lower().endswith("/versions/latest"):
        if older(subject.version, "2022-07-01"):
            report.warning(
                "AIB024", gallery, f"versions/latest needs api-version 2022-07-01, not {subject.version}",
                hint="raise apiVersion or name the version", source="NOTES",
            )  # fmt: skip
        else:
            message = "latest is resolved when the build runs: two builds may differ"
            report.info("AIB023", gallery, message, hint="pin an exact version", source="NOTES")


def plan_info(subject: Subject, report: Report) -> None:
    """AIB025: images of known paid publishers need planInfo."""
    source = subject.source
    if source is None or source.string("type") != "PlatformImage" or source.get("planInfo") is not None:
        return
    publisher = source.string("publisher").lower()
    if any(publisher.startswith(name) for name in _PAID):
        report.warning(
            "AIB025", source, f"images of {source.string('publisher')} usually have a purchase plan",
            hint="add planInfo with planName, planProduct and planPublisher", source="SWG",
        )  # fmt: skip


def end_of_life(subject: Subject, report: Report) -> None:
    """AIB026: the source image's release is no longer supported."""
    source = subject.source
    if source is None or source.string("type") != "PlatformImage":
        return
    family = f"{source.string('publisher')} {source.string('offer')}".lower()
    release = f"{source.string('offer')} {source.string('sku')}".lower()
    for pattern, word, message in _ENDED:
        known = word in family or (word == "ubuntu" and "canonical" in family)
        if known and any(pattern.search(part) for part in release.split()):
            report.warning("AIB026", source, message, hint="choose a supported release", key="sku", source="survey")
            return


def steps_fit_system(subject: Subject, report: Report) -> None:
    """AIB027: Shell runs on Linux, PowerShell, WindowsRestart and WindowsUpdate on Windows."""
    system = os_of_source(subject.source)
    if not system and {step.string("type") for step in subject.steps} & LINUX_TYPES:
        system = "linux" if not {step.string("type") for step in subject.steps[:1]} & WINDOWS_TYPES else "windows"
    wrong = WINDOWS_TYPES if system == "linux" else LINUX_TYPES if system == "windows" else frozenset()
    for step in subject.steps:
        if step.string("type") not in wrong:
            continue
        hint = ""
        if step.string("type") == "WindowsRestart":
            hint = "there is no Linux restart customizer; a Shell step may reboot (S21)"
        message = f"{step.string('type')} does not run on {system.capitalize()}"
        report.error("AIB027", step, message, hint=hint, source="JSON", key="type")


RULES = (source_ids, empty_fields, latest, plan_info, end_of_life, steps_fit_system)
