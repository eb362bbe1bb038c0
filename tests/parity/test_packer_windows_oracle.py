"""Debian's Packer 1.6.6 as the judge of the Windows provisioners: the same steps by Packer (null builder, WinRM) and by
aib against guests that are alike. Same outcome, same exit code, same scripts with the same variables and accounts, same
state of the guest. Where the two differ on purpose the case says why, and both sides are asserted.

All Packer builds run at once, in one process. The guests are doubles: this compares what is sent and how it is judged,
not what a real PowerShell does.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from hypervisor.deadline import Deadline
from provisioners import windows_restart
from provisioners.base import Context, StepError
from provisioners.communicators.winrm import WinRMCommunicator
from provisioners.communicators.winrm_connect import connect
from provisioners.windows_file import WindowsFile
from provisioners.windows_powershell import WindowsPowerShell
from provisioners.windows_restart import WindowsRestart
from tests.contract.winrm_bed import PASSWORD, USER
from tests.parity.windows_double import Windows

pytestmark = pytest.mark.vm  # it boots none, but takes a minute
BUILD_SECONDS = 150
BINARY = bytes(range(256)) * 100
BOM_SCRIPT = b"\xef\xbb\xbfWrite-Output bom\r\nSet-Content -Path c:\\data\\bom -Value 'ok'\r\n"
LONG = "# " + "x" * 998 + "\n"
BIG_SCRIPT = (LONG * 60 + "Set-Content -Path c:\\data\\big -Value 'ran'\n").encode()


@dataclass(frozen=True)
class Case:
    """`steps` in the terms of a template; `code` is the guest's exit code that both must name when they fail. `differs`
    says what is different and why; then `packer` and `aib` are the outcomes that are expected."""

    name: str
    steps: tuple[dict[str, Any], ...]
    packer: str = "ok"
    aib: str = ""
    code: int | None = None
    differs: str = ""
    guest: dict[str, Any] = field(default_factory=dict)
    boots: int = 1
    same_state: bool = True
    same_scripts: bool = True


def ps(*lines: str, **more: Any) -> dict[str, Any]:
    return {"type": "PowerShell", "inline": list(lines), **more}


def uri(content: bytes, **more: Any) -> dict[str, Any]:
    return {"type": "PowerShell", "content": content, **more}


def file(destination: str, content: bytes = BINARY) -> dict[str, Any]:
    return {"type": "File", "destination": destination, "content": content}


def restart(**more: Any) -> dict[str, Any]:
    return {"type": "WindowsRestart", **more}


MARK = "Set-Content -Path c:\\data\\mark -Value 'behind'"
CASES = (
    Case("inline", (ps("Write-Output one", "Set-Content -Path c:\\data\\a -Value 'x y'"),)),
    Case("several-steps", tuple(ps(f"Add-Content -Path c:\\data\\o -Value '{n}'") for n in range(3))),
    Case("variables", (ps('Set-Content -Path c:\\data\\v -Value "$env:PACKER_BUILDER_TYPE $env:PACKER_BUILD_NAME"'),)),
    Case("nothing-persists", (ps("$env:MINE = 'x'"), ps('Set-Content -Path c:\\data\\n -Value "[$env:MINE]"'))),
    Case("persists-within", (ps("$env:MINE = 'x'", 'Set-Content -Path c:\\data\\w -Value "[$env:MINE]"'),)),
    Case("write-error-passes", (ps("Write-Error 'bad'", MARK),)),
    Case("throw", (ps("throw 'bad'", MARK), ps(MARK)), "failed", code=1),
    Case("exit-7", (ps("exit 7"), ps(MARK)), "failed", code=7),
    Case("exit-7-valid", (ps("exit 7", validExitCodes=[0, 7]), ps(MARK))),
    Case("zero-not-valid", (ps("exit 0", validExitCodes=[7]),), "failed", code=0),
    Case("last-native-code", (ps("cmd /c exit 5"),), "failed", code=5),
    Case("native-code-overwritten", (ps("cmd /c exit 5", "cmd /c exit 0"),)),
    Case("exit-3010", (ps("exit 3010", validExitCodes=[0, 3010]),)),
    Case("exit-above-2-31", (ps("exit 3221225477"),), "failed", code=3221225477),
    Case("exit-above-2-31-valid", (ps("exit 2147942402", validExitCodes=[2147942402]),)),
    Case("here-string", (ps("Set-Content -Path c:\\data\\h -Value @'", "  a 'b' \"c\" `$d", "é", "'@"),)),
    Case("by-uri", (uri(b"Write-Output u\nSet-Content -Path c:\\data\\u -Value 'x'\n"),)),
    Case("by-uri-fails", (uri(b"exit 3\n"), ps(MARK)), "failed", code=3),
    Case("by-uri-bom-and-crlf", (uri(BOM_SCRIPT),)),
    Case("by-uri-60-kilobytes", (uri(BIG_SCRIPT),)),
    Case("elevated", (ps("Set-Content -Path c:\\data\\e -Value 'x'", runElevated=True),)),
    Case("as-system", (ps("Write-Output hi", runElevated=True, runAsSystem=True),)),
    Case("elevated-fails", (ps("exit 9", runElevated=True), ps(MARK)), "failed", code=9),
    Case("elevated-code-valid", (ps("exit 9", runElevated=True, runAsSystem=True, validExitCodes=[9]),)),
    Case("file", (file("c:\\data\\f.bin"),)),
    Case("file-forward-slashes", (file("C:/Data/f.bin"),)),
    Case("file-replaces", (ps("Set-Content -Path c:\\data\\f -Value 'longer than that'"), file("c:\\data\\f", b"new"))),
    Case("file-empty", (file("c:\\data\\empty", b""),)),
    Case("file-onto-folder", (file("c:\\data"),), "failed"),
    Case(
        "file-missing-parent", (file("c:\\new\\folder\\f.bin"),), "ok", "failed", same_state=False,
        differs="S23 says that the folder must exist; Packer's uploader makes it",
    ),
    Case("restart", (restart(), ps(MARK)), boots=2),
    Case("restart-with-check", (restart(restartCheckCommand="echo back"), ps(MARK)), boots=2),
    Case("restart-check-fails", (restart(restartCheckCommand="exit 3"), ps(MARK)), boots=2),
    Case("restart-check-of-powershell", (restart(restartCheckCommand="write-host 'x'"), ps(MARK)), boots=2),
    Case("restart-command-refused", (restart(restartCommand="exit 2"), ps(MARK)), "failed"),
    Case("restart-of-nothing", (restart(restartCommand="echo hi"), ps(MARK))),
    Case("restart-too-slow", (restart(restartTimeout=4), ps(MARK)), "failed", guest={"comes_back": False}, boots=2),
    Case("restart-twice", (restart(), ps(MARK), restart()), boots=3),
    Case(
        "reboot-under-a-script", (ps("shutdown /r /t 0", "Start-Sleep 20"), ps(MARK)), "failed", code=16001, boots=2,
    ),
    Case(
        "reboot-under-a-script-valid",
        (ps("shutdown /r /t 0", "Start-Sleep 20", validExitCodes=[0, 16001]), ps(MARK)), boots=2,
    ),
)  # fmt: skip


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
def by_packer(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ran]:
    """All cases in one run of Packer, one null builder for each."""
    folder = tmp_path_factory.mktemp("packer")
    guests = {case.name: Windows(**case.guest) for case in CASES}
    login = {"winrm_username": USER, "winrm_password": PASSWORD, "winrm_timeout": "60s", "winrm_host": "127.0.0.1"}
    template = {
        "builders": [
            {"type": "null", "name": name, "communicator": "winrm", "winrm_port": guest.port, **login}
            for name, guest in guests.items()
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
    for guest in guests.values():
        guest.server.cut()
    found = {}
    for name, guest in guests.items():
        error = re.search(rf"(?m)^Build '{name}' errored after [^:]*: (.*)$", done.stdout)
        assert error or re.search(rf"(?m)^Build '{name}' finished", done.stdout), done.stdout + done.stderr
        said = error[1] if error else ""
        found[name] = Ran("failed" if error else "ok", code_in(said), said, guest)
    return found


def code_in(said: str) -> int | None:
    found = re.search(r"non-zero exit status: (\d+)", said)
    return int(found[1]) if found else None


@dataclass
class Guest:
    """`provisioners.base.Guest` over a double."""

    windows: Windows
    current: WinRMCommunicator

    @property
    def communicator(self) -> WinRMCommunicator:
        return self.current

    def reconnect(self, deadline: Deadline) -> None:
        self.current.close()
        self.current = login(self.windows, deadline)

    def reboots(self) -> int:
        return 0  # no hypervisor here: the provisioners must see it by themselves


def login(windows: Windows, deadline: Deadline) -> WinRMCommunicator:
    return connect(
        "127.0.0.1", windows.port, user=USER, password=PASSWORD, tls=None, auth="basic", deadline=deadline, patience=0
    )


def by_aib(case: Case, folder: Path) -> Ran:
    windows = Windows(**case.guest)
    deadline = Deadline.after(60, "the test")
    guest = Guest(windows, login(windows, deadline))
    context = Context(
        deadline=deadline,
        output=lambda stream, data: None,
        say=lambda text: None,
        deviation=lambda code, text: None,
        environment={"PACKER_BUILDER_TYPE": "null", "PACKER_BUILD_NAME": case.name},
        user=USER,
        password=PASSWORD,
    )
    try:
        for number, step in enumerate(case.steps):
            ours(number, case, step, folder).apply(guest, context)
    except StepError as error:
        return Ran("failed", code_in(error.message), error.message, windows)
    finally:
        guest.current.close()
        assert windows.server.shells == {}, "a shell was left open"
        windows.server.cut()
    return Ran("ok", None, "", windows)


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
        assert mine.windows.state() == theirs.windows.state()
    assert mine.windows.executed == theirs.windows.executed


def test_both_name_the_failure_alike(by_packer: dict[str, Ran], tmp_path: Path) -> None:
    case = next(case for case in CASES if case.name == "exit-7")
    words = by_packer["exit-7"].said.replace(".Allowed", ". Allowed")
    assert by_aib(case, tmp_path).said.startswith(words)
    slow = next(case for case in CASES if case.name == "restart-too-slow")
    assert by_aib(slow, tmp_path).said.startswith(by_packer["restart-too-slow"].said)


def test_the_table_is_large_enough() -> None:
    assert len(CASES) >= 25
    assert len({case.name for case in CASES}) == len(CASES)
