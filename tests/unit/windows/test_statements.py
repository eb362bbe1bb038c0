"""Statements of common templates, on files, registry, services and processes."""

from __future__ import annotations

import pytest

STATEMENTS = [
    ("mkdir c:\\buildArtifacts; Test-Path c:\\buildArtifacts", "|    Directory: |True"),
    ("New-Item -ItemType Directory -Path c:\\a\\b -Force | Out-Null; Test-Path c:\\a\\b -PathType Container", "True"),
    ("New-Item -Path c:\\f.txt -ItemType File -Value 'x' | Out-Null; Get-Content c:\\f.txt", "x"),
    ("echo Azure-Image-Builder-Was-Here > c:\\a.txt; Get-Content c:\\A.TXT", "Azure-Image-Builder-Was-Here"),
    ("Set-Content c:\\f 'a', 'b'; Add-Content c:\\f c; (Get-Content c:\\f).Count; Get-Content c:\\f -Tail 1", "3|c"),
    ("'x' | Out-File c:\\f; [IO.File]::ReadAllBytes('c:\\f').Length", "8"),
    ("'é' | Set-Content c:\\f; [IO.File]::ReadAllBytes('c:\\f').Length", "3"),
    ("'é' | Set-Content c:\\f -Encoding UTF8; (Get-Item c:\\f).Length", "7"),
    ("Set-Content c:\\f x; Copy-Item c:\\f c:\\g; Move-Item c:\\g c:\\h; Rename-Item c:\\h i; Test-Path c:\\i", "True"),
    (
        "mkdir c:\\d\\e | Out-Null; Set-Content c:\\d\\e\\f x; Copy-Item c:\\d c:\\z -Recurse; Test-Path c:\\z\\e\\f",
        "True",
    ),
    ("mkdir c:\\d\\e | Out-Null; Remove-Item c:\\d -Recurse -Force; Test-Path c:\\d", "False"),
    (
        "1..3 | % { Set-Content c:\\f$_.log x }; (Get-ChildItem c:\\*.log).Count; Remove-Item c:\\f*; Test-Path "
        "c:\\f1.log",
        "3|False",
    ),
    (
        "Set-Content c:\\f x; (Get-ChildItem c:\\ -File).Name; Split-Path c:\\a\\b -Leaf; Split-Path c:\\a\\b",
        "f|b|c:\\a",
    ),
    (
        "Test-Path c:\\none; Test-Path HKLM:\\SOFTWARE\\Microsoft; Test-Path env:PATH; Test-Path variable:global:none",
        "False|True|True|False",
    ),
    (
        "$p = 'HKLM:\\SOFTWARE\\M'; New-Item $p | Out-Null; New-ItemProperty $p -Name A -Value 1 -PropertyType "
        "DWord | Out-Null; "
        "Set-ItemProperty $p A 5; (Get-ItemProperty $p).A; Get-ItemPropertyValue $p A; Remove-ItemProperty $p A; "
        "(Get-ItemProperty $p -Name A -ErrorAction SilentlyContinue) -eq $null",
        "5|5|True",
    ),
    (
        "(Get-ItemProperty 'HKLM:\\SOFTWARE\\Microsoft\\Windows NT\\CurrentVersion').ProductName",
        "Windows Server 2019 Datacenter",
    ),
    (
        "Get-ItemProperty HKLM:\\\\SOFTWARE\\\\Microsoft\\\\Windows\\\\CurrentVersion\\\\Setup\\\\State | "
        "Select ImageState | "
        "% { $_.ImageState }",
        "IMAGE_STATE_COMPLETE",
    ),
    (
        "(Get-Service WinRM).Status; (Get-Service -Name Spooler).StartType; if ((Get-Service W32Time).Status "
        "-eq 'Running') { 1 }",
        "Running|Automatic|1",
    ),
    (
        "Stop-Service Spooler; (Get-Service Spooler).Status; Start-Service Spooler; (Get-Service spooler).Status",
        "Stopped|Running",
    ),
    ("Set-Service Spooler -StartupType Disabled; (Get-Service Spooler).StartType", "Disabled"),
    (
        "(Get-CimInstance Win32_OperatingSystem).Version; (Get-WmiObject Win32_OperatingSystem).Caption",
        "10.0.17763|Microsoft Windows Server 2019 Datacenter",
    ),
    (
        "$os = Get-WmiObject -Class Win32_OperatingSystem; $os.ConvertToDateTime($os.LastBootUpTime).Year -gt 2000",
        "True",
    ),
    ("(Get-WmiObject Win32_LogicalDisk -Filter \"DeviceID='C:'\").FileSystem", "NTFS"),
    (
        "[Environment]::OSVersion.Version.Major; $env:COMPUTERNAME; [Net.Dns]::GetHostName()",
        "10|WIN-STANDIN|WIN-STANDIN",
    ),
    ("[Environment]::SetEnvironmentVariable('TOOL', 'c:\\t', 'Machine'); cmd /c echo %TOOL%", "%TOOL%"),
    ("$p = Start-Process cmd -ArgumentList '/c exit 3' -Wait -PassThru; $p.ExitCode", "3"),
    ("$p = Start-Process cmd.exe '/c','exit 2' -PassThru; $p.WaitForExit(); $p.ExitCode", "2"),
    (
        "([Security.Principal.WindowsPrincipal][Security.Principal.WindowsIdentity]::GetCurrent()).IsInRole("
        "[Security.Principal.WindowsBuiltInRole]'Administrator')",
        "True",
    ),
    ("[Net.ServicePointManager]::SecurityProtocol = [Net.SecurityProtocolType]::Tls12; 'ok'", "ok"),
    ("$ProgressPreference = 'SilentlyContinue'; Write-Progress -Activity x; Write-Verbose no; 'ok'", "ok"),
    ("Write-Warning careful; Write-Verbose shown -Verbose", "WARNING: careful|VERBOSE: shown"),
    ("Set-ExecutionPolicy Bypass -Scope Process -Force; Get-ExecutionPolicy", "RemoteSigned"),
    ("(Get-Date).Year -gt 2000; (Get-Date -Format 'yyyy-MM-dd').Length", "True|10"),
    ("[xml]$x = '<a><b n=\"1\">t</b></a>'; $x.a.b.n; $x.SelectSingleNode('/a/b').InnerText", "1|t"),
    ("'{\"a\": 1}' | Set-Content c:\\j; (Get-Content c:\\j -Raw | ConvertFrom-Json).a", "1"),
    ("Get-Content c:\\windows\\system32\\drivers\\etc\\hosts | Select-String hosts | % { $_.Line }", "# hosts"),
    (
        "mkdir c:\\d\\e | Out-Null; Set-Content c:\\d\\e\\f x; Compress-Archive c:\\d c:\\d.zip; "
        "Expand-Archive c:\\d.zip -DestinationPath c:\\out; Get-Content c:\\out\\d\\e\\f",
        "x",
    ),
    (
        "Install-WindowsFeature -Name Web-Server -IncludeManagementTools | Out-Null; (Get-WindowsFeature "
        "Web-Server).Installed",
        "True",
    ),
    (
        'cd c:\\windows; $PWD.Path; (Get-Location).Path; Push-Location c:\\; Pop-Location; "$(pwd)"',
        "C:\\Windows|C:\\Windows|C:\\Windows",
    ),
    ("Set-Content c:\\s.ps1 'param($a) \"got $a\"; exit 4'; & c:\\s.ps1 7; $LASTEXITCODE", "got 7|4"),
    ("$w = New-Object IO.StreamWriter 'c:\\w'; $w.WriteLine('x'); $w.Close(); Get-Content c:\\w", "x"),
    ("(Get-FileHash c:\\windows\\system32\\cmd.exe).Hash.Length", "64"),
    ("Get-Process -Name nosuch -ErrorAction SilentlyContinue; if (-not $?) { 'none' }", "none"),
    ("reg add HKLM\\SOFTWARE\\N /v x /d 1 /f; $LASTEXITCODE", "The operation completed successfully.|0"),
    ("net user; 1", None),
]


@pytest.mark.parametrize(("script", "expected"), STATEMENTS[:-1], ids=range(len(STATEMENTS) - 1))
def test_statements(shell, windows, script, expected):
    ended = shell.ps(script)
    assert ended.err == ""
    assert windows.unknown == []
    lines = [line for line in ended.out.replace("\r\n", "\n").split("\n") if line]
    if expected.startswith("|"):
        assert lines[-1] == expected.rpartition("|")[2]
    else:
        assert lines == expected.split("|")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("Get-Content c:\\none", "Cannot find path 'C:\\none' because it does not exist."),
        ("Set-Content c:\\no\\f x", "Could not find a part of the path 'C:\\no\\f'."),
        ("Get-Service nosuch", "Cannot find any service with service name 'nosuch'."),
        ("Get-ItemProperty HKLM:\\SOFTWARE\\Microsoft -Name nosuch", "Property nosuch does not exist"),
        ("New-Item c:\\windows -ItemType Directory", "An item with the specified name C:\\windows already exists."),
        ("(New-Object Net.WebClient).DownloadFile('https://nowhere.invalid/x', 'c:\\x')", "could not be resolved"),
        ("Invoke-WebRequest https://nowhere.invalid/x -OutFile c:\\x -UseBasicParsing", "could not be resolved"),
        ("Set-Content c:\\z x; Expand-Archive c:\\z c:\\y", "End of Central Directory record could not be found."),
        ("$null.Length.Foo()", "You cannot call a method on a null-valued expression."),
        ("$n = $null; $n[0]", "Cannot index into a null array."),
        ("[int]'abc'", 'Cannot convert value "abc" to type "System.Int32"'),
        ("nosuch-command", "The term 'nosuch-command' is not recognized as the name of a cmdlet"),
        ("'{bad' | ConvertFrom-Json", "Invalid JSON primitive"),
        ("Write-Error 'mine'", "mine"),
        ("function f([Parameter(Mandatory)] $X) { $X }; f", "missing mandatory parameters: X."),
        ("function f([ValidateSet('a', 'b')] $X) { $X }; f c", "does not belong to the set"),
    ],
)
def test_errors_have_windows_words_and_the_script_goes_on(shell, windows, script, words):
    ended = shell.ps(f"{script}\n'after'")
    assert words in ended.err.replace("\r\n", "")
    assert ended.out.endswith("after\r\n")
    assert windows.unknown == []


def test_redirections(shell):
    script = 'Write-Error bad 2>&1 | % { "<$_>" }; Write-Error bad 2>$null; cmd /c \'echo e 1>&2\' 2>&1 | % { "[$_]" }'
    ended = shell.ps(script)
    assert (ended.out, ended.err) == ("<bad>\r\n[e ]\r\n", "")


def test_what_a_background_program_does_ends_with_it(shell, windows):
    shell.ps(
        "Start-Process powershell -ArgumentList '-Command', \"Start-Sleep -Milliseconds 300; Set-Content c:\\late x\""
    )
    windows.settle()
    assert windows.files.exists("C:\\late")
