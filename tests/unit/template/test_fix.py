"""`aib validate --fix`: the wrong characters change, everything else stays."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from orchestrator.cli.validate import command

IDENTITY = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/b"
GALLERY = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/galleries/g/images/d"
DIRTY = """{
   "type": "Microsoft.VirtualMachineImages",   // keep me
   "apiVersion": "2022-07-01", "location": "eastus",
   "identity": {"type": "UserAssigned", "userAssignedIdentities": {"%s": {}}},
   "properties": {
      "buildTimeoutInMinutes" : "90",
      "Source": {"type": "platformImage", "publisher": "P", "offer": "o", "sku": "s", "version": "1" },
      "customize": [
         {"type": "PowerShell", "name": "a", "inline": "dir \\"x\\"", "RunElevated": "True", "validExitCodes": "0"},
         {"type": "PowerShell", "name": "b", "inline": ["dir"], "valid_exit_codes": [0], "validExitCodes": ["3010"]},
         {"type": "WindowsRestart", "name": "c", "restartTimeout": "5"},
      ],
      "distribute": [ {"type": "sharedImage", "runOutputName": "o", "galleryImageId": "%s",
                       "aritfactTags": {}, "replicationRegions": ["eastus", "westus"]} ]
   }
}
""" % (IDENTITY, GALLERY)  # noqa: UP031 - braces all over
CLEAN = """{
   "type": "Microsoft.VirtualMachineImages/imageTemplates",   // keep me
   "apiVersion": "2022-07-01", "location": "eastus",
   "identity": {"type": "UserAssigned", "userAssignedIdentities": {"%s": {}}},
   "properties": {
      "buildTimeoutInMinutes" : 90,
      "source": {"type": "PlatformImage", "publisher": "P", "offer": "o", "sku": "s", "version": "1" },
      "customize": [
         {"type": "PowerShell", "name": "a", "inline": ["dir \\"x\\""], "runElevated": true, "validExitCodes": [0]},
         {"type": "PowerShell", "name": "b", "inline": ["dir"], "valid_exit_codes": [0], "validExitCodes": [3010]},
         {"type": "WindowsRestart", "name": "c", "restartTimeout": "5m"}
      ],
      "distribute": [ {"type": "SharedImage", "runOutputName": "o", "galleryImageId": "%s",
                       "artifactTags": {}, "targetRegions": [{ "name": "eastus" }, { "name": "westus" }]} ]
   }
}
""" % (IDENTITY, GALLERY)  # noqa: UP031 - as above


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_everything_mechanical_is_fixed_and_nothing_else_moves(tmp_path: Path, newline: str) -> None:
    file = tmp_path / "t.json"
    file.write_text(DIRTY, newline=newline)
    file.chmod(0o640)
    result = CliRunner().invoke(command, ["--fix", str(file), "--no-shell-tools"])
    assert file.read_bytes().decode() == CLEAN.replace("\n", newline)
    assert file.stat().st_mode & 0o777 == 0o640
    assert result.exit_code == 0, result.stdout
    assert '-      "buildTimeoutInMinutes" : "90",' in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["t.json"]


def test_diff_shows_and_does_not_write(tmp_path: Path) -> None:
    file = tmp_path / "t.json"
    file.write_text(DIRTY)
    result = CliRunner().invoke(command, ["--diff", str(file)])
    assert '+      "buildTimeoutInMinutes" : 90,' in result.stdout
    assert file.read_text() == DIRTY


def test_a_second_run_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "t.json"
    file.write_text(CLEAN)
    CliRunner().invoke(command, ["--fix", str(file)])
    assert file.read_text() == CLEAN


def test_rules_that_are_left_out_change_nothing(tmp_path: Path) -> None:
    file = tmp_path / "t.json"
    file.write_text(DIRTY)
    CliRunner().invoke(command, ["--fix", str(file), "--only", "AIB016"])
    before, after = DIRTY.splitlines(), file.read_text().splitlines()
    assert [new for old, new in zip(before, after, strict=True) if old != new] == [
        '      "buildTimeoutInMinutes" : 90,',
        '         {"type": "WindowsRestart", "name": "c", "restartTimeout": "5"}',
    ]  # and the comma: syntax is never left out


def test_values_out_of_expressions_are_not_rewritten(tmp_path: Path) -> None:
    resource = json.loads(CLEAN.replace("// keep me", ""))
    resource["properties"]["buildTimeoutInMinutes"] = "[string(90)]"
    file = tmp_path / "t.json"
    file.write_text(json.dumps({"resources": [resource]}))
    before = file.read_text()
    result = CliRunner().invoke(command, ["--fix", str(file)])
    assert result.exit_code == 2
    assert file.read_text() == before


def test_a_byte_order_mark_goes_with_the_first_fix(tmp_path: Path) -> None:
    file = tmp_path / "t.json"
    file.write_bytes(b"\xef\xbb\xbf" + DIRTY.encode())
    CliRunner().invoke(command, ["--fix", str(file)])
    assert file.read_bytes() == CLEAN.encode()
