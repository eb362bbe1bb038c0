"""Where a server listens, and what it must have for that: beyond the loopback a token and TLS."""

from __future__ import annotations

import errno
import ipaddress
import socket
from dataclasses import dataclass

from hypervisor.errors import HostError, UsageError
from orchestrator.service.host.endpoint import PORT

LOOPBACK = "127.0.0.1"
SHORTEST_TOKEN = 16
_BACKLOG = 512


@dataclass(frozen=True, slots=True)
class Listen:
    """`address`: an IP address of this machine; `port` 0: a free one. `names`: how clients beyond it call us."""

    address: str = LOOPBACK
    port: int = PORT
    http: bool = False
    names: tuple[str, ...] = ()

    @property
    def local(self) -> bool:
        """Whether nobody else can reach it."""
        return ipaddress.ip_address(self.address).is_loopback

    @property
    def all_names(self) -> tuple[str, ...]:
        """Names for the certificate, and those a client may call the server by."""
        own = () if ipaddress.ip_address(self.address).is_unspecified else (self.address,)
        return tuple(dict.fromkeys((*own, *self.names)))

    def url(self, port: int) -> str:
        """How clients reach it; one that listens everywhere is called by its first name."""
        unspecified = ipaddress.ip_address(self.address).is_unspecified
        name = self.names[0] if self.names else LOOPBACK if unspecified else self.address
        return f"{'http' if self.http else 'https'}://{bracketed(name)}:{port}"


def check(listen: Listen, token: str) -> None:
    """Raises `UsageError` for an address that is none, and for what would let others in or show them the token."""
    try:
        local = listen.local
    except ValueError as error:
        raise UsageError(
            f"--listen {listen.address}: not an IP address", hint="127.0.0.1, or an address of this machine"
        ) from error
    if local:
        return
    if not token:
        raise UsageError(
            f"--listen {listen.address}: others could build and read images here; without a token aib does not do that",
            hint="--token-file FILE holds the token that clients sign in with; aib makes the file when it is missing",
        )
    if listen.http:
        raise UsageError(
            f"--listen {listen.address} --http: the token would be readable on the network", hint="leave out --http"
        )


def bind(listen: Listen) -> socket.socket:
    """A listening socket; `HostError` when the address is not ours or the port is taken."""
    family = socket.AF_INET6 if ":" in listen.address else socket.AF_INET
    # With the protocol said, asyncio sends small answers at once; without, each would wait 40 ms for the one before.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((listen.address, listen.port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        where = f"{bracketed(listen.address)}:{listen.port}"
        hints = {
            errno.EADDRINUSE: "another program listens there: --port N, or --port 0 for a free one",
            errno.EADDRNOTAVAIL: "`ip -brief address` lists the addresses of this machine",
            errno.EACCES: "ports below 1024 are the system's: --port N",
        }
        raise HostError(f"cannot listen on {where}: {error.strerror}", hint=hints.get(error.errno or 0, "")) from error
    return listener


def bracketed(name: str) -> str:
    """An IPv6 address as it stands in a URL; everything else as it is."""
    return f"[{name}]" if ":" in name else name
