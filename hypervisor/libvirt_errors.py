"""libvirt's errors become ours here, once."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from hypervisor.errors import HostError

# What libvirt or QEMU says (any case) -> what to do.
_HINTS: tuple[tuple[str, str], ...] = (
    (
        r"failed to connect socket",
        "no libvirt daemon listens there: start it, or leave --connect out (no daemon needed)",
    ),
    (
        r"authentication|permission denied.*libvirt-sock",
        "join the group libvirt (then log in again), or leave --connect out",
    ),
    (r"failed to get .*lock", "another VM or program uses that disk: end it first (`aib runs` lists the builds)"),
    (r"cannot (set up|allocate) (guest )?memory|cannot allocate memory", "too little memory is free: a smaller vmSize"),
    (r"no space left", "free some space, or `aib gc`"),
    (r"permission denied", "this user must be able to read the images (and write the folder) named above"),
    (r"network not found", "`virsh net-list --all` names the networks of this connection"),
    (r"unable to find any firmware", "UEFI firmware is missing: sudo apt install ovmf"),
    (r"backend 'user' is not compiled|network backend", "this QEMU has no user-mode network: use a libvirt network"),
    (r"no emulator|cannot (check|find).*qemu", "sudo apt install qemu-system-x86"),
)


class HypervisorError(HostError):
    """libvirt or QEMU refused; `code` is libvirt's number (VIR_ERR_*)."""

    def __init__(self, message: str, *, hint: str = "", code: int = 0) -> None:
        super().__init__(message, hint=hint)
        self.code = code


NO_DOMAIN = 42  # VIR_ERR_NO_DOMAIN: a transient domain that has ended
NOT_RUNNING = 55  # VIR_ERR_OPERATION_INVALID


@contextlib.contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn libvirt's exception into a HypervisorError that says what we were `doing`."""
    import libvirt

    try:
        yield
    except libvirt.libvirtError as error:
        said = " ".join(str(error).split())
        raise HypervisorError(f"{doing}: {said}", hint=_hint(said), code=error.get_error_code() or 0) from error


def _hint(said: str) -> str:
    for pattern, hint in _HINTS:
        if re.search(pattern, said, re.IGNORECASE):
            return hint
    return "`aib doctor` checks this machine"
