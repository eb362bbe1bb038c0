"""What a build needs beside the checker (the extra `build`), looked for without importing any of it."""

from __future__ import annotations

from importlib.util import find_spec

from hypervisor.errors import HostError

MODULES = {
    "libvirt": "libvirt-python",
    "paramiko": "paramiko",
    "cryptography": "cryptography",
    "pycdlib": "pycdlib",
}


def require_build_extra() -> None:
    """Raise `HostError` naming the packages that are missing and how to get them."""
    missing = [package for module, package in MODULES.items() if find_spec(module) is None]
    if missing:
        raise HostError(
            f"this installation can check templates but not build: {', '.join(missing)} not installed",
            hint="pip install 'aib[build]'; `aib doctor` says what else this machine needs",
        )
