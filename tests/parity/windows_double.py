"""A double of a Windows guest for the comparison with Packer: the few statements that the cases use, Packer's own
idioms and aib's payloads. It reboots (its listener goes away and comes back), and what it does not know fails the
test."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from fixtures.guests.windows.server import Served
from fixtures.guests.windows.wsman import OPEN, Listener
from provisioners import windows_payloads
from tests.contract.winrm_bed import PASSWORD, USER

PAYLOADS = {windows_payloads.command(name): name for name in ("boot-id.ps1", "receive-file.ps1", "send-file.ps1")}
EXECUTE = re.compile(
    r'powershell -executionpolicy bypass "& \{ if \(Test-Path variable:global:ProgressPreference\)'
    r"\{set-variable -name variable:global:ProgressPreference -value 'SilentlyContinue'\};"
    r"\. (?P<variables>\S+); &'(?P<script>\S+)'; exit \$LastExitCode \}\""
)
RESTART = re.compile(r"shutdown /r (?:/f )?/t (?P<delay>\d+)(?: .*)?")
_ENV = re.compile(r"\$env:(\w+)")


class Ended(Exception):  # the way out of a script
    """`exit N`, `throw`, or the machine went down under it."""

    def __init__(self, code: int) -> None:
        self.code = code


@dataclass
class Executed:
    """One user script as the guest saw it."""

    text: str
    variables: dict[str, str]
    user: str
    code: int


@dataclass
class Console:
    """Where a command prints, and what ends it."""

    output: Callable[[str, bytes], None]
    stdin: Callable[[], bytes]
    down: Callable[[], bool]

    def say(self, text: str, stream: str = "stdout") -> None:
        self.output(stream, f"{text}\r\n".encode())


@dataclass
class Windows:
    """The guest; `outage` is how long it does not answer in a reboot, after which it may not come back."""

    outage: float = 0.3
    comes_back: bool = True
    files: dict[str, bytes] = field(default_factory=dict)
    folders: set[str] = field(default_factory=lambda: {"c:", "c:/windows", "c:/windows/temp", "c:/data"})
    executed: list[Executed] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    tasks: dict[str, str] = field(default_factory=dict)
    boots: int = 1
    going_down: bool = False
    scheduled: bool = False

    def __post_init__(self) -> None:
        self.server = Served(self, [Listener("HTTP", 0)], OPEN)
        self.server.trouble.comes_back = self.comes_back
        self.server.trouble.down_seconds = self.outage
        self.port = self.server.port

    def passwords(self) -> dict[str, str]:
        return {USER: PASSWORD}

    def on_power(self, act) -> None:
        self.power = act

    def state(self) -> dict[str, object]:
        """What is left behind, without the scripts of whoever provisioned."""
        ours = re.compile(r"c:/windows/temp/(?:winrmcp|packer-|script-).*")
        return {
            "files": {path: data for path, data in sorted(self.files.items()) if not ours.fullmatch(path)},
            "folders": sorted(self.folders),
            "tasks": dict(self.tasks),
            "boots": self.boots,
        }

    def run(self, call, output, stdin, interrupted) -> int:
        """One command line."""
        boot = self.boots
        console = Console(output, stdin, lambda: interrupted.is_set() or self.boots != boot)
        try:
            return self.do(call.line.strip(), console, call.user)
        except Ended as ended:
            return ended.code

    def do(self, line: str, console: Console, user: str) -> int:
        if name := PAYLOADS.get(line):
            return self._payload(name, console)
        if found := re.fullmatch(r"powershell\S* -EncodedCommand (\S+)", line, re.IGNORECASE):
            return self._packers(base64.b64decode(found[1]).decode("utf-16-le"), console)
        if found := EXECUTE.fullmatch(line):
            return self._script(found["variables"], found["script"], console, user)
        if found := re.fullmatch(r'powershell .*-file "?(\S+?packer-elevated-shell-[^ "]+)"?', line, re.IGNORECASE):
            return self._task(self.files[key(found[1])].decode(), console)
        if found := re.fullmatch(r'echo (\S+) ?>> ?"%TEMP%\\(winrmcp-\S+)"', line):
            path = f"c:/windows/temp/{found[2]}"
            self.files[path] = self.files.get(path, b"") + found[1].encode() + b"\r\n"
            return 0
        self.commands.append(line)
        return self._cmd(line, console)

    def _cmd(self, line: str, console: Console) -> int:
        if found := RESTART.fullmatch(line):
            return self.restart(float(found["delay"]))
        if line == "shutdown /a":
            if self.going_down:
                return 1115
            was, self.scheduled = self.scheduled, False
            return 0 if was else 1116
        if line.startswith("del /f /q "):
            for path in re.findall(r'"([^"]+)"', line):
                self.files.pop(key(path), None)
            return 0
        if found := re.fullmatch(r"exit (?:/b )?(\d+)", line):
            return int(found[1])
        if found := re.fullmatch(r"echo (.*)", line):
            console.say(found[1])
            return 0
        if line.startswith("write-host"):  # no command of cmd.exe
            console.say("'write-host' is not recognized as an internal or external command", "stderr")
            return 1
        return self._unknown(line)

    def restart(self, delay: float) -> int:
        """As shutdown.exe answers; a restart with a delay is only noted (Packer's probe takes its own back)."""
        if self.going_down:
            return 1115
        if delay >= 60:
            if self.scheduled:
                return 1190
            self.scheduled = True
            return 0
        self.going_down = True
        threading.Thread(target=self._reboot, args=(delay,), daemon=True).start()
        return 0

    def _reboot(self, delay: float) -> None:
        time.sleep(delay)
        self.power("restart")
        while self.server.up.is_set():
            time.sleep(0.01)
        self.boots += 1
        self.tasks.clear()

    def boot(self) -> None:
        self.going_down = self.scheduled = False

    def _payload(self, name: str, console: Console) -> int:
        if name == "boot-id.ps1":
            console.say(f"boot-{self.boots}")
            return 0
        first, *lines = b"".join(iter(console.stdin, b"")).split(b"\r\n")
        settings = json.loads(first)
        path = key(settings["path"])
        if name != "receive-file.ps1":
            return self._unknown(name)
        content = b"".join(map(base64.b64decode, lines))
        result = "ok"
        if path.rpartition("/")[0] not in self.folders:
            result = "no-folder"
        elif path in self.folders:
            result = "is-folder"
        else:
            assert hashlib.sha256(content).hexdigest() == settings["sha256"]
            self.files[path] = content
        console.say(json.dumps({"result": result}))
        return 0

    def _packers(self, text: str, console: Console) -> int:
        """What Packer and its uploader run by themselves."""
        if "WinRM connected." in text:
            console.say("WinRM connected.")
        elif "restarted." in text:
            console.say("DOUBLE restarted.")
        elif "$dest_file_path" in text:
            [source, target] = re.findall(r'GetFullPath\("([^"]+)"', text)
            return self._decode(key(source.replace("$env:TEMP", "c:/windows/temp")), key(target))
        elif "Remove-Item $tmp_file_path" in text:
            [source] = re.findall(r'GetFullPath\("([^"]+)"', text)
            self.files.pop(key(source.replace("$env:TEMP", "c:/windows/temp")), None)
        else:
            return self._unknown(text)
        return 0

    def _decode(self, source: str, target: str) -> int:
        if target in self.folders:
            return 1
        folder = target.rpartition("/")[0]
        while folder and folder not in self.folders:
            self.folders.add(folder)
            folder = folder.rpartition("/")[0]
        lines = self.files.get(source, b"").split(b"\r\n")
        self.files[target] = b"".join(map(base64.b64decode, lines))
        return 0

    def _task(self, wrapper: str, console: Console) -> int:
        """aib's task by its settings, Packer's by the XML in its script; both leave nothing behind."""
        if "aib-task: " in wrapper:
            settings = json.loads(b"".join(iter(console.stdin, b"")))
            name, user, line = settings["name"], settings["user"], settings["command"]
            assert bool(settings["password"]) == (user != "SYSTEM")
        else:
            name = "packer"
            [arguments] = re.findall(r"<Arguments>/c (.*?)</Arguments>", wrapper, re.DOTALL)
            line = html.unescape(arguments).split(" > %SYSTEMROOT%")[0].split(" &gt; %SYSTEMROOT%")[0].strip()
            user = "SYSTEM" if re.search(r'"SYSTEM"|>SYSTEM<', wrapper) else "packer"
        self.tasks[name] = user
        merged = Console(lambda _, data: console.output("stdout", data), console.stdin, console.down)
        try:
            return self.do(line, merged, user)
        except Ended as ended:
            return ended.code
        finally:
            self.tasks.pop(name, None)

    def _script(self, variables: str, script: str, console: Console, user: str) -> int:
        text = self.files[key(script)].decode("utf-8-sig", "replace")
        given = dict(re.findall(r'\$env:(\w+)="((?:`.|[^"`])*)"', self.files[key(variables)].decode()))
        if "packer-cleanup" in script:
            for path in re.findall(r"Remove-Item (\S+?)\}", text):
                self.files.pop(key(path), None)
            return 0
        seen = Executed(text, given, user, -1)
        self.executed.append(seen)
        try:
            seen.code = self._statements(text, dict(given), console)
        except Ended as ended:
            seen.code = ended.code
        return seen.code

    def _statements(self, text: str, variables: dict[str, str], console: Console) -> int:
        last = 0
        lines = iter(text.replace("\r\n", "\n").split("\n"))
        for line in lines:
            if line.endswith(("@'", '@"')):
                quote = line[-1]
                body = []
                for inner in lines:
                    if inner.startswith(f"{quote}@"):
                        break
                    body.append(inner)
                statement = line[:-2] + "'" + "\n".join(body) + "'"
            else:
                statement = line.strip()
            if console.down():
                raise Ended(1)
            if statement and not statement.startswith("#"):
                last = self._statement(statement, variables, console, last)
        return last

    def _statement(self, statement: str, variables: dict[str, str], console: Console, last: int) -> int:
        def value(text: str) -> str:
            text = text.strip()
            if text.startswith("'"):
                return text[1:-1]
            return _ENV.sub(lambda match: variables.get(match[1], ""), text.strip('"'))

        if found := re.fullmatch(r"(?:Write-Output|Write-Host|echo) (.*)", statement, re.DOTALL | re.IGNORECASE):
            console.say(value(found[1]))
        elif found := re.fullmatch(r"Write-Error (.*)", statement):
            console.say(value(found[1]), "stderr")
        elif found := re.fullmatch(r"throw (.*)", statement):
            console.say(value(found[1]), "stderr")
            raise Ended(1)
        elif found := re.fullmatch(r"exit (\d+)", statement):
            raise Ended(int(found[1]))
        elif found := re.fullmatch(r"cmd /c exit (\d+)", statement):
            return int(found[1])
        elif found := re.fullmatch(r"(Set|Add)-Content -Path (\S+) -Value (.*)", statement, re.DOTALL):
            before = self.files.get(key(found[2]), b"") if found[1] == "Add" else b""
            self.files[key(found[2])] = before + value(found[3]).encode() + b"\r\n"
        elif found := re.fullmatch(r"(?:mkdir|New-Item -ItemType Directory -Path) (\S+)", statement):
            self.folders.add(key(found[1]))
        elif found := re.fullmatch(r"Remove-Item (\S+)", statement):
            self.files.pop(key(found[1]), None)
        elif found := re.fullmatch(r"\$env:(\w+) ?= ?(.*)", statement):
            variables[found[1]] = value(found[2])
        elif found := re.fullmatch(r"Start-Sleep (?:-Seconds |-s )?([\d.]+)", statement):
            until = time.monotonic() + float(found[1])
            while time.monotonic() < until and not console.down():
                time.sleep(0.02)
        elif found := RESTART.fullmatch(statement):
            return self.restart(float(found["delay"]))
        else:
            self._unknown(statement)
            raise Ended(9009)
        return last

    def _unknown(self, what: str) -> int:
        self.unknown.append(what)
        return 9009


def key(path: str) -> str:
    """The path as the double keeps it: Windows takes both slashes, and any case."""
    return path.replace("\\", "/").lower()
