"""A large file on a disk that is plugged in for a moment: an encrypted connection into a slow guest takes ten times as
long (`performance.md` 3). The guest's own system reads it; where it cannot, the connection serves as ever."""

from __future__ import annotations

import secrets
from contextlib import AbstractContextManager
from pathlib import Path
from shlex import quote
from typing import Protocol, runtime_checkable

from hypervisor.deadline import Deadline
from hypervisor.errors import HostError
from provisioners.base import Context, Guest
from provisioners.communicators.base import CommunicatorError, ConnectionLost

WORTH_IT = 16 * 1024 * 1024
"""Bytes from which on it is quicker: plugging and unplugging take about a second."""
_BLOCK = 4 * 1024 * 1024

# As the login user writes it: only reading the disk needs root. What was there keeps its mode, as with SFTP.
# The whole blocks go past the guest's cache, which takes half as long on an emulated processor; the rest cannot.
_COPY = """disk=
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
  for serial in /sys/block/vd*/serial; do
    found=; read -r found 2>/dev/null <"$serial"
    [ "$found" = {serial} ] && disk=${{serial%/serial}} && disk=/dev/${{disk##*/}}
  done
  [ -b "$disk" ] && break
  sleep 0.2
done
[ -b "$disk" ] || exit 44
sudo -n sh -c 'dd if="$0" bs=4M count={blocks} iflag=fullblock,direct || dd if="$0" bs=4M count={blocks} iflag=fullblock
dd if="$0" bs=4M skip={blocks} count={rest} iflag=count_bytes,fullblock' "$disk" 2>/dev/null >{target} || exit 45
[ "$(wc -c <{target})" -eq {size} ]"""


@runtime_checkable
class LendsDisks(Protocol):
    """A guest into which a disk can be plugged."""

    def lend(self, file: Path, serial: str, deadline: Deadline) -> AbstractContextManager[None]:
        """The file is a read-only disk of the guest, with this serial number, during the block; raises `HostError`."""
        ...


def sent_by_disk(guest: Guest, source: Path, destination: str, context: Context) -> bool:
    """Bring `source` to `destination` by a disk; false where it is not worth it, or where it cannot be done.

    A half-written file may be there when it could not be done: whoever sends it otherwise writes it anew. Raises
    `ConnectionLost`, `DeadlineExceeded`, `Cancelled`.
    """
    size = source.stat().st_size
    if size < WORTH_IT or not isinstance(guest, LendsDisks):
        return False
    serial = f"aib{secrets.token_hex(6)}"
    blocks, rest = divmod(size, _BLOCK)
    command = _COPY.format(serial=serial, size=size, blocks=blocks, rest=rest, target=quote(destination))
    try:
        with guest.lend(source, serial, context.deadline):
            result = guest.communicator.run(command, deadline=context.deadline)
    except ConnectionLost:
        raise
    except (CommunicatorError, HostError):
        return False
    if result.exit_code != 0:
        return False
    context.deviation("file-by-disk", f"{destination} ({size / 1e6:.0f} MB) came by a disk that was plugged in")
    return True
