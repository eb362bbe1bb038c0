"""A resumed guest thinks that it is still then: its clock and its random pool are set before anything else runs."""

from __future__ import annotations

import secrets
import time

from hypervisor.deadline import Deadline
from provisioners.communicators.base import Communicator, CommunicatorError

LIMIT_SECONDS = 60.0
_SEED_BYTES = 64
# Writing to /dev/urandom mixes bytes in; only the ioctl RNDRESEEDCRNG (0x5207) makes the kernel use them at once.
_WAKE = """sudo -n sh -c '
date -u -s @{now:.3f} >/dev/null 2>&1 || date -u -s @{seconds} >/dev/null || exit 3
cat >/dev/urandom || exit 4
perl -e "open(F, q(>/dev/urandom)) && ioctl(F, 0x5207, 0) or exit 1" 2>/dev/null ||
python3 -c "import fcntl; fcntl.ioctl(open(\\"/dev/urandom\\", \\"wb\\"), 0x5207)" 2>/dev/null || echo mixed
'"""


def wake(communicator: Communicator, deadline: Deadline) -> bool:
    """Set the guest's clock and give its random pool new bytes.

    True when the kernel was told to use them at once; False when they are mixed in and used at its next reseeding (at
    most a minute later): the guest has neither perl nor python3. Raises `CommunicatorError` when it cannot be done.
    """
    limit = deadline.limited(LIMIT_SECONDS, "waking the resumed guest")
    said = bytearray()
    now = time.time()
    result = communicator.run(
        _WAKE.format(now=now, seconds=int(now)),
        deadline=limit,
        output=lambda _, data: said.extend(data),
        stdin=secrets.token_bytes(_SEED_BYTES),
    )
    if result.exit_code != 0:
        raise CommunicatorError(f"the resumed guest's clock and random pool could not be set: {bytes(said)!r}")
    return b"mixed" not in said
