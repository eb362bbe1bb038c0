"""AIB043 looks at the later steps alone, and stays bounded for templates with thousands of files."""

from __future__ import annotations

import json
from typing import Any

import pytest

from orchestrator.template.load import inspect_templates
from orchestrator.template.rules import downloads

FILE = {"type": "File", "name": "f", "sourceUri": "https://example.com/app.conf", "destination": "/tmp/app/app.conf"}


def shell(*lines: str) -> dict[str, Any]:
    return {"type": "Shell", "name": "s", "inline": list(lines)}


def rules_of(*steps: dict[str, Any]) -> list[str]:
    document = {
        "type": "Microsoft.VirtualMachineImages/imageTemplates",
        "apiVersion": "2022-07-01",
        "properties": {"customize": list(steps)},
    }
    return [item.rule for item in inspect_templates(None, json.dumps(document)).diagnostics]


@pytest.mark.parametrize(
    "later",
    [
        shell("echo", "sudo mv /tmp/app/app.conf /etc"),
        shell("cd /tmp/app && sudo cp app.conf /etc"),
        shell("sudo cp -r /tmp/* /opt"),
        shell("sudo cp -r /tmp/app/*.conf /opt"),
        {"type": "Shell", "name": "s", "scriptUri": "https://example.com/x.sh"},
    ],
)
def test_a_file_that_a_later_step_may_use(later: dict[str, Any]) -> None:
    assert "AIB043" not in rules_of(FILE, shell("echo"), later)
    assert "AIB043" in rules_of(later, FILE, shell("echo")), "an earlier step cannot use it"


@pytest.mark.parametrize("later", [[], [shell("ls *", "cd /tmp/app/")], [shell("sudo cp -r /opt/* /srv")]])
def test_a_file_that_no_later_step_uses(later: list[dict[str, Any]]) -> None:
    assert "AIB043" in rules_of(FILE, *later)


def test_the_search_ends_where_it_would_take_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [FILE, shell("echo " + "x" * 100)] * 20
    whole = rules_of(*steps).count("AIB043")
    monkeypatch.setattr(downloads, "MAX_SEARCHED", 5_000)
    assert 0 < rules_of(*steps).count("AIB043") < whole == 20
