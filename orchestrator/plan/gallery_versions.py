"""Which version a gallery image gets (facts: `2.5`). Pure."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from datetime import datetime

from hypervisor.errors import TemplateError
from orchestrator.record.arm_ids import MAX_VERSION_PART
from orchestrator.template.model import Versioning

Version = tuple[int, int, int]

_LEGACY_UNIT = 65536


def legacy(unix_time: int) -> Version:
    """`0.<unixtime div 65536>.<unixtime mod 65536>`: without `versioning` (derived, and checked on public examples)."""
    return 0, unix_time // _LEGACY_UNIT, unix_time % _LEGACY_UNIT


def next_version(
    versioning: Versioning | None, taken: Collection[Version], now: datetime, source_version: str = ""
) -> Version:
    """The version that a distributor with this `versioning` gets when `taken` are there.

    Legacy: `legacy` of now, or of the next second that is free (inferred: two in one second must differ).
    Latest: documented, but for what a gallery without versions gives: <major or 0>.0.1 here (unknown).
    Source: the leading numbers of the source image's version, or the next free patch (unknown: the service says only
    that it goes by the source's version).
    Raises `TemplateError` when there is none.
    """
    if versioning is None:
        moment = int(now.timestamp())
        while legacy(moment) in taken:
            moment += 1
        return legacy(moment)
    if versioning.scheme == "Source":
        return _from_source(source_version, taken)
    return _latest(versioning.major, taken)


def _latest(major: int, taken: Collection[Version]) -> Version:
    rivals = [version for version in taken if major in (-1, version[0])]
    return _with_next_patch(max(rivals, default=(max(major, 0), 0, 0)))


def _from_source(source_version: str, taken: Collection[Version]) -> Version:
    numbers = [int(part) for part in itertools.takewhile(str.isdecimal, source_version.split(".")[:3])]
    if not numbers or max(numbers) > MAX_VERSION_PART:
        raise TemplateError(
            f"versioning scheme Source: the source image's version {source_version!r} gives no gallery version",
            hint="use the scheme Latest, or a source with a version x.y.z (a managed image has none)",
        )
    major, minor, patch = (*numbers, 0, 0)[:3]
    if (major, minor, patch) not in taken:
        return major, minor, patch
    return _with_next_patch(max(version for version in taken if version[:2] == (major, minor)))


def _with_next_patch(version: Version) -> Version:
    major, minor, patch = version
    if patch >= MAX_VERSION_PART:
        raise TemplateError(
            f"after version {major}.{minor}.{patch} there is none: a part is at most {MAX_VERSION_PART}",
            hint="publish a version with a higher number explicitly: galleryImageId .../versions/<x.y.z>",
        )
    return major, minor, patch + 1
