"""Addresses that are nobody's business: this machine's own, its network's, and those of its cloud.

A template that somebody else wrote must not make us speak to them. Names are resolved and every address is looked at
before anything is sent, at each redirect; and again at the connection itself, as a name may resolve otherwise then.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from orchestrator.plan.http_errors import FetchError

_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")
"""NAT64: the last four bytes are an IPv4 address."""


_FABRIC = ipaddress.ip_address("168.63.129.16")
"""Azure's wire server: public by its number, but each virtual machine's own."""


class NotAllowed(FetchError):
    """The address is one of this machine, or of a network that is not public."""


def is_public(address: str) -> bool:
    """Whether an IP address is anybody's on the internet, also where it hides an IPv4 address."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        hidden = ip.ipv4_mapped or ip.sixtofour or (ip.teredo or (None, None))[1]
        if hidden is None and ip in _TRANSLATED:
            hidden = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if hidden is not None:
            return is_public(str(hidden))
    return ip.is_global and not ip.is_multicast and ip != _FABRIC


def check_public(url: str, *, proxied: bool) -> None:
    """Raise `NotAllowed` when the host of `url` is, or resolves to, an address that is not public.

    A name that only a proxy can resolve is the proxy's to judge.
    """
    host = urlsplit(url).hostname or ""
    try:
        found = socket.getaddrinfo(host, None, proto=socket.IPPROTO_TCP)
    except (OSError, UnicodeError):
        if proxied:
            return
        found = []  # the connection fails with the right words
    for *_, place in found:
        if not is_public(str(place[0])):
            raise refused(url, str(place[0]))


def refused(url: str, address: str) -> NotAllowed:
    """The error for one address."""
    where = f" ({address})" if address and address not in url else ""
    return NotAllowed(
        url,
        f"its host{where} is of this machine or of a private network",
        hint="The owner of this server can allow such addresses.",
    )


def guard(session: requests.Session) -> None:
    """Let this session connect to public addresses only; to a proxy of the environment as before."""
    adapter = _Guarded()
    session.mount("http://", adapter)
    session.mount("https://", adapter)


class PeerRefused(Exception):
    """The connection led to an address that is not public; `address` says which."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.address = address


class _Guarded(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """As the base class, with connections that look at whom they reached."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}


def _checked(connection: socket.socket) -> socket.socket:
    address = str(connection.getpeername()[0])
    if not is_public(address):
        connection.close()
        raise PeerRefused(address)
    return connection


class _Http(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        return _checked(super()._new_conn())


class _Https(HTTPSConnection):
    def _new_conn(self) -> socket.socket:
        return _checked(super()._new_conn())


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = _Http


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = _Https
