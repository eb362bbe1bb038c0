"""A template may name any path: what is no ordinary file is refused at once, and nothing is read without bound."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from orchestrator.template.diagnostics import Diagnostic
from orchestrator.template.load import FileChecks, inspect_templates
from orchestrator.template.regular_file import read_regular
from orchestrator.verbs.validate import template_files


def findings(folder: Path, *steps: dict[str, Any]) -> list[Diagnostic]:
    data = {"type": "Microsoft.VirtualMachineImages/imageTemplates", "properties": {"customize": list(steps)}}
    return list(inspect_templates(folder / "t.json", json.dumps(data), files=FileChecks(shell=None)).diagnostics)


def shell(uri: str, **more: Any) -> dict[str, Any]:
    return {"type": "Shell", "name": "s", "scriptUri": uri, **more}


@pytest.fixture
def special(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "link").symlink_to("fifo")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("fifo", "no regular file"),
        ("link", "no regular file"),
        ("folder", "a folder"),
        ("/dev/zero", "no regular file"),
        ("loop", "symbolic links"),
        ("a\0b", "null byte"),
        ("x" * 5000, "too long"),
        ("none", "there is no file"),
    ],
)
@pytest.mark.timeout(20)
def test_what_is_no_ordinary_file_is_an_error_at_once(special: Path, name: str, says: str) -> None:
    for step in (shell(name, sha256Checksum="0" * 64), {"type": "File", "sourceUri": name, "destination": "/tmp/x"}):
        told = [d for d in findings(special, step) if d.rule == "AIB039"]
        assert len(told) == 1
        assert says in told[0].message


@pytest.mark.parametrize("name", ["/proc/kmsg", "/proc/self/mem", "/proc/self/stat"])
@pytest.mark.timeout(20)
def test_files_without_a_size_are_not_read(tmp_path: Path, name: str) -> None:
    """/proc calls them ordinary files; a reader of kmsg waits for the kernel's next message."""
    findings(tmp_path, shell(name, sha256Checksum="0" * 64))
    try:
        assert read_regular(Path(name), 100) == b""
    except PermissionError:
        assert os.geteuid() != 0


def test_a_huge_script_is_neither_kept_nor_read_whole(tmp_path: Path) -> None:
    with (tmp_path / "huge.sh").open("wb") as huge:
        huge.truncate(200 * 2**20)
    tracemalloc.start()
    try:
        told = findings(tmp_path, shell("huge.sh", sha256Checksum="0" * 64), shell("huge.sh"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "AIB034" in {d.rule for d in told}
    assert peak < 16 * 2**20


def test_a_folder_with_special_files_is_searched(special: Path) -> None:
    os.mkfifo(special / "fifo.json")
    (special / "link.json").symlink_to("/dev/zero")
    (special / "t.json").write_text('{"type": "Microsoft.VirtualMachineImages/imageTemplates"}')
    assert template_files(special) == [special / "t.json"]
