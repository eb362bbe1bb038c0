"""cmd.exe and the small programs of the guest, by what Microsoft documents of them."""

from __future__ import annotations

import pytest

LINES = [
    ("echo hi", "hi|", 0),
    ("echo a & echo b", "a |b|", 0),
    ("echo a&& echo b|| echo c", "a|b|", 0),
    ("cmd /c exit 1 || (echo failed & ver>nul)", "failed |", 0),
    ("cmd /c exit 1 && echo passed", "", 1),
    ("echo %COMPUTERNAME% %NOSUCH%", "WIN-STANDIN %NOSUCH%|", 0),
    ("set A=1& call echo %A%", "%A%|", 0),
    ("echo a^&b \"x & y\"", "a&b \"x & y\"|", 0),
    ("(echo one & echo two) > c:\\f & type c:\\f", "one |two|", 0),
    ("echo x>c:\\f & echo y>>c:\\f& type C:\\F", "x |y|", 0),
    ("echo out & echo err 1>&2", "out |", 0),
    ("echo err 1>&2 2>nul", "", 0),
    ("dir /b c:\\nosuch*", "", 1),
    ("if exist c:\\windows (echo yes) else echo no", "yes|", 0),
    ("if not exist c:\\nosuch echo missing", "missing|", 0),
    ("if \"a\"==\"a\" echo same", "same|", 0),
    ("if /i A==a echo same", "same|", 0),
    ("if 3 gtr 20 (echo more) else (echo less)", "less|", 0),
    ("if defined PATH echo defined", "defined|", 0),
    ("cmd /c exit 3 & if errorlevel 3 echo three", "three|", 3),
    ("mkdir c:\\a\\b & mkdir c:\\a\\b", "", 1),
    ("mkdir c:\\m & cd c:\\m & cd", "C:\\m|", 0),
    ("echo x>c:\\f& copy c:\\f c:\\g >nul & move c:\\g c:\\h >nul & type c:\\h", "x|", 0),
    ("del /f /q c:\\nosuch", "", 0),
    ("type c:\\nosuch", "", 1),
    ("echo b| findstr b", "b|", 0),
    ("whoami", "win-standin\\packer|", 0),
    ("hostname", "WIN-STANDIN|", 0),
    ("exit 5", "", 5),
    ("exit /b -1", "", 0xFFFFFFFF),
    ("cmd /c \"echo quoted & exit 4\"", "quoted |", 4),
    ("no-such-thing", "", 1),
    ("write-host x", "", 1),
    ("shutdown /a", "", 1116),
    ("timeout 5", "", 1),
    ("sc query nosuch", None, 1060),
    ("net user nosuch", "", 2),
    ("schtasks /query /tn nosuch", "", 1),
    ("powershell -Command exit 6", "", 6),
    ("powershell -NoProfile -Command \"& { Write-Output $args.Count }\"", "0|", 0),
    ("powershell Write-Output (1+1)", "2|", 0),
    ("powershell -File c:\\nosuch.ps1", None, 0xFFFD0000),
    ("echo exit 3| powershell -Command -", "", 3),
]  # fmt: skip


@pytest.mark.parametrize(("line", "out", "code"), LINES, ids=range(len(LINES)))
def test_lines(shell, windows, line, out, code):
    ended = shell(line)
    assert ended.code == code
    if out is not None:
        assert ended.out == out.replace("|", "\r\n")
    assert windows.unknown == []


def test_a_batch_file(shell, windows):
    text = (
        '@echo off\r\nrem a comment\r\nsetlocal\r\nset NAME=%~1\r\nif "%NAME%"=="" goto none\r\n'
        "if exist c:\\windows (\r\n  echo hello %NAME%\r\n  echo %~nx0\r\n) else (\r\n  echo never\r\n)\r\n"
        "exit /b 3\r\n:none\r\necho nobody\r\nexit /b 4\r\n"
    )
    windows.files.write("C:\\b.cmd", text.encode())
    ended = shell('c:\\b.cmd "World Wide" & echo next %ERRORLEVEL%')
    assert ended.out == "hello World Wide\r\nb.cmd\r\nnext 0\r\n"  # %ERRORLEVEL% is expanded before the line runs
    assert shell("c:\\b.cmd").code == 4


def test_the_registry(shell, windows):
    assert shell("reg add HKLM\\SOFTWARE\\Mine /v Answer /t REG_DWORD /d 42 /f").code == 0
    assert "    Answer    REG_DWORD    0x2a" in shell("reg query hklm\\software\\mine /v answer").out
    assert shell.ps("(Get-ItemProperty HKLM:\\SOFTWARE\\Mine).Answer").out == "42\r\n"
    assert shell("reg delete HKLM\\SOFTWARE\\Mine /v Answer /f").code == 0
    assert shell("reg query HKLM\\SOFTWARE\\Mine /v Answer").code == 1
    assert shell("reg delete HKLM\\SOFTWARE\\Mine /f & reg query HKLM\\SOFTWARE\\Mine").code == 1
    assert windows.unknown == []


def test_accounts_and_services(shell, windows):
    assert shell("net user builder S3cret! /add & net localgroup Administrators builder /add").code == 0
    assert windows.accounts.right("builder", "S3cret!")
    assert windows.accounts.is_administrator("builder")
    assert shell("net user builder /active:no & net user builder /delete").code == 0
    assert windows.accounts.find("builder") is None
    assert shell("net stop spooler & net start spooler").code == 0
    assert shell("net start spooler").code == 2
    assert shell("sc config Spooler start= disabled & sc stop Spooler").code == 0
    assert windows.services.table["Spooler"] == {
        "display": "Print Spooler", "status": "Stopped", "start": "Disabled", "path": "",
    }  # fmt: skip
    assert windows.unknown == []


def test_tasks(shell, windows):
    assert shell('schtasks /create /tn job /tr "cmd /c echo ran>c:\\ran" /sc once /st 00:00 /ru SYSTEM /f').code == 0
    assert shell("schtasks /run /tn job").code == 0
    windows.settle()
    assert windows.files.read("C:\\ran") == b"ran\r\n"
    assert shell("schtasks /end /tn job & schtasks /delete /tn job /f").code == 0
    assert windows.tasks.table == {}


def test_winrm_is_opened_by_command_line(tmp_path):
    from fixtures.guests.windows.machine import Windows
    from tests.unit.windows.conftest import Shell

    windows = Windows(tmp_path / "bare", account=None)
    shell = Shell(windows)
    assert (windows.passwords(), windows.remoting.working()) == ({}, [])
    lines = [
        "net user packer secret /add",
        "net localgroup Administrators packer /add",
        "winrm quickconfig -quiet",
        'winrm set winrm/config/service @{AllowUnencrypted="true"}',
        'winrm set winrm/config/service/auth @{Basic="true"}',
    ]
    for line in lines:
        assert shell(line, user="SYSTEM").code == 0
    assert windows.remoting.working() == []  # quickconfig's rule is not for public networks
    rule = "netsh advfirewall firewall add rule name=web dir=in action=allow protocol=TCP localport=5985"
    assert shell(rule, user="SYSTEM").code == 0
    [listener] = windows.remoting.working()
    assert (listener.transport, listener.port, listener.basic, listener.unencrypted) == ("HTTP", 5985, True, True)
    assert windows.passwords() == {"packer": "secret"}
    policy = "HKLM\\SOFTWARE\\Microsoft\\Windows\\CurrentVersion\\Policies\\System /v LocalAccountTokenFilterPolicy"
    shell(f"reg add {policy} /t REG_DWORD /d 0 /f", user="SYSTEM")
    assert windows.passwords() == {}  # filtered
    shell("winrm delete winrm/config/Listener?Address=*+Transport=HTTP", user="SYSTEM")
    assert windows.remoting.working() == []
    assert windows.unknown == []


def test_https_is_opened_by_powershell(tmp_path):
    from fixtures.guests.windows.machine import Windows
    from tests.unit.windows.conftest import Shell

    windows = Windows(tmp_path / "bare", account=None)
    script = r"""
$ErrorActionPreference = 'Stop'
$password = ConvertTo-SecureString 'secret' -AsPlainText -Force
New-LocalUser -Name packer -Password $password -PasswordNeverExpires | Out-Null
Add-LocalGroupMember -Group Administrators -Member packer
$policies = 'HKLM:\SOFTWARE\Microsoft\Windows\CurrentVersion\Policies\System'
Set-ItemProperty -Path $policies -Name LocalAccountTokenFilterPolicy -Value 1
$made = New-SelfSignedCertificate -DnsName pkrvm -CertStoreLocation Cert:\LocalMachine\My
$there = 'WSMan:\localhost\Listener'
Get-ChildItem $there | Where-Object { $_.Keys -contains 'Transport=HTTPS' } | Remove-Item -Recurse -Force
New-Item $there -Transport HTTPS -Address * -CertificateThumbPrint $made.Thumbprint -Force | Out-Null
Set-Item WSMan:\localhost\Service\Auth\Basic -Value $true
New-NetFirewallRule -DisplayName 'HTTPS' -Direction Inbound -Protocol TCP -LocalPort 5986 -Action Allow | Out-Null
Get-NetConnectionProfile | Set-NetConnectionProfile -NetworkCategory Private
(Get-ChildItem Cert:\LocalMachine\My).Subject
"""
    ended = Shell(windows).ps(script)
    assert (ended.err, ended.out, windows.unknown) == ("", "CN=pkrvm\r\n", [])
    [listener] = windows.remoting.working()
    assert (listener.transport, listener.port, listener.basic) == ("HTTPS", 5986, True)
    assert "BEGIN CERTIFICATE" in listener.certificate
    assert "PRIVATE KEY" in listener.key
    Shell(windows).ps("Get-ChildItem Cert:\\LocalMachine\\My | Remove-Item")
    assert windows.remoting.working() == []


@pytest.mark.parametrize(
    "line",
    [
        "for %i in (1 2) do echo %i",
        "wmic os get caption",
        "reg import c:\\x.reg",
        "set /a X=1+1",
        "netsh interface show",
        "sc sdshow WinRM",
        "shutdown /l",
        "msiexec /i c:\\x.msi",
        "dir /s c:\\",
    ],
)
def test_what_is_not_known_fails_loudly(shell, windows, line):
    ended = shell(line)
    assert ended.code == 22222
    assert "does not know" in ended.err
    assert len(windows.unknown) == 1
