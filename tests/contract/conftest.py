"""The guests that the contract suite runs over: a real SSH server in this process, and the in-memory one."""

from __future__ import annotations

import io
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import paramiko
import pytest
from paramiko.common import MSG_CHANNEL_REQUEST, cMSG_CHANNEL_REQUEST
from paramiko.message import Message

from hypervisor.deadline import Deadline
from provisioners.communicators.base import CommandResult, Communicator
from provisioners.communicators.memory import Call, MemoryFile, MemoryMachine
from provisioners.communicators.ssh_connect import connect
from provisioners.identity import BuildIdentity
from tests.contract.winrm_bed import WinRMBed
from tests.unit.conftest import web  # noqa: F401 -- a fixture is used by its name


def _server_request(channel, message):
    """paramiko's server knows no `signal` request: do what OpenSSH does with it."""
    start = message.packet.tell()
    if message.get_text() == "signal":
        message.get_boolean()
        name = message.get_text()
        process = channel.get_transport().server_object.processes.get(channel.get_id())
        channel.get_transport().server_object.server.signals.append(name)
        with suppress(ProcessLookupError):  # it ended just now
            if process is not None and process.poll() is None:
                os.killpg(process.pid, getattr(signal, f"SIG{name}"))
        return
    message.packet.seek(start)
    channel._handle_request(message)


class _ServerTransport(paramiko.Transport):
    _channel_handler_table = {  # noqa: RUF012 - overrides paramiko's own class attribute
        **paramiko.Transport._channel_handler_table,
        MSG_CHANNEL_REQUEST: _server_request,
    }


class SshServer:
    """An SSH server on 127.0.0.1 that runs real commands and serves real files, and can be made to fail."""

    def __init__(self, folder: Path, identity: BuildIdentity) -> None:
        self.folder = folder
        self.identity = identity
        self.host_key = paramiko.Ed25519Key(file_obj=io.StringIO(identity.host_private))
        self.authorized = identity.login_public.split()[1]
        self.refused_logins = 0
        self.logins = 0
        self.tells_signals = True
        self.quota: int | None = None
        self.signals: list[str] = []
        self.transports: list[paramiko.Transport] = []
        self.processes: list[subprocess.Popen[bytes]] = []
        self.lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            transport = _ServerTransport(sock)
            transport.add_server_key(self.host_key)
            transport.set_subsystem_handler("sftp", paramiko.SFTPServer, _Files)
            self.transports.append(transport)
            try:
                transport.start_server(event=threading.Event(), server=_Session(self))
            except (EOFError, paramiko.SSHException):
                transport.close()

    def cut(self) -> None:
        """End every connection; the commands go with them."""
        for transport in self.transports:
            transport.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # closing alone does not wake `accept`, which keeps the port
        self._accepting.join()
        self._listener.close()
        self.cut()
        for process in self.processes:
            with suppress(ProcessLookupError):  # it ended just now
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
            process.wait()


class _Session(paramiko.ServerInterface):
    def __init__(self, server: SshServer) -> None:
        self.server = server
        self.processes: dict[int, subprocess.Popen[bytes]] = {}

    def get_allowed_auths(self, username):
        return "publickey"

    def check_auth_publickey(self, username, key):
        if self.server.refused_logins > 0:
            self.server.refused_logins -= 1
            return paramiko.AUTH_FAILED
        known = username == "packer" and key.get_base64() == self.server.authorized
        self.server.logins += known
        return paramiko.AUTH_SUCCESSFUL if known else paramiko.AUTH_FAILED

    def check_channel_request(self, kind, chanid):
        return paramiko.OPEN_SUCCEEDED if kind == "session" else paramiko.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED

    def check_channel_exec_request(self, channel, command):
        threading.Thread(target=self._run, args=(channel, command.decode()), daemon=True).start()
        return True

    def check_global_request(self, kind, msg):
        return False

    def _run(self, channel, command: str) -> None:
        process = subprocess.Popen(
            ["/bin/sh", "-c", command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.server.folder,
            start_new_session=True,
        )
        self.processes[channel.get_id()] = process
        self.server.processes.append(process)
        pumps = [
            threading.Thread(target=_pump, args=(process.stdout, channel.sendall), daemon=True),
            threading.Thread(target=_pump, args=(process.stderr, channel.sendall_stderr), daemon=True),
        ]
        threading.Thread(target=_feed, args=(channel, process.stdin), daemon=True).start()
        for pump in pumps:
            pump.start()
        code = process.wait()
        for pump in pumps:
            pump.join()
        with suppress(*GONE):
            if code >= 0:
                channel.send_exit_status(code)
            elif self.server.tells_signals:
                message = Message()
                message.add_byte(cMSG_CHANNEL_REQUEST)
                message.add_int(channel.remote_chanid)
                message.add_string("exit-signal")
                message.add_boolean(False)
                message.add_string(signal.Signals(-code).name.removeprefix("SIG"))
                message.add_boolean(False)
                message.add_string("")
                message.add_string("")
                channel.get_transport()._send_user_message(message)
            channel.close()


GONE = (OSError, EOFError)
"""The client closed the channel, or (paramiko's EOFError) the connection, while something was being sent on it."""


def _pump(source, send) -> None:
    with source, suppress(*GONE):
        while data := source.read1(65536):
            send(data)


def _feed(channel, target) -> None:
    with suppress(*GONE):
        while data := channel.recv(65536):  # which also sends, how much more may come
            target.write(data)
            target.flush()
    with suppress(OSError):
        target.close()


class _Files(paramiko.SFTPServerInterface):
    def __init__(self, server, *args, **kwargs) -> None:
        super().__init__(server, *args, **kwargs)
        self.ssh = server.server

    def open(self, path, flags, attr):
        try:
            descriptor = os.open(path, flags, 0o644)
        except OSError as error:
            # OpenSSH's sftp-server knows four reasons; a folder is a "Failure" like any other.
            return paramiko.SFTP_FAILURE if error.errno == 21 else paramiko.SFTPServer.convert_errno(error.errno)
        handle = _FileHandle(flags)
        handle.ssh = self.ssh
        handle.filename = path
        handle.readfile = handle.writefile = os.fdopen(descriptor, "wb" if flags & os.O_WRONLY else "rb")
        return handle

    def stat(self, path):
        try:
            return paramiko.SFTPAttributes.from_stat(Path(path).stat())
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno)

    lstat = stat


class _FileHandle(paramiko.SFTPHandle):
    def stat(self):
        return paramiko.SFTPAttributes.from_stat(os.fstat(self.readfile.fileno()))

    def chattr(self, attr):
        os.fchmod(self.writefile.fileno(), attr.st_mode & 0o7777)
        return paramiko.SFTP_OK

    def write(self, offset, data):
        if self.ssh.quota is not None and offset + len(data) > self.ssh.quota:
            return paramiko.SFTP_FAILURE
        return super().write(offset, data)


class SshBed:
    """The suite's view of a guest behind SSH."""

    kind = "ssh"

    def __init__(self, server: SshServer) -> None:
        self.server = server
        self.folder = str(server.folder)

    def connect(self, **options) -> Communicator:
        identity = self.server.identity
        return connect(
            "127.0.0.1",
            self.server.port,
            "packer",
            identity.login_private,
            identity.host_public,
            deadline=Deadline.after(20, "the test"),
            settle=options.pop("settle", 1.0),
            **options,
        )

    def cut(self) -> None:
        self.server.cut()

    def fill(self, left: int) -> None:
        self.server.quota = left

    def read(self, path: str) -> bytes:
        return Path(path).read_bytes()

    def write(self, path: str, content: bytes) -> None:
        Path(path).write_bytes(content)

    def mode(self, path: str) -> int:
        return Path(path).stat().st_mode & 0o7777

    def make_folder(self, path: str) -> None:
        Path(path).mkdir()


class MemoryBed:
    """The suite's view of the in-memory guest: it is taught the suite's commands, to the letter."""

    kind = "memory"

    def __init__(self) -> None:
        self.machine = MemoryMachine()
        self.folder = "/tmp"
        teach(self.machine)

    def connect(self) -> Communicator:
        self.machine.up = True
        return self.machine.connect()

    def cut(self) -> None:
        self.machine.up = False

    def fill(self, left: int) -> None:
        self.machine.capacity = left

    def read(self, path: str) -> bytes:
        return self.machine.files[path].content

    def write(self, path: str, content: bytes) -> None:
        self.machine.files[path] = MemoryFile(content)

    def mode(self, path: str) -> int:
        return self.machine.files[path].mode

    def make_folder(self, path: str) -> None:
        self.machine.folders[path] = "packer"


COMMANDS = {
    "both streams": r"printf 'a\000\377b'; printf 'oops\n' >&2; printf c",
    "exit 7": "exit 7",
    "cat": "cat",
    "read": 'read answer; echo "read said $?"',
    "kill itself": "kill -9 $$",
    "sleep": "echo started; sleep 60",
    "2 MB": "head -c 2000000 /dev/zero | tr '\\0' x",
    "not there": "no-such-command-here",
}


def teach(machine: MemoryMachine) -> None:
    """What the suite's commands do, for the guest that has no shell."""

    def both(call: Call) -> CommandResult:
        call.write("stdout", b"a\0\xffb")
        call.write("stderr", b"oops\n")
        call.write("stdout", b"c")
        return CommandResult(0)

    def cat(call: Call) -> CommandResult:
        call.write("stdout", call.stdin)
        return CommandResult(0)

    def sleep(call: Call) -> CommandResult:
        call.write("stdout", b"started\n")
        return call.wait(60) or CommandResult(0)

    def big(call: Call) -> CommandResult:
        for _ in range(20):
            call.write("stdout", b"x" * 100_000)
        return CommandResult(0)

    actions: dict[str, Callable[[Call], CommandResult]] = {
        "both streams": both,
        "exit 7": lambda _: CommandResult(7),
        "cat": cat,
        "kill itself": lambda _: CommandResult(None, signal="KILL"),
        "sleep": sleep,
        "2 MB": big,
        "not there": lambda _: CommandResult(127),
    }
    for name, action in actions.items():
        machine.on(re.escape(COMMANDS[name]), action)
    machine.answers(re.escape(COMMANDS["read"]), b"read said 1\n")


@pytest.fixture(scope="session")
def identity() -> BuildIdentity:
    return BuildIdentity.create()


@pytest.fixture
def ssh_server(tmp_path: Path, identity: BuildIdentity) -> Iterator[SshServer]:
    server = SshServer(tmp_path, identity)
    yield server
    server.close()


@pytest.fixture(params=["ssh", "winrm", "memory"])
def bed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SshBed | WinRMBed | MemoryBed]:
    """A guest to connect to."""
    if request.param == "memory":
        yield MemoryBed()
    elif request.param == "winrm":
        guest = WinRMBed(tmp_path)
        yield guest
        guest.cut()
    else:
        yield SshBed(request.getfixturevalue("ssh_server"))


@pytest.fixture
def commands() -> dict[str, str]:
    """Command lines by what they are for."""
    return COMMANDS


@pytest.fixture
def ssh_bed(ssh_server: SshServer) -> SshBed:
    """The guest behind SSH alone, for what only a network has."""
    return SshBed(ssh_server)


@pytest.fixture
def wait_for() -> Callable[[Callable[[], bool]], None]:
    """Wait for something that another thread does."""

    def wait(ready: Callable[[], bool]) -> None:
        end = time.monotonic() + 20
        while not ready():
            assert time.monotonic() < end, "it did not happen within 20 s"
            time.sleep(0.01)

    return wait


def files_with(home: Path, text: bytes) -> list[Path]:
    """The files below `home` that hold `text`, while others go away: SQLite's, and those of a run."""
    found = []
    for folder, _, names in os.walk(home):
        for path in (Path(folder, name) for name in names):
            with suppress(FileNotFoundError):
                if path.is_file() and text in path.read_bytes():
                    found.append(path)
    return found


@pytest.fixture(scope="session")
def token_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp() / "entra.pem"  # one for all servers: to make one takes a while
