"""Debian's Packer 1.6.6 as the judge of the Windows provisioners: the same steps by Packer (null builder, WinRM) and by
aib against guests that are alike. Same outcome, same exit code, same scripts with the same variables and accounts, same
state of the guest. Where the two differ on purpose the case says why, and both sides are asserted.

All Packer builds run at once, in one process. The guests are `fixtures/guests/windows`, whose PowerShell is an
interpreter: Packer's scripts and ours run there as they are. It is not Windows.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fixtures.guests.windows.machine import Script, Windows
from fixtures.guests.windows.server import running
from hypervisor.deadline import Deadline
from provisioners import windows_restart
from provisioners.base import Context, StepError
from provisioners.windows_file import WindowsFile
from provisioners.windows_powershell import WindowsPowerShell
from provisioners.windows_restart import WindowsRestart
from tests.contract.windows_bed import PASSWORD, USER, Bed, login
from tests.parity.windows_cases import CASES, Case

pytestmark = [pytest.mark.vm, pytest.mark.xdist_group("windows-oracle")]  # one build by Packer serves all its tests
BUILD_SECONDS = 200
OURS = re.compile(r"windows/temp/(?:packer-|script-).*|users/packer/appdata/local/temp/winrmcp-.*", re.IGNORECASE)
"""The scripts of whoever provisioned."""


@dataclass
class Ran:
    """How one side ended."""

    outcome: str
    code: int | None
    said: str
    windows: Windows


def packers(number: int, case: Case, step: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A step as a provisioner of Packer."""
    only = {"only": [case.name]}
    match step["type"]:
        case "File":
            source = folder / f"{case.name}-{number}.bin"
            source.write_bytes(step["content"])
            return {"type": "file", "source": str(source), "destination": step["destination"], **only}
        case "WindowsRestart":
            names = {"restartCommand": "restart_command", "restartCheckCommand": "restart_check_command"}
            given = {names[key]: value for key, value in step.items() if key in names}
            timeout = f"{step['restartTimeout']}s" if "restartTimeout" in step else "60s"
            return {"type": "windows-restart", **given, "restart_timeout": timeout, **only}
    body: dict[str, Any] = {"type": "powershell", "valid_exit_codes": step.get("validExitCodes", [0]), **only}
    if "inline" in step:
        body["inline"] = step["inline"]
    else:
        script = folder / f"{case.name}-{number}.ps1"
        script.write_bytes(step["content"])
        body["script"] = str(script)
    if step.get("runElevated"):
        system = step.get("runAsSystem")
        body |= {"elevated_user": "SYSTEM" if system else USER, "elevated_password": "" if system else PASSWORD}
    return body


def ours(number: int, case: Case, step: dict[str, Any], folder: Path) -> Any:
    """A step as a provisioner of aib."""
    match step["type"]:
        case "File":
            source = folder / f"{case.name}-{number}.aib"
            source.write_bytes(step["content"])
            return WindowsFile(source, step["destination"])
        case "WindowsRestart":
            return WindowsRestart(
                step.get("restartCommand", windows_restart.DEFAULT_COMMAND),
                step.get("restartCheckCommand", ""),
                step.get("restartTimeout", 60),
            )
    options = {
        "valid_exit_codes": step.get("validExitCodes", (0,)),
        "run_elevated": bool(step.get("runElevated")),
        "run_as_system": bool(step.get("runAsSystem")),
    }
    if "inline" in step:
        return WindowsPowerShell.inline(step["inline"], **options)
    return WindowsPowerShell.script(step["content"], **options)


@pytest.fixture(scope="module")
def by_packer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Ran]]:
    """All cases in one run of Packer, one null builder for each."""
    folder = tmp_path_factory.mktemp("packer")
    login_as = {"winrm_username": USER, "winrm_password": PASSWORD, "winrm_timeout": "60s", "winrm_host": "127.0.0.1"}
    with ExitStack() as stack:
        guests = {case.name: Windows(folder / case.name) for case in CASES}
        served = {name: stack.enter_context(running(guest)) for name, guest in guests.items()}
        for case in CASES:
            served[case.name].trouble.comes_back = case.comes_back
        template = {
            "builders": [
                {"type": "null", "name": name, "communicator": "winrm", "winrm_port": one.port, **login_as}
                for name, one in served.items()
            ],
            "provisioners": [packers(n, case, step, folder) for case in CASES for n, step in enumerate(case.steps)],
        }
        path = folder / "template.json"
        path.write_text(json.dumps(template))
        environment = {**os.environ, "CHECKPOINT_DISABLE": "1", "PACKER_CACHE_DIR": str(folder / "cache"),
                       "PACKER_CONFIG": str(folder / "none")}  # fmt: skip
        done = subprocess.run(
            ["packer", "build", "-color=false", str(path)],
            check=False, capture_output=True, text=True, timeout=BUILD_SECONDS, env=environment,
        )  # fmt: skip
        assert all(served[case.name].up.wait(20) for case in CASES if case.comes_back)
    found = {}
    for name, guest in guests.items():
        guest.settle()
        error = re.search(rf"(?m)^Build '{name}' errored after [^:]*: (.*)$", done.stdout)
        assert error or re.search(rf"(?m)^Build '{name}' finished", done.stdout), done.stdout + done.stderr
        said = error[1] if error else ""
        found[name] = Ran("failed" if error else "ok", code_in(said), said, guest)
    yield found


def code_in(said: str) -> int | None:
    found = re.search(r"non-zero exit status: (\d+)", said)
    return int(found[1]) if found else None


def by_aib(case: Case, folder: Path) -> Ran:
    windows = Windows(folder / "guest")
    deadline = Deadline.after(60, "the test")
    with running(windows) as served:
        served.trouble.comes_back = case.comes_back
        guest = Bed(windows, served, login(served.port, deadline), hypervisor=False)
        context = Context(
            deadline=deadline,
            output=lambda stream, data: None,
            say=lambda text: None,
            deviation=lambda code, text: None,
            environment={"PACKER_BUILDER_TYPE": "null", "PACKER_BUILD_NAME": case.name},
            user=USER,
            password=PASSWORD,
        )
        ran = Ran("ok", None, "", windows)
        try:
            for number, step in enumerate(case.steps):
                ours(number, case, step, folder).apply(guest, context)
        except StepError as error:
            ran = Ran("failed", code_in(error.message), error.message, windows)
        finally:
            guest.current.close()
        assert not case.comes_back or served.up.wait(20)
        assert served.shells == {}, "a shell was left open"
    windows.settle()
    return ran


def state(windows: Windows) -> dict[str, Any]:
    """What is left behind, without the scripts of whoever provisioned."""
    root = windows.files.root
    paths = {str(path.relative_to(root)): path for path in root.rglob("*")}
    return {
        "files": {
            name: path.read_bytes() for name, path in paths.items() if path.is_file() and not OURS.fullmatch(name)
        },
        "folders": sorted(name for name, path in paths.items() if path.is_dir()),
        "boots": windows.boots,
        **{name: windows.state[name] for name in ("registry", "services", "users", "groups", "tasks", "environment")},
    }


def scripts(windows: Windows) -> list[Script]:
    """The runs of the users' scripts; their names and the account's temporary folder differ."""
    return [
        Script("", script.text, script.user, script.variables, script.code)
        for script in windows.scripts
        if "\\script-" in script.path
    ]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows_restart, "NO_REBOOT_SECONDS", 1.0)
    monkeypatch.setattr(windows_restart, "POLL_SECONDS", 0.1)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_both_do_the_same(case: Case, by_packer: dict[str, Ran], tmp_path: Path) -> None:
    theirs, mine = by_packer[case.name], by_aib(case, tmp_path)
    assert theirs.windows.unknown == mine.windows.unknown == []
    assert theirs.outcome == case.packer, theirs.said
    assert mine.outcome == (case.aib or case.packer), mine.said
    assert bool(case.differs) == (not case.same_state or mine.outcome != theirs.outcome)
    if case.code is not None:
        assert theirs.code == mine.code == case.code
    assert theirs.windows.boots == mine.windows.boots == case.boots
    if case.same_state:
        assert state(mine.windows) == state(theirs.windows)
    assert scripts(mine.windows) == scripts(theirs.windows)
    for name, content in case.leaves.items():
        assert mine.windows.files.read(name).decode("utf-8-sig") == content


def test_both_name_the_failure_alike(by_packer: dict[str, Ran], tmp_path: Path) -> None:
    case = next(case for case in CASES if case.name == "exit-7")
    words = by_packer["exit-7"].said.replace(".Allowed", ". Allowed")
    assert by_aib(case, tmp_path).said.startswith(words)
    slow = next(case for case in CASES if case.name == "restart-too-slow")
    assert by_aib(slow, tmp_path / "slow").said.startswith(by_packer["restart-too-slow"].said)


def test_the_table_is_large_enough() -> None:
    assert len(CASES) >= 25
    assert len({case.name for case in CASES}) == len(CASES)
