"""Suggestions for misspelt names stay cheap: none among thousands of names, else among similar ones alone."""

from __future__ import annotations

import json

import pytest

from orchestrator.template.arm import deployment
from orchestrator.template.load import inspect_templates
from orchestrator.template.report import MAX_OF_A_KIND


def hint_for(name: str, known: dict[str, str]) -> str:
    document = {
        "variables": known,
        "resources": [
            {
                "type": "Microsoft.VirtualMachineImages/imageTemplates",
                "properties": {},
                "name": f"[variables('{name}')]",
            }
        ],
    }
    found = [item for item in inspect_templates(None, json.dumps(document)).diagnostics if item.rule == "AIB004"]
    assert f"has no variable '{name}'" in found[0].message
    return found[0].hint


def test_a_misspelt_variable_gets_a_suggestion() -> None:
    assert hint_for("imagName", {"imageName": "a", "other": "b"}) == "did you mean imagename?"
    assert hint_for("nothing", {"imageName": "a", "other": "b"}) == ""


def test_thousands_of_variables_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {f"name{i}": "x" for i in range(deployment.MAX_SUGGESTED_FROM + 1)}
    monkeypatch.setattr("difflib.get_close_matches", None)
    assert hint_for("nam7", known) == ""


def test_thousands_of_the_same_finding_are_cut_short_and_hide_no_other() -> None:
    found = inspect_templates(None, json.dumps([f"<open{i}>" for i in range(MAX_OF_A_KIND * 2)])).diagnostics
    opened = [item for item in found if item.rule == "AIB003"]
    assert len(opened) == MAX_OF_A_KIND + 1
    assert opened[-1].message == f"and {MAX_OF_A_KIND:,} more of AIB003"
    assert "AIB005" in {item.rule for item in found}
