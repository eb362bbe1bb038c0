"""The cases of the comparison with Packer on Windows guests."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

BINARY = bytes(range(256)) * 100
BOM_SCRIPT = b"\xef\xbb\xbfWrite-Output bom\r\nSet-Content -Path c:\\bom -Value 'ok'\r\n"
LONG = "# " + "x" * 998 + "\n"
BIG_SCRIPT = (LONG * 60 + "Set-Content -Path c:\\big -Value 'ran'\n").encode()


@dataclass(frozen=True)
class Case:
    """`steps` in the terms of a template; `code` is the guest's exit code that both must name when they fail. `differs`
    says what is different and why; then `packer` and `aib` are the outcomes that are expected. `leaves`: text of files
    in the guest afterwards."""

    name: str
    steps: tuple[dict[str, Any], ...]
    packer: str = "ok"
    aib: str = ""
    code: int | None = None
    differs: str = ""
    comes_back: bool = True
    leaves: dict[str, str] = field(default_factory=dict)
    boots: int = 1
    same_state: bool = True


def ps(*lines: str, **more: Any) -> dict[str, Any]:
    return {"type": "PowerShell", "inline": list(lines), **more}


def uri(content: bytes, **more: Any) -> dict[str, Any]:
    return {"type": "PowerShell", "content": content, **more}


def file(destination: str, content: bytes = BINARY) -> dict[str, Any]:
    return {"type": "File", "destination": destination, "content": content}


def restart(**more: Any) -> dict[str, Any]:
    return {"type": "WindowsRestart", **more}


MARK = "Set-Content -Path c:\\mark -Value 'behind'"
CASES = (
    Case("inline", (ps("Write-Output one", "Set-Content -Path c:\\a -Value 'x y'"),)),
    Case("several-steps", tuple(ps(f"Add-Content -Path c:\\o -Value '{n}'") for n in range(3))),
    Case("variables", (ps('Set-Content -Path c:\\v -Value "$env:PACKER_BUILDER_TYPE $env:PACKER_BUILD_NAME"'),)),
    Case("nothing-persists", (ps("$env:MINE = 'x'"), ps('Set-Content -Path c:\\n -Value "[$env:MINE]"'))),
    Case("persists-within", (ps("$env:MINE = 'x'", 'Set-Content -Path c:\\w -Value "[$env:MINE]"'),)),
    Case("write-error-passes", (ps("Write-Error 'bad'", MARK),)),
    Case("throw", (ps("throw 'bad'", MARK), ps(MARK)), "failed", code=1),
    Case("exit-7", (ps("exit 7"), ps(MARK)), "failed", code=7),
    Case("exit-7-valid", (ps("exit 7", validExitCodes=[0, 7]), ps(MARK))),
    Case("zero-not-valid", (ps("exit 0", validExitCodes=[7]),), "failed", code=0),
    Case("last-native-code", (ps("cmd /c exit 5"),), "failed", code=5),
    Case("native-code-overwritten", (ps("cmd /c exit 5", "cmd /c exit 0"),)),
    Case("exit-3010", (ps("exit 3010", validExitCodes=[0, 3010]),)),
    Case("exit-negative", (ps("exit -1073741819"),), "failed", code=3221225477),
    Case("exit-negative-valid", (ps("exit -2147024894", validExitCodes=[2147942402]),)),
    Case("native-code-above-2-31", (ps("cmd /c exit -1073741819"), ps(MARK)), "failed", code=3221225477),
    Case("exit-of-no-int32-is-0", (ps("exit 3221225477"), ps(MARK))),
    Case("command-not-found-passes", (ps("no-such-command -x", MARK),), leaves={"c:\\mark": "behind\r\n"}),
    Case("method-error-passes", (ps("[int]::Parse('x')", MARK),), leaves={"c:\\mark": "behind\r\n"}),
    Case("stop-preference", (ps("$ErrorActionPreference = 'Stop'", "Get-Item c:\\none", MARK),), "failed", code=1),
    Case("error-action-stop", (ps("Get-Item c:\\none -ErrorAction Stop", MARK),), "failed", code=1),
    Case("syntax-error-passes", (ps("if ($true) {", "exit 3"), ps(MARK)), leaves={"c:\\mark": "behind\r\n"}),
    Case(
        "try-catch-finally",
        (ps("try { throw 'bad' } catch { Add-Content c:\\t $_ } finally { Add-Content c:\\t 'last' }", "exit 4"),),
        "failed", code=4, leaves={"c:\\t": "bad\r\nlast\r\n"},
    ),
    Case(
        "functions-and-pipelines",
        (ps("function Add($a, $b) { $a + $b }", "1..4 | Where-Object { $_ % 2 } | ForEach-Object { Add $_ 10 } |",
            "  Set-Content c:\\p"),),
        leaves={"c:\\p": "11\r\n13\r\n"},
    ),
    Case(
        "registry-and-services",
        (ps("New-Item -Path HKLM:\\SOFTWARE\\Mine -Force | Out-Null",
            "Set-ItemProperty -Path HKLM:\\SOFTWARE\\Mine -Name Answer -Value 42",
            "Set-Service -Name Spooler -StartupType Disabled", "Stop-Service Spooler"),),
    ),
    Case("native-output-and-redirection", (ps("cmd /c \"echo out & echo err 1>&2\" 2>$null | Set-Content c:\\r"),),
         leaves={"c:\\r": "out \r\n"}),
    Case("here-string", (ps("Set-Content -Path c:\\h -Value @'", "  a 'b' \"c\" `$d", "é", "'@"),)),
    Case("by-uri", (uri(b"Write-Output u\nSet-Content -Path c:\\u -Value 'x'\n"),)),
    Case("by-uri-fails", (uri(b"exit 3\n"), ps(MARK)), "failed", code=3),
    Case("by-uri-bom-and-crlf", (uri(BOM_SCRIPT),)),
    Case("by-uri-60-kilobytes", (uri(BIG_SCRIPT),)),
    Case("elevated", (ps("Set-Content -Path c:\\e -Value 'x'", runElevated=True),)),
    Case("as-system", (ps("whoami > c:\\who", runElevated=True, runAsSystem=True),)),
    Case("elevated-throws", (ps("throw 'bad'", runElevated=True), ps(MARK)), "failed", code=1),
    Case("elevated-native-above-2-31", (ps("cmd /c exit -1073741819", runElevated=True),), "failed", code=3221225477),
    Case("elevated-with-variables", (ps('Set-Content c:\\v "$env:PACKER_BUILD_NAME $HOME"', runElevated=True),)),
    Case("elevated-fails", (ps("exit 9", runElevated=True), ps(MARK)), "failed", code=9),
    Case("elevated-code-valid", (ps("exit 9", runElevated=True, runAsSystem=True, validExitCodes=[9]),)),
    Case("file", (file("c:\\f.bin"),)),
    Case("file-forward-slashes", (file("C:/f.bin"),)),
    Case("file-replaces", (ps("Set-Content -Path c:\\f -Value 'longer than that'"), file("c:\\f", b"new"))),
    Case(
        "file-empty", (file("c:\\empty", b""),), same_state=False, leaves={"c:\\empty": ""},
        differs="Packer's uploader redirects $null to the file, which leaves a byte order mark; ours is empty",
    ),
    Case("file-onto-folder", (file("c:\\windows"),), "failed"),
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
    Case("restart-too-slow", (restart(restartTimeout=4), ps(MARK)), "failed", comes_back=False),
    Case("restart-twice", (restart(), ps(MARK), restart()), boots=3),
    Case(
        "reboot-under-a-script", (ps("shutdown /r /t 0", "Start-Sleep 20"), ps(MARK)), "failed", code=16001, boots=2,
    ),
    Case(
        "reboot-under-a-script-valid",
        (ps("shutdown /r /t 0", "Start-Sleep 20", validExitCodes=[0, 16001]), ps(MARK)), boots=2,
    ),
)  # fmt: skip
