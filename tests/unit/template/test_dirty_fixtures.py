"""Every kind of dirt and shape that real files have, as files: what is said about each, and what comes out of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.template.diagnostics import Severity
from orchestrator.template.load import inspect_templates

FOLDER = Path(__file__).parents[3] / "fixtures" / "templates"
DIRTY = {
    # file: errors, warnings
    "byte-order-mark.json": (set(), {"AIB002"}),
    "comments.jsonc": (set(), {"AIB001"}),
    "control-characters.json": (set(), {"AIB002"}),
    "crlf.json": (set(), set()),
    "duplicate-names.json": ({"AIB001"}, set()),
    "latin-1.json": ({"AIB001"}, set()),
    "missing-bracket.json": ({"AIB001"}, set()),
    "missing-comma.json": ({"AIB001"}, set()),
    "missing-value.json": ({"AIB001"}, set()),
    "misspelt-names.json": (set(), {"AIB008", "AIB009"}),
    "placeholders.json": ({"AIB003"}, set()),
    "provider-as-type.json": ({"AIB005"}, set()),
    "quoted-types.json": ({"AIB016", "AIB029", "AIB030"}, set()),
    "trailing-commas.json": ({"AIB001"}, set()),
    "unclosed-string.json": ({"AIB001"}, set()),
    "utf-16.json": (set(), {"AIB002"}),
}
SHAPES = {
    "as-the-service-answers.json": ["echo"],
    "copy-and-condition.json": ["a", "c"],
    "nested-deployment.json": ["nested-template"],
    "symbolic-names.json": ["symbolic"],
    "two-templates.json": ["first", "second"],
}


@pytest.mark.parametrize("name", DIRTY)
def test_the_dirt_is_named(name: str) -> None:
    result = inspect_templates(FOLDER / "dirty" / name)
    by_level = {level: {d.rule for d in result.diagnostics if d.severity is level} for level in Severity}
    assert (by_level[Severity.ERROR], by_level[Severity.WARNING]) == DIRTY[name]
    assert len(result.templates) == (0 if DIRTY[name][0] else 1)


@pytest.mark.parametrize("name", SHAPES)
def test_the_shape_is_understood(name: str) -> None:
    result = inspect_templates(FOLDER / "shapes" / name)
    assert [d for d in result.diagnostics if d.severity is Severity.ERROR] == []
    assert [template.name for template in result.templates] == SHAPES[name]


def test_a_placeholder_file_is_fine_once_filled() -> None:
    given = {"region": "westus2", "runOutputName": "disk", "minutes": "60"}
    result = inspect_templates(FOLDER / "dirty" / "placeholders.json", settings=given)
    assert result.templates[0].location == "westus2"
    assert result.templates[0].build_timeout_minutes == 60


def test_no_fixture_is_forgotten() -> None:
    assert {path.name for path in (FOLDER / "dirty").iterdir()} == set(DIRTY)
    assert {path.name for path in (FOLDER / "shapes").iterdir()} == set(SHAPES)


def test_a_nested_deployment_has_its_own_resource_group() -> None:
    result = inspect_templates(FOLDER / "shapes" / "nested-deployment.json")
    assert result.templates[0].tags == {"group": "images"}
