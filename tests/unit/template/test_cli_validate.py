"""`aib validate` as a user calls it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from orchestrator.cli.validate import command

GOOD = {
    "type": "Microsoft.VirtualMachineImages/imageTemplates",
    "apiVersion": "2019-05-01-preview",
    "location": "eastus",
    "properties": {
        "source": {"type": "PlatformImage", "publisher": "P", "offer": "o", "sku": "s", "version": "1"},
        "distribute": [{"type": "VHD", "runOutputName": "<out>"}],
    },
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "t.json"
    path.write_text(json.dumps(GOOD, indent=2))
    return path


def test_an_error_shows_line_caret_and_help_and_exits_2(file: Path) -> None:
    result = CliRunner().invoke(command, [str(file)])
    lines = result.stdout.splitlines()
    shown = next(i for i, line in enumerate(lines) if "error[AIB003]" in line)
    source, caret = lines[shown + 2], lines[shown + 3]
    assert result.exit_code == 2
    assert source[caret.index("^") :].startswith('"<out>"')
    assert lines[shown + 4] == "    help: fill it with --set 'out=VALUE'"
    assert "1 file: 1 error" in result.stderr


def test_settings_make_it_valid(file: Path) -> None:
    result = CliRunner().invoke(command, [str(file), "--set", "out=x", "--json"])
    data = json.loads(result.stdout)
    assert (result.exit_code, data["valid"], data["templates"]) == (0, True, ["t"])


def test_json_holds_rule_place_and_hint(file: Path) -> None:
    data = json.loads(CliRunner().invoke(command, [str(file), "--json"]).stdout)
    first = next(d for d in data["diagnostics"] if d["severity"] == "error")
    assert (first["rule"], first["pointer"], first["file"]) == (
        "AIB003",
        "/properties/distribute/0/runOutputName",
        str(file),
    )
    assert first["line"] > 1


def test_a_folder_is_searched_and_standard_input_read(file: Path) -> None:
    (file.parent / "sub").mkdir()
    (file.parent / "sub" / "b.json").write_text(file.read_text())
    data = json.loads(CliRunner().invoke(command, [str(file.parent), "--json"]).stdout)
    assert len(data["files"]) == 2
    piped = CliRunner().invoke(command, ["-", "--set", "out=x"], input=file.read_text())
    assert piped.exit_code == 0


def test_control_characters_of_a_template_do_not_reach_the_terminal(file: Path) -> None:
    file.write_text(file.read_text().replace("<out>", "\\u001b[2J\u202e x"))
    result = CliRunner().invoke(command, [str(file)])
    assert result.exit_code == 2
    assert "\x1b" not in result.stdout
    assert "\u202e" not in result.stdout


def test_a_bad_setting_is_a_usage_error(file: Path) -> None:
    assert CliRunner().invoke(command, [str(file), "--set", "novalue"]).exit_code == 2


def test_the_checker_imports_nothing_heavy(file: Path) -> None:
    program = (
        "import sys; from orchestrator.cli.validate import command; command.main(sys.argv[1:], standalone_mode=False); "
        "heavy = {'libvirt', 'paramiko', 'winrm', 'requests', 'rich', 'pycdlib', 'sqlite3'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(file), "--set", "out=x"], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
