"""The two networks that need nobody's help: QEMU's user-mode network, and the isolated one through passt.

Both give the guest the same addresses and forward ports of 127.0.0.1 to it. From the user-mode network the guest
reaches this host's loopback (as 10.0.2.2) and whatever else the host reaches; from the isolated one it reaches neither
an address of this host nor a metadata service (`frame_filter` says what), and has no IPv6.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Protocol

from hypervisor.domain import NET_ALIAS, isolated_socket, mac
from hypervisor.errors import HostError
from hypervisor.libvirt_errors import translated
from hypervisor.process import require
from hypervisor.spec import MachineSpec

LOOPBACK = "127.0.0.1"
_TRIES = 20  # another program may take the port between our choice and its use
_END_LIMIT = 10.0  # seconds a guard may take to end before it is killed
# Isolated and without site-packages, as the watchdog.
_GUARD = "import sys; sys.path.append(sys.argv[1]); from hypervisor.network_guard import main; main(sys.argv[2:])"


class Network(Protocol):
    """How ports of 127.0.0.1 lead to a guest."""

    def forward(self, domain: Any, guest_port: int, host_port: int = 0) -> int:
        """Forward a port of 127.0.0.1 to `guest_port` of the running VM; returns the host's port.

        `host_port` 0 takes any free one. A TCP connect to it may succeed even when the guest does not listen: wait for
        what the service says first (`SSH-`). Raises HostError when the port asked for is taken.
        """
        ...


class UserMode:
    """QEMU's own network: forwards are added through its monitor."""

    def forward(self, domain: Any, guest_port: int, host_port: int = 0) -> int:
        """See `Network.forward`."""
        return add_forward(domain, guest_port, host_port)


class Isolated:
    """The network behind a guard process; it takes one forward, and with that it begins."""

    def __init__(self, guard: subprocess.Popen[str]) -> None:
        self._guard = guard
        self._forwarded = False

    def forward(self, domain: Any, guest_port: int, host_port: int = 0) -> int:
        """See `Network.forward`; raises HostError too when passt cannot work here, and for a second forward."""
        if self._forwarded:
            raise HostError("an isolated network forwards one port", hint="`--network user` forwards any number")
        said = ""
        for _ in range(1 if host_port else _TRIES):
            port = host_port or free_port()
            said = self._ask(f"{guest_port} {port}")
            if not said:
                self._forwarded = True
                return port
            if not _in_use(port):
                break
        if host_port and _in_use(host_port):
            raise _taken(host_port, guest_port, said)
        raise HostError(
            f"the isolated network could not be made: {said}",
            hint="`--network user` works without passt, but the VM can then reach this host's loopback",
        )

    def _ask(self, line: str) -> str:
        assert self._guard.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._guard.stdin.write(line + "\n")
            self._guard.stdin.flush()
        return str(_said(self._guard.stdout).get("error", "its guard process has ended"))


def check(name: str, connect: str) -> None:
    """Raise HostError when the network `name` cannot be had on the connection `connect`."""
    if connect == "embed" and name not in ("user", "isolated", "none"):
        raise HostError(
            f"the network {name!r} is none of ours, and libvirt's own networks need a libvirt daemon",
            hint=f"--connect qemu:///system --network {name}; or --network user (the default) or isolated",
        )


@contextlib.contextmanager
def opened(spec: MachineSpec, root: Path) -> Iterator[Network]:
    """What `spec.network` needs before QEMU starts; ended with the block. `root` is the runtime folder.

    Raises ToolMissing without passt.
    """
    if spec.network != "isolated":
        yield UserMode()
        return
    passt = require("passt")
    path = isolated_socket(root, spec.uuid)
    path.unlink(missing_ok=True)
    package = Path(__file__).resolve().parent.parent
    words = [sys.executable, "-I", "-S", "-c", _GUARD, str(package), str(path), str(passt), mac(spec)]
    # Not hypervisor.process.run: it lives as long as the VM. Its end is tied to ours by the pipe.
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True, cwd="/"
    ) as guard:
        try:
            if "error" in _said(guard.stdout):
                raise HostError("the guard of the isolated network did not start")
            yield Isolated(guard)
        finally:
            _end(guard)
            path.unlink(missing_ok=True)


def _said(stdout: IO[str] | None) -> dict[str, str]:
    line = stdout.readline() if stdout else ""
    answer: dict[str, str] = json.loads(line) if line else {"error": "its guard process has ended"}
    return answer


def _end(guard: subprocess.Popen[str]) -> None:
    assert guard.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        guard.stdin.close()
    try:
        guard.wait(_END_LIMIT)
    except subprocess.TimeoutExpired:
        guard.kill()


def _in_use(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return True
    return False


def _taken(host_port: int, guest_port: int, said: str) -> HostError:
    return HostError(
        f"port {host_port} of {LOOPBACK} cannot be forwarded to the guest's port {guest_port}: {said}",
        hint=f"another program uses it (`ss -ltnp sport = :{host_port}` names it); choose another, or none",
    )


def free_port() -> int:
    """A port of 127.0.0.1 that is free at this moment."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def add_forward(domain: Any, guest_port: int, host_port: int = 0) -> int:
    """`Network.forward` on QEMU's user-mode network."""
    said = ""
    for _ in range(1 if host_port else _TRIES):
        port = host_port or free_port()
        said = _monitor(domain, f"hostfwd_add host{NET_ALIAS} tcp:{LOOPBACK}:{port}-:{guest_port}")
        if not said:
            return port
    if host_port:
        raise _taken(host_port, guest_port, said)
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
