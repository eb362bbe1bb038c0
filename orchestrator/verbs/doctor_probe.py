"""Opens libvirt's embedded driver in a process of its own: a process can have one driver root in its life only."""

from __future__ import annotations

import sys

from hypervisor.deadline import Deadline
from hypervisor.errors import AibError
from hypervisor.process import run

PATIENCE = 60.0
"""Seconds for the first start of QEMU on this machine, which libvirt asks what it can do."""


def libvirt_opens() -> tuple[str, str]:
    """(libvirt's version, "") when the embedded driver opens here, else ("", what went wrong)."""
    deadline = Deadline.after(PATIENCE, "the time for opening libvirt's embedded driver")
    try:
        done = run([sys.executable, "-m", __name__], deadline=deadline, check=False)
    except AibError as error:
        return "", error.message
    said = done.stdout.decode(errors="replace").strip()
    if done.exit_code == 0 and said:
        return said, ""
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return "", lines[-1] if lines else f"the probe ended with {done.exit_code}"


def main() -> None:
    """Print libvirt's version, or on stderr why the driver does not open."""
    from hypervisor.connection import open_hypervisor

    try:
        with open_hypervisor() as hypervisor:
            number = int(hypervisor.handle.getLibVersion())
    except AibError as error:
        sys.exit(" ".join(error.message.split("\n")))
    sys.stdout.write(f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}\n")


if __name__ == "__main__":
    main()
