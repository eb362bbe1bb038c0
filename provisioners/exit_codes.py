"""What the exit code of a script in the guest means, in words."""

from __future__ import annotations

import signal

_MEANINGS = {
    1: "a command failed",
    2: "wrong usage of a command, or a shell syntax error",
    100: "apt-get failed",
    124: "a command ran into `timeout`",
    126: "found, but cannot be executed",
    127: "a command was not found",
    255: "out of range, or ssh inside the script failed",
}
_HINTS = {
    2: "check the script with `sh -n`: it is run by /bin/sh, which is not bash",
    100: "look at apt's messages; the lock may be held by the first-boot jobs: wait with `cloud-init status --wait`",
    126: "its interpreter (first line) or its permissions are wrong, or its folder is mounted noexec",
    127: "install the command in an earlier step, or give its full path; PATH is that of a non-interactive login",
    137: "something killed it with SIGKILL: often the kernel, because memory ran out (ask for a larger vmSize)",
    139: "a program crashed: see its last lines of output",
    141: "a program wrote into a pipe that nobody reads any more (`... | head`)",
    143: "something ended it with SIGTERM: a service manager, `pkill`, or a shutdown",
}


def describe(code: int) -> str:
    """ "exit code 127 (a command was not found)"."""
    meaning = _MEANINGS.get(code, "")
    if 128 < code < 128 + 65:
        try:
            meaning = f"ended by {signal.Signals(code - 128).name}"
        except ValueError:
            meaning = f"ended by signal {code - 128}"
    return f"exit code {code}" + (f" ({meaning})" if meaning else "")


def hint(code: int) -> str:
    """What to do about it, where that can be said."""
    return _HINTS.get(code, "")
