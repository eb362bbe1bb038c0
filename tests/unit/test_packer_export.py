"""`aib plan --packer`: the template it writes, what lies beside it, and Packer's own verdict on it."""

from __future__ import annotations

import json
import re
import stat
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hypervisor.errors import UsageError
from orchestrator.plan.model import MachinePlan, Payload, PlannedDistribution, ResolvedSource, RunPlan, Step
from orchestrator.plan.packer_export import packer_export
from orchestrator.template.model import VhdTarget
from orchestrator.verbs import packer
from provisioners.base import AZURE_ENVIRONMENT
from provisioners.generalize import default_script
from provisioners.remote_script import assignments
from provisioners.shell import shell_command

DIGEST = "ab" * 32
POWERSHELL = {"valid_exit_codes": [0, 3010], "run_elevated": True, "run_as_system": False}


def plan(folder: Path, *steps: Step, os: str = "linux", generation: str = "V1") -> RunPlan:
    disk = folder / "disk.qcow2"
    disk.touch()
    script = default_script("2023-07-01") if os == "linux" else ""
    path = "/tmp/DeprovisioningScript.sh" if os == "linux" else "c:\\DeprovisioningScript.ps1"
    last = Step(len(steps), "generalize", "Generalizing", "Generalize", {"script": script, "path": path, "os": os})
    return RunPlan(
        template_id="/subscriptions/s/resourceGroups/aib/providers/x/demo",
        template_name="demo",
        api_version="2023-07-01",
        location="eastus",
        source=ResolvedSource("ManagedImage", "base", "/base", "1.0.0", DIGEST, disk, "qcow2", 1 << 30, os, generation),
        machine=MachinePlan("Standard_B1s", 1, 1024, 1, 1024, (1 << 30) + 1, "uefi" if generation == "V2" else "bios"),
        steps=(*steps, last),
        distributions=(PlannedDistribution(VhdTarget("v"), "file:///v.vhd"),),
        budget=14400.0,
    )


def payload(folder: Path, content: bytes) -> Payload:
    path = folder / "payload"
    path.write_bytes(content)
    return Payload("https://x.invalid/a.sh", DIGEST, len(content), path)


def inline(index: int, *lines: str) -> Step:
    return Step(index, f"step {index}", "Customizing", "Shell", {"inline": list(lines), "as_root": False})


def windows(folder: Path) -> RunPlan:
    return plan(
        folder,
        Step(0, "ps", "Customizing", "PowerShell", {"inline": ["Get-Item C:\\", "$x = '{{ y }}'"], **POWERSHELL}),
        Step(1, "by uri", "Customizing", "PowerShell", POWERSHELL, payload(folder, b"exit 0\r\n")),
        Step(
            2, "restart", "Customizing", "WindowsRestart",
            {"restart_command": "shutdown /r /t 0", "restart_check_command": "", "restart_timeout": 600.0},
        ),
        Step(3, "file", "Customizing", "File", {"destination": "c:\\x"}, payload(folder, b"x")),
        os="windows",
    )  # fmt: skip


def provisioners(made: RunPlan) -> list[dict[str, Any]]:
    return packer_export(made).template["provisioners"]


def test_inline_lines_stay_inline_where_packer_would_not_change_them(tmp_path) -> None:
    made = plan(tmp_path, inline(0, "echo a", "echo b"), inline(1, "#!/bin/bash", "true"), inline(2, "echo {{ x }}"))
    exported = packer_export(made)
    _, first, second, third, _ = exported.template["provisioners"]
    assert first["inline"] == ["echo a", "echo b"]
    assert "inline" not in second
    assert exported.files["scripts/01-step-1.sh"] == b"#!/bin/bash\ntrue\n"
    assert second["script"] == "{{template_dir}}/scripts/01-step-1.sh"
    assert exported.files[third["script"].partition("/")[2]] == b"#!/bin/sh -e\necho {{ x }}\n"


def test_a_script_by_uri_is_run_by_the_command_line_of_our_own_provisioner(tmp_path) -> None:
    """With Packer's template filled in as Packer does it."""
    script = Step(0, "s", "Customizing", "Shell", {"as_root": True}, payload(tmp_path, b"#!/bin/sh\r\n"))
    _, shell, _ = provisioners(plan(tmp_path, script))
    filled = shell["execute_command"].replace("{{.Vars}}", assignments(AZURE_ENVIRONMENT)).replace("{{.Path}}", "/p")
    assert filled == shell_command("/p", AZURE_ENVIRONMENT, as_root=True)
    assert shell["environment_vars"] == ["PACKER_BUILDER_TYPE=azure-arm"]
    (login,) = [
        each
        for each in provisioners(plan(tmp_path, replace(script, settings={"as_root": False})))
        if each["type"] == "shell"
    ]
    assert "execute_command" not in login


def test_the_builder_is_the_build_vm(tmp_path) -> None:
    (builder,) = packer_export(plan(tmp_path, inline(0, "true"), generation="V2")).template["builders"]
    assert builder["name"] == AZURE_ENVIRONMENT["PACKER_BUILD_NAME"]
    assert builder["disk_size"] == "1025M"  # never smaller than planned
    assert builder["iso_checksum"] == f"sha256:{DIGEST}"
    assert (builder["cpus"], builder["memory"]) == (1, 1024)
    assert builder["qemuargs"][0] == ["-bios", "{{user `firmware`}}"]


def test_windows_goes_over_winrm_and_keeps_its_password_out_of_the_template(tmp_path) -> None:
    template = packer_export(windows(tmp_path)).template
    (builder,) = template["builders"]
    assert (builder["communicator"], builder["winrm_port"], builder["winrm_use_ssl"]) == ("winrm", 5986, True)
    assert template["variables"]["winrm_password"] == ""
    assert template["sensitive-variables"] == ["winrm_password"]
    kinds = [each["type"] for each in template["provisioners"]]
    assert kinds == ["powershell", "powershell", "windows-restart", "file", "powershell"]
    assert template["provisioners"][0]["elevated_user"] == "packer"
    assert template["provisioners"][2]["restart_timeout"] == "600s"


@pytest.mark.parametrize("generation", ["V1", "V2"])
def test_what_is_written_is_whole_and_packer_accepts_it(tmp_path, generation) -> None:
    script = Step(1, "../../evil name", "Customizing", "Shell", {"as_root": True}, payload(tmp_path, b"#!/bin/sh\n"))
    folder = tmp_path / "new" / "packer"
    exported = packer.export(plan(tmp_path, inline(0, "true"), script, generation=generation), folder)
    assert re.fullmatch(r"checked by Packer \d+\.\d+\.\d+", exported.verdict)
    assert exported.template == folder / "template.json"
    key = folder / "id_ed25519"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert {path.name for path in folder.iterdir()} == {"template.json", "id_ed25519", "seed.iso", "scripts", "files"}
    assert [path.name for path in (folder / "scripts").iterdir()] == ["01-evil-name.sh"]
    assert [path.name for path in folder.parent.iterdir()] == ["packer"]
    for source in (p.get("source", p.get("script")) for p in json.loads(exported.template.read_text())["provisioners"]):
        assert source is None or (folder / source.replace("{{template_dir}}/", "")).is_file()


def test_packer_accepts_the_windows_template(tmp_path) -> None:
    exported = packer.export(windows(tmp_path), tmp_path / "packer")
    assert exported.verdict.startswith("checked by Packer ")
    assert not (tmp_path / "packer" / "id_ed25519").exists()


def test_packer_rejects_what_it_does_not_know(tmp_path) -> None:
    """windows-update is no part of Packer itself: where its plugin is missing, Packer's words come through."""
    settings = {"search_criteria": "IsInstalled=0", "filters": ["include:$true"], "update_limit": 10}
    made = plan(tmp_path, Step(0, "u", "Customizing", "WindowsUpdate", settings), os="windows")
    with pytest.raises(packer.PackerRejects, match=r"rejects .*: Failed .* Unknown provisioner windows-update"):
        packer.export(made, tmp_path / "packer")
    assert (tmp_path / "packer" / "template.json").is_file()


def test_without_packer_or_its_library_the_template_is_written_unchecked(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "not installed" in packer.export(plan(tmp_path, inline(0, "true")), tmp_path / "a").verdict
    monkeypatch.setitem(sys.modules, "packer", None)
    assert "python-packer" in packer.export(plan(tmp_path, inline(0, "true")), tmp_path / "b").verdict


def test_a_folder_in_use_is_left_alone(tmp_path) -> None:
    made = plan(tmp_path, inline(0, "true"))
    with pytest.raises(UsageError, match="not empty"):
        packer.export(made, tmp_path)
    with pytest.raises(UsageError, match="comma"):
        packer.export(made, tmp_path / "a,b")
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(UsageError, match="not empty"):
        packer.export(made, file)


def test_notes_say_what_a_packer_template_cannot(tmp_path) -> None:
    notes = " ".join(packer_export(plan(tmp_path, inline(0, "true"))).notes)
    assert "240 minutes" in notes
    assert "distributes" in notes
    assert "PACKER_HTTP_ADDR" in notes
    aborting = replace(plan(tmp_path, inline(0, "true")), on_customizer_error="abort")
    assert "-on-error=abort" in " ".join(packer_export(aborting).notes)
