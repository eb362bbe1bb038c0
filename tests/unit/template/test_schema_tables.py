"""The field tables against the published schemas, row by row, and the recorded exceptions."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from orchestrator.template.schema.tables import Field, VariantType, nearest_version, older, tables

FACTS = json.loads((Path(__file__).parents[3] / "fixtures" / "schema" / "fields-by-version.json").read_text())["fields"]
ROWS = [(name, *span.split("..")) for span, names in FACTS.items() for name in names]
VERSIONS = tables().versions[1:-1]  # the published table leaves out the first and the last one
EXCEPTIONS = {
    # documented for a version although its schema lacks it (SEED), or shown by later revisions of it
    ("vmProfile.osDiskSizeGB", "2019-05-01-preview"), ("vmProfile.vnetConfig", "2019-05-01-preview"),
    ("customize[PowerShell].runAsSystem", "2020-02-14"),
    *((f"customize[WindowsUpdate].{name}", "2019-05-01-preview")
      for name in ("type", "name", "searchCriteria", "filters", "updateLimit")),
}  # fmt: skip
PARENTS = {
    # prefix of a row: the object of the tables, and the fields that lead to it
    "properties.": ("properties", ()),
    "vmProfile.vnetConfig.": ("vnetConfig", (("properties", "vmProfile"), ("vmProfile", "vnetConfig"))),
    "vmProfile.": ("vmProfile", (("properties", "vmProfile"),)),
    "source.planInfo.": ("planInfo", (("source/PlatformImage", "planInfo"),)),
    "validate.": ("validate", (("properties", "validate"),)),
    "optimize.vmBoot.": ("vmBoot", (("properties", "optimize"), ("optimize", "vmBoot"))),
    "errorHandling.": ("errorHandling", (("properties", "errorHandling"),)),
    "autoRun.": ("autoRun", (("properties", "autoRun"),)),
    "distribute.targetRegions[].": ("targetRegion", (("distributor/SharedImage", "targetRegions"),)),
    "distribute.versioning[Latest].": ("versioning/Latest", (("distributor/SharedImage", "versioning"),)),
    "distribute.versioning[Source].": ("versioning/Source", (("distributor/SharedImage", "versioning"),)),
    "": ("resource", ()),
}
VARIANTS = {"source": "source", "customize": "customizer", "distribute": "distributor", "validate": "validator"}


def field(owner: str, name: str) -> Field:
    variant, _, kind = owner.partition("/")
    fields = tables().variants[variant].types[kind].fields if kind else tables().objects[owner]
    return fields[name]


def path_to(row: str) -> list[Field | VariantType]:
    """Everything that must exist in a version for the row's field to exist."""
    member = re.fullmatch(r"(source|customize|distribute|validate)\[(\w+)\]\.(\w+)", row)
    if member:
        variant, kind, name = VARIANTS[member[1]], member[2], member[3]
        above = [field("properties", member[1])]
        return [*above, tables().variants[variant].types[kind], field(f"{variant}/{kind}", name)]
    prefix = next(p for p in PARENTS if row.startswith(p))
    owner, leading = PARENTS[prefix]
    return [*(field(*step) for step in leading), field(owner, row[len(prefix) :])]


@pytest.mark.parametrize(("row", "first", "last"), ROWS, ids=[row[0] for row in ROWS])
def test_the_row_holds(row: str, first: str, last: str) -> None:
    for version in VERSIONS:
        published = not older(version, first) and not older(last, version)
        known = all(step.is_in(version) for step in path_to(row))
        assert known is (published or (row, version) in EXCEPTIONS), version


def test_the_table_is_whole() -> None:
    assert len(ROWS) == 124


@pytest.mark.parametrize(
    ("owner", "name", "since"),
    [
        ("vmProfile", "additionalDataDisks", "2025-10-01"),
        ("optimize", "workload", "2025-10-01"),
        ("distributor/SharedImage", "replicationMode", "2025-10-01"),
    ],
)
def test_what_the_newest_version_adds(owner: str, name: str, since: str) -> None:
    assert field(owner, name).since == since
    assert not field(owner, name).is_in("2024-02-01")


def test_the_first_preview_spells_types_in_lower_case() -> None:
    shell = tables().variants["customizer"].types["Shell"]
    assert (shell.spelling("2018-02-01-preview"), shell.spelling("2019-02-01-preview")) == ("shell", "Shell")


@pytest.mark.parametrize(
    ("version", "judged_as"),
    [("2099-01-01", "2025-10-01"), ("2017-01-01", "2018-02-01-preview"), ("2020-12-31", "2020-02-14")],
)
def test_unknown_versions_are_judged_by_the_last_before_them(version: str, judged_as: str) -> None:
    assert nearest_version(version) == judged_as
