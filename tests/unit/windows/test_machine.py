"""The machine itself: what survives, how it goes down and comes back, what goes wrong on demand."""

from __future__ import annotations

import threading
import time

import pytest

from fixtures.guests.windows.files import FileProblem
from fixtures.guests.windows.machine import Windows
from fixtures.guests.windows.seam import Call
from tests.unit.windows.conftest import Shell


def test_all_survives_the_process(tmp_path):
    shell = Shell(Windows(tmp_path))
    shell("reg add HKLM\\SOFTWARE\\Mine /v A /d 1 /f & net user other pw /add & sc config Spooler start= demand")
    shell("schtasks /create /tn job /tr hostname /sc onstart /ru SYSTEM & echo x>c:\\f & nonsense.exe")
    before = shell.windows
    again = Windows(tmp_path)
    assert again.state.data == before.state.data
    assert again.unknown == ["nonsense.exe"]
    assert Shell(again)("type c:\\f").out == "x \r\n"
    assert again.passwords() == {"packer": "a password"}


def test_paths_have_no_case_and_many_ways(windows):
    windows.files.make("C:\\Some\\Folder")
    windows.files.write("c:/SOME/folder/File.TXT", b"x")
    assert windows.files.read("C:\\some\\.\\other\\..\\FOLDER\\file.txt") == b"x"
    assert windows.files.spelled("c:\\SOME\\FOLDER\\FILE.txt") == "C:\\Some\\Folder\\File.TXT"
    assert windows.files.full("x", "C:\\a") == "C:\\a\\x"
    assert windows.files.full("\\x", "C:\\a") == "C:\\x"
    for bad in ("C:\\a*b", "Q:\\x", "C:\\no\\x"):
        with pytest.raises(FileProblem):
            windows.files.write(bad, b"")


def test_media_are_drives_that_are_only_read(windows, shell, tmp_path):
    medium = tmp_path / "medium"
    medium.mkdir()
    (medium / "Unattend.xml").write_bytes(b"<x/>")
    windows.files.media["D"] = medium
    assert shell("type d:\\unattend.xml").out == "<x/>"
    assert shell("echo x > d:\\f").code == 1
    assert shell("type e:\\f").code == 1


@pytest.mark.parametrize("power", ["restart", "shutdown"])
def test_power_is_told_once_and_kills_what_runs_without_its_clean_up(windows, shell, power):
    told: list[str] = []
    down = threading.Event()

    def act(what):
        told.append(what)
        down.set()

    windows.on_power(act)
    flag = "r" if power == "restart" else "s"
    assert shell(f"shutdown /{flag} /t 0").code == 0
    assert shell("shutdown /r /t 0").code == 1115
    assert down.wait(5)
    assert told == [power]
    interrupted = threading.Event()
    interrupted.set()  # as the server does when the machine goes down
    script = "powershell -Command try { Start-Sleep 60 } finally { Set-Content c:\\cleaned x }"
    assert windows.run(Call(script, "packer"), lambda *_: None, lambda: b"", interrupted) == 1
    before = windows.booted_at
    windows.boot()
    assert (windows.boots, windows.down) == (2, False)
    assert windows.booted_at > before
    assert not windows.files.exists("C:\\cleaned")


def test_a_scheduled_shutdown_is_taken_back(shell, windows):
    assert shell("shutdown /r /t 60").code == 0
    assert shell("shutdown /r /t 60").code == 1190
    assert shell("shutdown /a").code == 0
    assert shell("shutdown /a").code == 1116


def test_ctrl_c_ends_a_script_after_its_clean_up(windows):
    interrupted = threading.Event()
    printed = []

    def output(stream, data):
        printed.append(data)
        interrupted.set()

    script = "powershell -Command try { 'go'; Start-Sleep 60 } finally { Set-Content c:\\cleaned x }"
    code = windows.run(Call(script, "packer"), output, lambda: b"", interrupted)
    assert (code, printed) == (0xC000013A, [b"go\r\n"])
    assert windows.files.exists("C:\\cleaned")


@pytest.mark.parametrize(
    "script", ["while ($true) { }", "for (;;) { $i++ }", "do { } while ($true)", "ping -n 99 127.0.0.1"]
)
def test_every_loop_can_be_interrupted(windows, script):
    interrupted = threading.Event()
    threading.Timer(0.2, interrupted.set).start()
    assert windows.run(Call(f"powershell -Command {script}", "packer"), lambda *_: None, lambda: b"", interrupted)


def test_output_comes_as_it_is_printed(windows):
    times = []
    windows.run(
        Call("powershell -Command 'a'; Start-Sleep -Milliseconds 300; Write-Host b", "packer"),
        lambda stream, data: times.append((time.monotonic(), data)),
        lambda: b"",
        threading.Event(),
    )
    assert [data for _, data in times] == [b"a\r\n", b"b\r\n"]
    assert times[1][0] - times[0][0] >= 0.3


def test_start_up_tasks_run_at_a_boot(windows, shell):
    shell('schtasks /create /tn job /tr "cmd /c echo x>>c:\\boots" /sc onstart /ru SYSTEM')
    windows.boot()
    windows.settle()
    windows.boot()
    windows.settle()
    assert windows.files.read("C:\\boots") == b"x\r\nx\r\n"


def test_a_full_disk(windows, shell):
    windows.faults.disk_full(10)
    assert shell("echo 123456789>c:\\f").code == 1
    ended = shell.ps("Set-Content c:\\g ('x' * 100)")
    assert "There is not enough space on the disk." in ended.err
    write = "try { [IO.File]::WriteAllText('c:\\h', 'x' * 100) } catch"
    assert shell.ps(f"{write} {{ '0x{{0:X8}}' -f $_.Exception.GetBaseException().HResult }}").out == "0x80070070\r\n"


def test_updates_need_a_restart_to_be_installed(windows):
    windows.updates.offer("One (KB1)")
    [found] = windows.updates.search("IsInstalled=0 and Type='Software' or IsInstalled=0 and Type='Driver'")
    windows.updates.install(found)
    assert windows.updates.pending()
    assert windows.updates.installed() == []
    windows.boot()
    assert not windows.updates.pending()
    assert windows.updates.installed() == ["One (KB1)"]


def test_a_program_without_cmd(windows):
    printed = []

    def run(line: str) -> int:
        call = Call(line, "SYSTEM", {"MINE": "v"}, "C:\\Windows", skip_cmd=True)
        return windows.run(call, lambda _, data: printed.append(data), lambda: b"", threading.Event())

    assert run('"C:\\Windows\\System32\\cmd.exe" /c echo %MINE% in %CD%') == 0
    assert run("powershell -Command exit 3") == 3
    assert printed == [b"v in C:\\Windows\r\n"]
    assert run("echo no program") == 22222


def test_the_accounts_that_may_log_in(windows):
    accounts = windows.accounts
    accounts.add("plain", "pw")
    accounts.add("manager", "pw")
    accounts.join("Remote Management Users", "manager")
    accounts.change("Administrator", password="root")
    assert windows.passwords() == {"packer": "a password", "manager": "pw", "Administrator": "root"}
    accounts.change("packer", enabled=False)
    assert "packer" not in windows.passwords()
