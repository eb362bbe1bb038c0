"""A guest behind SSH for the contract suite: a real SSH server in this process, which runs commands of /bin/sh."""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

import paramiko
from paramiko.common import MSG_CHANNEL_REQUEST, cMSG_CHANNEL_REQUEST
from paramiko.message import Message

from hypervisor.deadline import Deadline
from provisioners.communicators.base import Communicator
from provisioners.communicators.ssh_connect import connect
from provisioners.identity import BuildIdentity


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
