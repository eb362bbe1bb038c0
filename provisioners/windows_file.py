"""The File customizer on a Windows guest (SEED S23, PKR file)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from provisioners.base import Context, Guest, Outcome, StepError
from provisioners.communicators.base import CommunicatorError, ConnectionLost
from provisioners.file import warn_of_size
from provisioners.reboot import START_LIMIT_SECONDS, disconnect
from provisioners.windows_guest import customizer, reach

_FULL_PATH = re.compile(r"[A-Za-z]:[\\/](?:.*[^\\/ .])?")


@dataclass(frozen=True, slots=True)
class WindowsFile:
    """`source` on this host, `destination` in the guest: a full path whose folder exists (Packer would make it)."""

    source: Path
    destination: str

    def apply(self, guest: Guest, context: Context) -> Outcome:
        """See `Provisioner.apply`."""
        if not _FULL_PATH.fullmatch(self.destination) or len(self.destination) < 4:
            raise StepError(
                f"the destination {self.destination!r} is not a full path with a file name",
                hint="File copies one file: give the full path with the file's name, such as c:\\temp\\app.zip",
            )
        warn_of_size(self.source, self.destination, context)
        limit = context.deadline.limited(START_LIMIT_SECONDS, "the 5 minutes for starting an upload")
        with customizer(guest):
            while True:
                reach(guest, context)
                try:
                    guest.communicator.upload(self.source, self.destination, deadline=context.deadline)
                except ConnectionLost as error:
                    context.deadline.check(f"sending {self.destination}")
                    if limit.over:
                        raise StepError(error.message, hint=error.hint) from error
                    disconnect(guest)
                except CommunicatorError as error:
                    hint = error.hint
                    if "does not exist" in error.message:
                        hint = (
                            "the folder must exist, as the service documents it: make it in an earlier PowerShell step"
                        )
                    raise StepError(error.message, hint=hint) from error
                else:
                    return Outcome()
