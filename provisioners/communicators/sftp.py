"""File transfer over SFTP, with errors that say which folder is missing or full."""

from __future__ import annotations

import io
import posixpath
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import paramiko

from hypervisor.deadline import Deadline
from provisioners.communicators.base import CommunicatorError
from provisioners.communicators.ssh_guard import Guard, guarded
from provisioners.communicators.ssh_transport import GuestTransport

CHUNK = 32 * 1024

Diagnose = Callable[[str, Deadline], str]
"""(folder, deadline) -> what is known about the space in that folder."""


class SftpTransfers:
    """Transfers over one SFTP session that is opened when it is first needed and kept."""

    def __init__(self, transport: GuestTransport, *, stall: float) -> None:
        self._transport = transport
        self._stall = stall
        self._client: paramiko.SFTPClient | None = None

    def upload(
        self, source: Path | bytes, destination: str, *, mode: int | None, deadline: Deadline, diagnose: Diagnose
    ) -> None:
        """Write `source` to the guest path `destination`; see `Communicator.upload`."""
        with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as content:
            try:
                with guarded(self._cut, deadline, f"sending {destination}", stall=self._stall) as guard:
                    self._put(content, destination, mode, guard)
            except OSError as error:
                raise self._explain_upload(destination, error, deadline, diagnose) from error

    def _put(self, content: BinaryIO, destination: str, mode: int | None, guard: Guard) -> None:
        client = self._session()
        with client.open(destination, "wb") as remote:
            if mode is not None:
                remote.chmod(mode)
            remote.set_pipelined(True)
            size = 0
            while chunk := content.read(CHUNK):
                remote.write(chunk)
                size += len(chunk)
                guard.beat()
        written = client.stat(destination).st_size
        if written != size:
            # A full disk often shows only here: what was refused of pipelined writes is not always told.
            raise OSError(f"{written} of {size} bytes were written")

    def download(self, source: str, destination: Path, *, deadline: Deadline) -> None:
        """Copy the guest's `source` to `destination`; see `Communicator.download`."""
        part = destination.with_name(destination.name + ".part")
        try:
            with (
                guarded(self._cut, deadline, f"fetching {source}", stall=self._stall) as guard,
                part.open("wb") as file,
            ):
                self._get(source, file, guard)
            part.replace(destination)
        except FileNotFoundError as error:
            if not destination.parent.is_dir():
                raise
            raise CommunicatorError(f"{source} does not exist in the guest") from error
        except OSError as error:
            raise CommunicatorError(f"cannot read {source} in the guest: {_reason(error)}") from error
        finally:
            part.unlink(missing_ok=True)

    def _get(self, source: str, file: BinaryIO, guard: Guard) -> None:
        with self._session().open(source, "rb") as remote:
            expected = remote.stat().st_size or 0
            remote.prefetch(expected)
            size = 0
            while chunk := remote.read(CHUNK):
                size += file.write(chunk)
                guard.beat()
        # Files of /proc have no size; everything else must be complete.
        if size < expected:
            raise CommunicatorError(f"{source} has {expected} bytes in the guest, {size} arrived")

    def _session(self) -> paramiko.SFTPClient:
        channel = self._client.get_channel() if self._client is not None else None
        if self._client is None or channel is None or channel.closed:
            try:
                self._client = paramiko.SFTPClient.from_transport(self._transport)
            except (paramiko.ChannelException, paramiko.SFTPError) as error:
                raise _no_sftp(error) from error
            except (EOFError, paramiko.SSHException) as error:
                if not self._transport.is_active():
                    raise
                raise _no_sftp(error) from error
            if self._client is None:
                raise CommunicatorError("the connection to the guest gives no SFTP session")
        return self._client

    def _explain_upload(
        self, destination: str, error: OSError, deadline: Deadline, diagnose: Diagnose
    ) -> CommunicatorError:
        """Find out why: SFTP servers answer most failures with nothing but "Failure"."""
        folder = posixpath.dirname(destination) or "."
        why = _reason(error)
        with guarded(self._cut, deadline, f"looking at {folder}", stall=self._stall):
            if not self._is_folder(folder):
                return CommunicatorError(
                    f"cannot write {destination} in the guest: the folder {folder} does not exist",
                    hint="create it in an earlier Shell customizer",
                )
            if self._is_folder(destination):
                return CommunicatorError(
                    f"cannot write {destination} in the guest: it is a folder",
                    hint="the destination is the full path with the file's name",
                )
        if isinstance(error, PermissionError):
            return CommunicatorError(
                f"cannot write {destination} in the guest: permission denied for the login user",
                hint="upload to /tmp, then move it with sudo in a Shell customizer",
            )
        space = diagnose(folder, deadline)
        return CommunicatorError(f"cannot write {destination} in the guest: {why}" + (f" ({space})" if space else ""))

    def _is_folder(self, path: str) -> bool:
        try:
            return stat.S_ISDIR(self._session().stat(path).st_mode or 0)
        except OSError:
            return False

    def _cut(self) -> None:
        self._transport.close()

    def close(self) -> None:
        """Close the session, if one was opened."""
        if self._client is not None and self._transport.is_active():
            self._client.close()
        self._client = None


def _reason(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__


def _no_sftp(error: Exception) -> CommunicatorError:
    return CommunicatorError(
        f"the guest's SSH server offers no file transfer (SFTP): {error}",
        hint="the source image needs `Subsystem sftp` in /etc/ssh/sshd_config",
    )
