"""The shell's own checkers: many scripts to a process, findings kept, no more time than was given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import hypervisor.process
from orchestrator.cli.validate import command
from orchestrator.template import shell_processes
from orchestrator.template.shell_syntax import ShellTools, shell_of

GOOD = b"#!/bin/sh -e\ntrue\n"
BROKEN = b"if true; then\n"


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the programs that were started."""
    names: list[str] = []
    run = hypervisor.process.run

    def counted(argv: Any, **options: Any) -> Any:
        names.append(str(argv[0]))
        return run(argv, **options)

    monkeypatch.setattr(shell_processes, "run", counted)
    return names


def test_findings_are_kept(tmp_path: Path, started: list[str]) -> None:
    first = ShellTools(tmp_path).check([BROKEN])
    assert first[0] is not None
    assert [f.tool for f in first[0]][:1] == ["sh -n"]
    before = len(started)
    assert ShellTools(tmp_path).check([BROKEN]) == first
    assert len(started) == before
    next(tmp_path.iterdir()).write_text("torn")
    assert ShellTools(tmp_path).check([BROKEN]) == first
    assert len(started) > before


def test_many_scripts_share_a_process_and_keep_their_own_findings(started: list[str]) -> None:
    scripts = [b"#!/bin/bash\necho $(\n" if i % 3 == 0 else b"echo %d\n" % i for i in range(shell_processes.BATCH + 9)]
    found = ShellTools().check(scripts)
    assert [bool(each) for each in found] == [i % 3 == 0 for i in range(len(scripts))]
    assert found[0] is not None
    assert found[0][0].tool == "bash -n"
    assert started.count("sh") <= 3
    assert started.count("shellcheck") <= 3


def test_the_line_is_that_of_the_script() -> None:
    (sh, bash) = ShellTools().check([b"true\n\nfi\n", b"#!/bin/bash\ntrue\nfi\n"])
    assert sh is not None and bash is not None
    assert (sh[0].line, bash[0].line) == (3, 3)


@pytest.mark.parametrize("script", [b"", b" \n", b"#!/usr/bin/python3\nif\n", b"#!/usr/bin/env perl\n("])
def test_other_interpreters_and_nothing_are_left_alone(script: bytes, started: list[str]) -> None:
    assert ShellTools().check([script]) == [()]
    assert started == []


def test_shells_are_told_by_the_first_line() -> None:
    lines = [b"true", b"#!/bin/sh -e", b"#! /usr/bin/env bash", b"#!/usr/bin/bash\r", b"#!/bin/zsh", b"#!"]
    assert [shell_of(line) for line in lines] == ["sh", "sh", "bash", "bash", "", ""]


def test_a_script_that_is_too_long_is_said_and_costs_nothing(started: list[str]) -> None:
    long = b"a\n" * (shell_processes.SHELLCHECK_LINES + 1)
    huge = b"#" + b"x" * 600_000
    (for_sh, for_nobody) = ShellTools().check([long, huge])
    assert [(f.tool, f.is_note) for f in for_sh or ()] == [("ShellCheck", True)]
    assert [(f.tool, f.is_note) for f in for_nobody or ()] == [("sh -n and ShellCheck", True)]
    assert "shellcheck" not in started


def test_without_time_nothing_is_started_and_it_is_said(tmp_path: Path, started: list[str]) -> None:
    step = {"type": "Shell", "name": "s", "inline": ["if true; then"]}
    data = {"type": "Microsoft.VirtualMachineImages/imageTemplates", "properties": {"customize": [step]}}
    (tmp_path / "t.json").write_text(json.dumps(data))
    words = [str(tmp_path / "t.json"), "--shell-seconds", "0", "--json"]
    done = CliRunner().invoke(command, words, env={"XDG_CACHE_HOME": str(tmp_path)})
    told = [d for d in json.loads(done.stdout)["diagnostics"] if d["rule"] == "AIB048"]
    assert [(d["severity"], d["message"]) for d in told] == [
        ("info", "1 shell script was not looked at by sh -n and ShellCheck")
    ]
    assert started == []


def test_a_tool_that_does_not_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shellcheck").write_text("#!/bin/sh\nexec sleep 600\n")
    (tmp_path / "shellcheck").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    tools = ShellTools(seconds=0.5)
    assert tools.check([GOOD, b"echo 1\n"]) == [None, None]
    assert tools.left <= 0
    assert tools.check([b"echo 2\n"]) == [None]
