"""Versions of gallery images: every example of the service's documentation, and the edges."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from hypervisor.errors import TemplateError
from orchestrator.plan.gallery_versions import Version, legacy, next_version
from orchestrator.record.arm_ids import MAX_VERSION_PART, parse_version
from orchestrator.template.model import Versioning

NOW = datetime(2020, 5, 15, 14, 31, 19, tzinfo=UTC)


def versions(text: str) -> set[Version]:
    return {parse_version(part) for part in text.split()}


DOCUMENTED = versions("0.1.1 0.1.2 1.0.0 1.0.1 1.1.0 1.1.1 1.2.0 2.0.0 2.0.1 2.1.0")


@pytest.mark.parametrize(
    ("moment", "version"),
    [
        (NOW, "0.24254.42935"),
        (datetime(2022, 2, 6, 18, 2, 3, tzinfo=UTC), "0.25088.3355"),
    ],
)
def test_legacy_versions_seen_in_public(moment: datetime, version: str) -> None:
    assert next_version(None, set(), moment) == parse_version(version)


def test_the_legacy_version_of_the_users_document_is_a_day_of_january_2020() -> None:
    major, high, low = parse_version("0.24105.52755")
    moment = datetime.fromtimestamp(high * 65536 + low, UTC)
    assert moment.date().isoformat() == "2020-01-23"
    assert legacy(int(moment.timestamp())) == (major, high, low)


def test_legacy_versions_rise_and_differ() -> None:
    first = next_version(None, set(), NOW)
    second = next_version(None, {first}, NOW)
    assert first < second < next_version(None, {first, second}, NOW + timedelta(seconds=9))


@pytest.mark.parametrize(("major", "version"), [(-1, "2.1.1"), (2, "2.1.1"), (1, "1.2.1"), (0, "0.1.3")])
def test_latest_as_documented(major: int, version: str) -> None:
    assert next_version(Versioning("Latest", major), DOCUMENTED, NOW) == parse_version(version)


@pytest.mark.parametrize(("major", "version"), [(-1, "0.0.1"), (0, "0.0.1"), (3, "3.0.1")])
def test_latest_without_a_version(major: int, version: str) -> None:
    assert next_version(Versioning("Latest", major), set(), NOW) == parse_version(version)


def test_latest_of_a_new_major() -> None:
    assert next_version(Versioning("Latest", 7), DOCUMENTED, NOW) == (7, 0, 1)


def test_after_the_highest_patch_there_is_none() -> None:
    with pytest.raises(TemplateError, match="2147483647"):
        next_version(Versioning("Latest"), {(1, 0, MAX_VERSION_PART)}, NOW)


def test_source_takes_the_sources_version_and_then_its_next_patch() -> None:
    scheme = Versioning("Source")
    assert next_version(scheme, DOCUMENTED, NOW, "3.1.4") == (3, 1, 4)
    assert next_version(scheme, DOCUMENTED, NOW, "1.1.0") == (1, 1, 2)


@pytest.mark.parametrize(
    ("source", "version"),
    [("17763.1158.2004131759", "17763.1158.2004131759"), ("0.20261122.abcdef12", "0.20261122.0"), ("12", "12.0.0"),
     ("1.2.3.4", "1.2.3")],
)  # fmt: skip
def test_source_versions_of_other_shapes(source: str, version: str) -> None:
    assert next_version(Versioning("Source"), set(), NOW, source) == parse_version(version)


@pytest.mark.parametrize("version", ["", "latest", "1.2.2147483648", "v1.2.3"])
def test_source_needs_a_version(version: str) -> None:
    with pytest.raises(TemplateError, match="Source"):
        next_version(Versioning("Source"), set(), NOW, version)
