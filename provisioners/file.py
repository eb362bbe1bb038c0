"""The File customizer: one file to a full path, with the login user's permissions (SEED S23, PKR file)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from provisioners import reboot
from provisioners.base import Context, Guest, Outcome, StepError
from provisioners.by_disk import sent_by_disk
from provisioners.communicators.base import CommunicatorError, ConnectionLost

DOCUMENTED_LIMIT = 20 * 1000 * 1000
"""Bytes; larger files fail or take very long on the service (SEED S23: "less than 20 MB")."""


@dataclass(frozen=True, slots=True)
class File:
    """`source` on this host, `destination` in the guest. Folders must exist; only what the login user may write works,
    which on Linux means /tmp (and its home)."""

    source: Path
    destination: str

    def apply(self, guest: Guest, context: Context) -> Outcome:
        """See `Provisioner.apply`."""
        if not self.destination.startswith("/") or self.destination.endswith("/"):
            raise StepError(
                f"the destination {self.destination!r} is not a full path with a file name",
                hint="File copies one file: give the full path with the file's name, such as /tmp/app.tar.gz",
            )
        warn_of_size(self.source, self.destination, context)
        limit = context.deadline.limited(reboot.START_LIMIT_SECONDS, "the 5 minutes for starting an upload")
        while True:
            reboot.boot_state(guest, context)
            try:
                if not sent_by_disk(guest, self.source, self.destination, context):
                    guest.communicator.upload(self.source, self.destination, deadline=context.deadline)
            except ConnectionLost as error:
                context.deadline.check(f"sending {self.destination}")
                if limit.over:
                    raise StepError(error.message, hint=error.hint) from error
                reboot.disconnect(guest)
            except CommunicatorError as error:
                raise StepError(error.message, hint=error.hint) from error
            else:
                return Outcome()


def warn_of_size(source: Path, destination: str, context: Context) -> None:
    """Say it when a file is larger than the service documents."""
    size = source.stat().st_size
    if size >= DOCUMENTED_LIMIT:
        context.deviation(
            "file-size",
            f"{destination} has {size / 1e6:.1f} MB: the service documents less than 20 MB for a File "
            "customizer; it is copied here, but may fail there (let a script download it instead)",
        )
