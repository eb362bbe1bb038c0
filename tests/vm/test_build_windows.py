"""Whole builds of the Windows-like guest: real restarts, a real power-off, and what a guest may do to a build."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fixtures.guests.windows.vm.build import LISTENING, UPDATE, ensure_listening_image, ensure_windows_image
from tests.vm.conftest import TemplateWriter
from tests.vm.support import Home

pytestmark = pytest.mark.vm

GENERALIZED, SET_UP = "aib-tests:windows:generalized:1.0.0", "aib-tests:windows:listening:1.0.0"
GIB = 1 << 30
Writer = Callable[..., Path]


@pytest.fixture(scope="session")
def windows_home(shared_home: Home, build_cache: Path) -> Home:
    """The shared home, with both stand-ins for Windows imported."""
    for image, urn in ((ensure_windows_image(build_cache), GENERALIZED), (ensure_listening_image(build_cache), SET_UP)):
        shared_home.ok("image", "import", image, "--urn", urn, "--os", "windows", "--generation", "V1")
    return shared_home


@pytest.fixture
def of(windows_home: Home, home: Home, write_template: TemplateWriter) -> Writer:
    """Write a template that builds one of them (by URN) to a VHD; `home` looks afterwards for what may be left."""

    def write(urn: str, name: str, *customize: dict[str, Any], **properties: Any) -> Path:
        publisher, offer, sku, version = urn.split(":")
        source = {"type": "PlatformImage", "publisher": publisher, "offer": offer, "sku": sku, "version": version}
        return write_template(
            name,
            *customize,
            **{"source": source, "distribute": [{"type": "VHD", "runOutputName": f"{name}-vhd"}], **properties},
        )

    return write


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    file = tmp_path / "password"
    file.write_text(f"{LISTENING[1]}\n")
    return file


def powershell(*lines: str, name: str, **more: Any) -> dict[str, Any]:
    return {"type": "PowerShell", "name": name, "inline": list(lines), **more}


def output(home: Home, step: int) -> str:
    return (home.runs()[-1] / "steps" / f"{step:02}.out").read_text()


def test_a_windows_template_becomes_a_vhd(home: Home, of: Writer, tmp_path: Path) -> None:
    settings = tmp_path / "app.ini"
    settings.write_bytes(b"[app]\r\ncolour = blue\r\n")
    template = of(
        GENERALIZED,
        "windows-whole",
        powershell("New-Item -ItemType Directory -Path C:\\App | Out-Null", "Write-Output $env:USERNAME", name="plain"),
        {"type": "File", "name": "settings", "sourceUri": "app.ini", "destination": "C:\\App\\app.ini"},
        powershell("whoami", name="elevated", runElevated=True),
        powershell("whoami", "exit 3", name="system", runElevated=True, runAsSystem=True, validExitCodes=[3]),
        {"type": "WindowsUpdate", "name": "updates", "searchCriteria": "IsInstalled=0", "updateLimit": 20},
        {"type": "WindowsRestart", "name": "restart", "restartTimeout": "5m"},
        validate={
            "inVMValidations": [
                powershell("Get-Content -Path C:\\App\\app.ini", "Test-Path -Path D:\\", name="settings are there")
            ]
        },
    )
    home.ok("build", template)

    record = home.record()
    assert record["lastRunStatus"]["runState"] == "Succeeded"
    assert [step["result"] for step in record["steps"]] == ["succeeded"] * 8
    by_name = {step["name"]: step for step in record["steps"]}
    assert by_name["restart"]["rebooted"] is True
    assert output(home, 0).split() == ["packer"]
    assert output(home, 2).split()[-1].lower().endswith("\\packer")
    assert output(home, 3).strip().lower() == "nt authority\\system"
    assert UPDATE in output(home, 4)
    assert output(home, 6).split() == ["[app]", "colour", "=", "blue", "False"], "the answer medium is gone"
    assert "Sysprep.exe /oobe /generalize /quiet /quit" in output(home, 7)
    assert "IMAGE_STATE_GENERALIZE_RESEAL_TO_OOBE" in output(home, 7)
    console = (home.runs()[-1] / "console.log").read_text(errors="replace")
    assert "windows: unknown" not in console
    assert "windows: REFUSED" not in console
    assert console.count("windows: boot ") == 3, "the update's restart and the customizer's are real"
    assert "windows: shutdown" in console
    assert {"azure-agent-absent", "windows-unverified", "windows-access"} <= {
        each["code"] for each in record["deviations"]
    }

    proof = json.loads((home.runs()[-1] / "generalize.json").read_text())
    assert proof["verdict"] == "not-inspected"
    assert {finding["where"] for finding in proof["findings"] if finding["severity"] == "unknown"} == {"the registry"}
    assert [finding for finding in proof["findings"] if finding["severity"] in {"failure", "warning"}] in (
        [],
        [each for each in proof["findings"] if each["code"] == "host-key-remnant"],
    )

    [made] = json.loads(home.ok("outputs", "windows-whole"))
    vhd = Path(made["properties"]["artifactUri"].removeprefix("file://"))
    with vhd.open("rb") as file:
        file.seek(-512, 2)
        footer = file.read()
    assert footer.startswith(b"conectix")
    assert struct.unpack(">Q", footer[48:56])[0] == GIB
    assert struct.unpack(">I", footer[60:64])[0] == 2, "a fixed disk"
    assert vhd.stat().st_size == GIB + 512


def test_an_image_that_listens_and_what_its_guest_does_to_a_build(home: Home, of: Writer, password_file: Path) -> None:
    template = of(
        SET_UP,
        "windows-faults",
        powershell("shutdown /r /f /t 0", "Start-Sleep -Seconds 300", name="reboots itself", validExitCodes=[0, 16001]),
        powershell("Write-Output $env:USERNAME", name="is back"),
        {"type": "WindowsRestart", "name": "too slow", "restartTimeout": "3s"},
    )
    done = home.aib(
        "build", template, "--winrm", "http", "--guest-user", LISTENING[0], "--guest-password-file", password_file
    )
    assert done.returncode == 1
    steps = home.record()["steps"]
    assert [step["result"] for step in steps[:3]] == ["succeeded", "succeeded", "failed"]
    assert steps[0]["exitCode"] == 16001
    assert output(home, 1).split() == ["builder"]
    assert "Timeout waiting for machine to restart." in done.stderr
    assert LISTENING[1] not in done.stderr + "".join(p.read_text() for p in home.runs()[-1].glob("*.json*"))


def test_a_guest_that_never_answers_ends_with_its_time(home: Home, of: Writer, password_file: Path) -> None:
    template = of(GENERALIZED, "windows-silent", buildTimeoutInMinutes=1)
    done = home.aib("build", template, "--guest-user", LISTENING[0], "--guest-password-file", password_file)
    assert done.returncode == 124
    assert "no answer file" in done.stderr, "the end of the console is told"
    assert "Traceback" not in done.stderr
    assert home.record()["runOutputs"] == []


def test_a_wrong_password_is_told(home: Home, of: Writer, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("not-the-password")
    template = of(SET_UP, "windows-refused")
    done = home.aib("build", template, "--winrm", "http", "--guest-user", LISTENING[0], "--guest-password-file", wrong)
    assert done.returncode == 1
    assert "builder" in done.stderr
    assert "not-the-password" not in done.stderr
    assert home.record()["runOutputs"] == []
