"""The user-mode network: ports of 127.0.0.1 forwarded to the guest."""

from __future__ import annotations

import socket
from typing import Any

from hypervisor.domain import NET_ALIAS
from hypervisor.errors import HostError
from hypervisor.libvirt_errors import translated

LOOPBACK = "127.0.0.1"
_TRIES = 20  # another program may take the port between our choice and QEMU's bind


def free_port() -> int:
    """A port of 127.0.0.1 that is free at this moment."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def add_forward(domain: Any, guest_port: int, host_port: int = 0) -> int:
    """Forward a port of 127.0.0.1 to `guest_port` of the running VM; returns the host's port.

    `host_port` 0 takes any free one. A TCP connect to it succeeds even when the guest does not listen: wait for what
    the service says first (`SSH-`). Raises HostError when the port asked for is taken.
    """
    said = ""
    for _ in range(1 if host_port else _TRIES):
        port = host_port or free_port()
        said = _monitor(domain, f"hostfwd_add host{NET_ALIAS} tcp:{LOOPBACK}:{port}-:{guest_port}")
        if not said:
            return port
    if host_port:
        raise HostError(
            f"port {host_port} of {LOOPBACK} cannot be forwarded to the guest's port {guest_port}: {said}",
            hint=f"another program uses it (`ss -ltnp sport = :{host_port}` names it); choose another, or none",
        )
    raise HostError(
        f"no port of {LOOPBACK} could be forwarded to the guest's port {guest_port} in {_TRIES} tries: {said}"
    )


def remove_forward(domain: Any, host_port: int) -> None:
    """Take a forward back."""
    _monitor(domain, f"hostfwd_remove host{NET_ALIAS} tcp:{LOOPBACK}:{host_port}")


def _monitor(domain: Any, command: str) -> str:
    """QEMU's human monitor: it prints nothing when all went well."""
    import libvirt_qemu

    with translated(f"QEMU monitor, {command.split(maxsplit=1)[0]}"):
        said: str = libvirt_qemu.qemuMonitorCommand(domain, command, libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP)
    said = said.strip()
    return "" if said.startswith("host forwarding rule for") and "removed" in said else said
