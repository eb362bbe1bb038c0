"""`aib validate` as a user calls it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from hypervisor.errors import InputError, UsageError
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
    (file.parent / "package.json").write_text('{"name": "something else"}')
    (file.parent / "utf16.json").write_bytes(file.read_text().encode("utf-16"))
    data = json.loads(CliRunner().invoke(command, [str(file.parent), "--json"]).stdout)
    assert [Path(name).name for name in data["files"]] == ["b.json", "t.json", "utf16.json"]
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


def test_the_checker_imports_nothing_heavy(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIB_HOME", str(tmp_path))
    for folder in ("resources", "runs"):
        (tmp_path / folder).mkdir()
    program = (
        "import sys; from orchestrator.cli.validate import command; command.main(sys.argv[1:], standalone_mode=False); "
        "heavy = {'libvirt', 'paramiko', 'winrm', 'requests', 'rich', 'pycdlib', 'sqlite3'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(file), "--set", "out=x"], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()


def told(*arguments: str) -> tuple[int, set[str]]:
    result = CliRunner().invoke(command, [*arguments, "--json"])
    return result.exit_code, {d["rule"] for d in json.loads(result.stdout)["diagnostics"]}


def test_rules_can_be_left_out_chosen_and_made_to_fail(file: Path) -> None:
    good = (str(file), "--set", "out=x")
    assert told(*good) == (0, {"AIB006"})
    assert told(*good, "--ignore", "AIB006") == (0, set())
    assert told(*good, "--only", "AIB023 aib035") == (0, set())
    assert told(*good, "--fail-on", "info") == (2, {"AIB006"})
    assert told(str(file), "--fail-on", "never")[0] == 0
    assert told(str(file), "--ignore", "AIB003") == (0, {"AIB006"})


def test_a_project_file_sets_levels_and_the_command_line_has_the_last_word(file: Path) -> None:
    project = file.parent / "aib.toml"
    project.write_text('[validate]\nfail-on = "warning"\n[validate.levels]\nAIB006 = "warning"\n')
    good = (str(file), "--set", "out=x")
    assert told(*good) == (2, {"AIB006"})
    assert told(*good, "--fail-on", "error") == (0, {"AIB006"})
    project.write_text('[validate]\nignore = ["AIB006"]\ntarget-version = "2024-02-01"\n')
    assert told(*good) == (2, {"AIB011", "AIB014"})
    project.write_text("[validate]\nignroe = []\n")
    result = CliRunner().invoke(command, list(good))
    assert isinstance(result.exception, UsageError)


@pytest.mark.parametrize(
    ("text", "option"),
    [('target-version = "2031-01-01"', ("--target-version", "2031-01-01")),
     ('ignore = ["AIB999"]', ("--ignore", "AIB999")), ('ignore = ["AIB01"]', ("--only", "AIB01"))],
)  # fmt: skip
def test_a_mistyped_rule_or_version_is_not_silently_without_effect(
    file: Path, text: str, option: tuple[str, str]
) -> None:
    result = CliRunner().invoke(command, [str(file), *option])
    assert isinstance(result.exception, UsageError)
    assert option[1] in result.exception.message
    (file.parent / "aib.toml").write_text(f"[validate]\n{text}\n")
    result = CliRunner().invoke(command, [str(file)])
    assert isinstance(result.exception, UsageError)
    assert str(file.parent / "aib.toml") in result.exception.message
    assert result.exception.hint


def test_github_annotations_cannot_be_broken_out_of(file: Path) -> None:
    file.write_text(file.read_text().replace("<out>", "a\\n::error::b"))
    lines = CliRunner().invoke(command, [str(file), "--format", "github"]).stdout.splitlines()
    errors = [line for line in lines if line.startswith("::error")]
    assert len(errors) == 1
    assert errors[0].startswith(f"::error file={file},line=16,col=")
    assert all(line.startswith("::") for line in lines)


def test_sarif_names_each_rule_and_place(file: Path) -> None:
    log = json.loads(CliRunner().invoke(command, [str(file), "--format", "sarif"]).stdout)
    run = log["runs"][0]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert (log["version"], rules) == ("2.1.0", ["AIB003", "AIB006"])
    for result in run["results"]:
        assert rules[result["ruleIndex"]] == result["ruleId"]
        place = result["locations"][0]["physicalLocation"]
        assert place["artifactLocation"]["uri"] == file.as_uri()
        assert place["region"]["startLine"] >= 1
        assert result["level"] in ("error", "warning", "note")
    assert all(rule["help"]["text"] and rule["shortDescription"]["text"] for rule in run["tool"]["driver"]["rules"])


@pytest.mark.parametrize("name", ["t.yaml", "t.tf"])
def test_other_kinds_of_templates_are_refused_with_a_way_out(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("a: b")
    result = CliRunner().invoke(command, [str(tmp_path / name)])
    assert isinstance(result.exception, InputError)
    assert result.exception.hint


@pytest.mark.parametrize("padding", [0, 300, 5000])
def test_a_signature_is_masked_in_the_line_that_is_shown(tmp_path: Path, padding: int) -> None:
    steps = [{"type": "Shell", "scriptUri": "https://a.blob.core.windows.net/c/x?sv=1&sig=S3CR3T%2Bxyz&x=y"}]
    data = {**GOOD, "tags": {"a": "x" * padding}, "properties": {**GOOD["properties"], "customize": steps}}
    path = tmp_path / "t.json"
    path.write_text(json.dumps(data))
    for form in ("text", "json", "sarif", "github"):
        shown = CliRunner().invoke(command, [str(path), "--format", form]).stdout
        assert "AIB038" in shown
        assert "S3CR3T" not in shown
