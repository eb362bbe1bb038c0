"""Which frames of an isolated guest may go out. Pure; standard library only.

The guest lives in a small network of its own (the same addresses that QEMU's user-mode network gives), behind which a
program of this host opens the connections that it asks for. Whatever the host can reach, the guest could then reach as
well: so the way to the host itself and to the metadata services of clouds is closed here, frame by frame.
"""

from __future__ import annotations

import ipaddress
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

GUEST, GATEWAY, PREFIX = "10.0.2.15", "10.0.2.2", 24
GATEWAY_MAC = "52:55:0a:00:02:02"
_NETWORK = ipaddress.IPv4Network(f"{GATEWAY}/{PREFIX}", strict=False)
# Besides the link-local metadata services (169.254.169.254 and its neighbours): Azure's wire server, Alibaba's and
# Oracle's metadata addresses. Loopback, "this network", multicast and broadcast lead to the host or nowhere.
FORBIDDEN = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "168.63.129.16/32", "100.100.100.200/32", "192.0.0.0/24",
        "224.0.0.0/4", "240.0.0.0/4", str(_NETWORK),
    )
)  # fmt: skip

_ARP, _IPV4 = 0x0806, 0x0800
_ICMP, _TCP, _UDP = 1, 6, 17
_ETHERNET, _LENGTH = 14, 4
_LOOK_AGAIN = 10.0  # seconds: a laptop's addresses change during a build
_UNREACHABLE, _PROHIBITED = 3, 13  # ICMP: communication administratively prohibited
_QUOTED = 8  # bytes of the refused packet's payload that an ICMP error carries


def whole_frames(buffer: bytes) -> tuple[list[memoryview], bytes]:
    """The complete frames (each with its four bytes of length) in a stream that QEMU wrote, and the torn rest."""
    frames, at, view = [], 0, memoryview(buffer)
    while at + _LENGTH <= len(buffer):
        end = at + _LENGTH + struct.unpack_from("!I", buffer, at)[0]
        if end > len(buffer):
            break
        frames.append(view[at:end])
        at = end
    return frames, buffer[at:]


class FrameFilter:
    """Judges the guest's frames. `own_addresses` tells the host's addresses; it is asked anew every ten seconds."""

    def __init__(
        self, own_addresses: Callable[[], frozenset[int]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ask, self._clock = own_addresses, clock
        self._verdicts: dict[int, bool] = {}
        self._own: frozenset[int] = frozenset()
        self._until = float("-inf")

    def allows(self, frame: bytes | memoryview) -> bool:
        """Whether this Ethernet frame (without its length) may leave: IPv4 to where it may go, and ARP."""
        if len(frame) < _ETHERNET:
            return False
        kind = struct.unpack_from("!H", frame, 12)[0]
        if kind == _ARP:
            return True
        return kind == _IPV4 and self._packet(frame)

    def _packet(self, frame: bytes | memoryview) -> bool:
        if len(frame) < _ETHERNET + 20 or frame[_ETHERNET] >> 4 != 4:
            return False
        header = (frame[_ETHERNET] & 15) * 4
        if header < 20 or len(frame) < _ETHERNET + header:
            return False
        target = str(ipaddress.IPv4Address(bytes(frame[30:34])))
        if target in (GATEWAY, "255.255.255.255"):
            return self._inside(frame, _ETHERNET + header)
        return self._outside(struct.unpack_from("!I", frame, 30)[0])

    @staticmethod
    def _inside(frame: bytes | memoryview, at: int) -> bool:
        """To the gateway: DHCP, DNS, and answers on connections that came in. (DNS over TCP is not to be had.)"""
        fragment = struct.unpack_from("!H", frame, 20)[0] & 0x3FFF
        if fragment or len(frame) < at + 8:
            return False
        if frame[23] == _UDP:
            return struct.unpack_from("!H", frame, at + 2)[0] in (53, 67)
        # All but SYN without ACK: that opens a connection.
        return frame[23] == _TCP and len(frame) >= at + 14 and frame[at + 13] & 0x12 != 0x02

    def _outside(self, address: int) -> bool:
        if self._clock() >= self._until:
            self._own, self._until = self._ask(), self._clock() + _LOOK_AGAIN
            self._verdicts.clear()
        verdict = self._verdicts.get(address)
        if verdict is None:
            target = ipaddress.IPv4Address(address)
            verdict = address not in self._own and not any(target in network for network in FORBIDDEN)
            if len(self._verdicts) < 65536:
                self._verdicts[address] = verdict
        return verdict


def introduction(mac: str) -> bytes:
    """An ARP request in the guest's name, as a frame with its length.

    passt learns the MAC address from what the guest sends first. One that is silent (a fixed address, or resumed
    from memory) would get connections by broadcast frames, which it ignores.
    """
    ours, nobody = bytes.fromhex(mac.replace(":", "")), bytes(6)
    guest, gateway = (ipaddress.IPv4Address(text).packed for text in (GUEST, GATEWAY))
    request = struct.pack("!HHBBH", 1, _IPV4, 6, 4, 1) + ours + guest + nobody + gateway
    frame = b"\xff" * 6 + ours + struct.pack("!H", _ARP) + request
    return struct.pack("!I", len(frame)) + frame


def refusal(frame: bytes | memoryview) -> bytes:
    """The ICMP answer to a refused IPv4 frame, as a frame with its length, so that a program fails at once and does not
    wait for minutes; b"" for what must not be answered (no IPv4, not unicast, ICMP itself, a later fragment)."""
    if len(frame) < _ETHERNET + 20 or struct.unpack_from("!H", frame, 12)[0] != _IPV4 or frame[0] & 1:
        return b""
    if frame[23] == _ICMP or struct.unpack_from("!H", frame, 20)[0] & 0x1FFF or frame[30] >= 224:
        return b""
    header = (frame[_ETHERNET] & 15) * 4
    quoted = bytes(frame[_ETHERNET : _ETHERNET + header + _QUOTED])
    icmp = struct.pack("!BBHI", _UNREACHABLE, _PROHIBITED, 0, 0) + quoted
    icmp = icmp[:2] + _checksum(icmp) + icmp[4:]
    gateway = ipaddress.IPv4Address(GATEWAY).packed
    ip = _ip_header(_ICMP, 20 + len(icmp), gateway, bytes(frame[26:30]))
    return _framed(bytes(frame[6:12]), ip + icmp)


def greeting(frame: bytes | memoryview) -> bytes:
    """The ACK that ends a handshake, as a frame with its length; b"" when `frame` is no SYN-ACK to the gateway.

    passt before its release 2023_03_29 (Debian 12 has an older one) sends it with its first data only. Where the server
    speaks first, as SSH's does, both would wait for ever. A second one does no harm.
    """
    at = _ETHERNET + (frame[_ETHERNET] & 15) * 4 if len(frame) > _ETHERNET else 0
    if len(frame) < at + 20 or frame[12:14] != b"\x08\x00" or frame[23] != _TCP or frame[at + 13] & 0x17 != 0x12:
        return b""
    gateway = ipaddress.IPv4Address(GATEWAY).packed
    if bytes(frame[30:34]) != gateway:
        return b""
    from_port, to_port, sequence, acknowledged = struct.unpack_from("!HHII", frame, at)
    guest = bytes(frame[26:30])
    tcp = struct.pack("!HHIIBBHHH", to_port, from_port, acknowledged, (sequence + 1) % 2**32, 0x50, 0x10, 0x200, 0, 0)
    tcp = tcp[:16] + _checksum(gateway + guest + struct.pack("!BBH", 0, _TCP, len(tcp)) + tcp) + tcp[18:]
    return _framed(bytes(frame[6:12]), _ip_header(_TCP, 20 + len(tcp), gateway, guest) + tcp)


def _ip_header(protocol: int, length: int, source: bytes, target: bytes) -> bytes:
    header = struct.pack("!BBHHHBBH", 0x45, 0, length, 0, 0, 64, protocol, 0) + source + target
    return header[:10] + _checksum(header) + header[12:]


def _framed(mac: bytes, packet: bytes) -> bytes:
    frame = mac + bytes.fromhex(GATEWAY_MAC.replace(":", "")) + struct.pack("!H", _IPV4) + packet
    return struct.pack("!I", len(frame)) + frame


def _checksum(data: bytes) -> bytes:
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~total & 0xFFFF)


def own_addresses(table: Path = Path("/proc/net/fib_trie")) -> frozenset[int]:
    """Every IPv4 address under which this host reaches itself: what its local routing tables hold."""
    return frozenset(int(ipaddress.IPv4Address(text)) for text in _local(table.read_text()))


def _local(trie: str) -> Iterator[str]:
    address = ""
    for line in trie.splitlines():
        words = line.split()
        if words[:1] == ["|--"]:
            address = words[1]
        elif words[:3] == ["/32", "host", "LOCAL"] and address:
            yield address
