"""hypervisor.frame_filter: what an isolated guest may send, and what it is told when it may not."""

from __future__ import annotations

import ipaddress
import struct
from pathlib import Path

import pytest

from hypervisor.frame_filter import (
    FORBIDDEN,
    FrameFilter,
    greeting,
    introduction,
    own_addresses,
    refusal,
    whole_frames,
)  # fmt: skip

GUEST_MAC, GATEWAY_MAC = bytes.fromhex("525400112233"), bytes.fromhex("52550a000202")
TCP, UDP, ICMP = 6, 17, 1
SYN, ACK, SYN_ACK = 0x02, 0x10, 0x12
HOST = "198.51.100.7"


def packed(address: str) -> bytes:
    return ipaddress.IPv4Address(address).packed


def ethernet(kind: int, payload: bytes, target: bytes = GATEWAY_MAC) -> bytes:
    return target + GUEST_MAC + struct.pack("!H", kind) + payload


def packet(target: str, protocol: int, payload: bytes, *, fragment: int = 0x4000, options: bytes = b"") -> bytes:
    words = 5 + len(options) // 4
    total = words * 4 + len(payload)
    header = struct.pack("!BBHHHBBH", 0x40 | words, 0, total, 7, fragment, 64, protocol, 0)
    return ethernet(0x0800, header + packed("10.0.2.15") + packed(target) + options + payload)


def tcp(target: str, port: int = 443, flags: int = SYN, *, from_port: int = 40000, **more: int) -> bytes:
    return packet(target, TCP, struct.pack("!HHIIBBHHH", from_port, port, 100, 200, 0x50, flags, 512, 0, 0), **more)  # type: ignore[arg-type]


def udp(target: str, port: int, **more: int) -> bytes:
    return packet(target, UDP, struct.pack("!HHHH", 40000, port, 12, 0) + b"data", **more)  # type: ignore[arg-type]


@pytest.fixture
def judge() -> FrameFilter:
    return FrameFilter(lambda: frozenset({int(ipaddress.IPv4Address(HOST))}))


@pytest.mark.parametrize("target", ["203.0.113.80", "192.168.1.5", "10.1.2.3", "168.63.129.17", "223.255.255.255"])
def test_the_world_may_be_reached(judge: FrameFilter, target: str) -> None:
    assert judge.allows(tcp(target))
    assert judge.allows(udp(target, 53))
    assert judge.allows(packet(target, ICMP, bytes(8)))


@pytest.mark.parametrize(
    "target",
    [HOST, "127.0.0.1", "127.255.255.254", "0.0.0.0", "169.254.169.254", "169.254.170.2", "168.63.129.16",
     "100.100.100.200", "192.0.0.192", "224.0.0.251", "10.0.2.3", "10.0.2.255", "255.255.255.254"],
)  # fmt: skip
def test_the_host_and_metadata_services_may_not(judge: FrameFilter, target: str) -> None:
    for protocol in range(256):
        assert not judge.allows(packet(target, protocol, bytes(20)))
    assert not judge.allows(tcp(target, options=b"\x01" * 4))  # type: ignore[arg-type]
    assert not judge.allows(tcp(target, fragment=0x2000))
    assert not judge.allows(tcp(target, flags=ACK))


def test_every_forbidden_network_is_closed_from_end_to_end(judge: FrameFilter) -> None:
    for network in FORBIDDEN:
        for address in (network.network_address, network[network.num_addresses // 2], network.broadcast_address):
            if str(address) not in ("10.0.2.2", "255.255.255.255"):
                assert not judge.allows(tcp(str(address))), address


def test_only_ipv4_and_arp_pass(judge: FrameFilter) -> None:
    assert judge.allows(ethernet(0x0806, bytes(28)))
    inner = tcp("203.0.113.80")[14:]
    for kind in (0x86DD, 0x8100, 0x88A8, 0x8847, 0x0842, 0x0000, 0x05DC):
        assert not judge.allows(ethernet(kind, inner)), hex(kind)


def test_torn_and_lying_frames_do_not_pass(judge: FrameFilter) -> None:
    whole = tcp("203.0.113.80")
    for length in range(34):
        assert not judge.allows(whole[:length])
    assert not judge.allows(ethernet(0x0800, b"\x65" + whole[15:]))  # says that it is IPv6
    assert not judge.allows(ethernet(0x0800, b"\x44" + whole[15:]))  # a header shorter than IPv4's
    assert not judge.allows(ethernet(0x0800, b"\x4f" + whole[15:40]))  # a header longer than the frame


def test_what_the_small_network_needs_passes(judge: FrameFilter) -> None:
    assert judge.allows(udp("255.255.255.255", 67))
    assert judge.allows(udp("10.0.2.2", 67))
    assert judge.allows(udp("10.0.2.2", 53))
    assert judge.allows(tcp("10.0.2.2", 50000, SYN_ACK, from_port=22))
    assert judge.allows(tcp("10.0.2.2", 50000, ACK, from_port=22))


def test_nothing_else_to_its_own_addresses_passes(judge: FrameFilter) -> None:
    assert not judge.allows(tcp("10.0.2.2", 80, SYN))
    assert not judge.allows(tcp("10.0.2.2", 80, SYN | 0x40 | 0x80))  # ECN set up
    assert not judge.allows(tcp("10.0.2.2", 53, SYN))
    assert not judge.allows(udp("10.0.2.2", 123))
    assert not judge.allows(udp("10.0.2.3", 53))
    assert not judge.allows(udp("255.255.255.255", 9))
    assert not judge.allows(udp("10.0.2.2", 53, fragment=0x2000))
    assert not judge.allows(packet("10.0.2.2", ICMP, bytes(8)))
    assert not judge.allows(packet("10.0.2.2", TCP, bytes(8)))  # no room for flags


def test_the_hosts_addresses_are_looked_at_anew() -> None:
    now, own = [0.0], {int(ipaddress.IPv4Address("192.168.1.5"))}
    judge = FrameFilter(lambda: frozenset(own), lambda: now[0])
    assert not judge.allows(tcp("192.168.1.5"))
    assert judge.allows(tcp("192.168.1.6"))
    own.add(int(ipaddress.IPv4Address("192.168.1.6")))
    now[0] = 11.0
    assert not judge.allows(tcp("192.168.1.6"))


def test_the_hosts_addresses_come_from_the_kernel(tmp_path: Path) -> None:
    table = tmp_path / "fib_trie"
    table.write_text(
        """Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     |-- 192.0.2.0
        /24 link UNICAST
Local:
     |-- 127.0.0.1
        /32 host LOCAL
     |-- 192.0.2.2
        /32 host LOCAL
     |-- 192.0.2.255
        /32 link BROADCAST
"""
    )
    assert {str(ipaddress.IPv4Address(each)) for each in own_addresses(table)} == {"127.0.0.1", "192.0.2.2"}
    assert int(ipaddress.IPv4Address("127.0.0.1")) in own_addresses()


def test_frames_are_cut_out_of_a_stream() -> None:
    frames = [bytes([number]) * size for number, size in enumerate((60, 1, 1514, 0), 1)]
    stream = b"".join(struct.pack("!I", len(each)) + each for each in frames)
    for cut in range(len(stream) + 1):
        first, rest = whole_frames(stream[:cut])
        second, end = whole_frames(rest + stream[cut:])
        assert [bytes(each)[4:] for each in (*first, *second)] == frames
        assert end == b""


def sums_to_zero(data: bytes) -> bool:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total == 0xFFFF


def test_a_refused_program_is_told_at_once() -> None:
    refused = tcp("169.254.169.254", 80)
    answer = refusal(refused)
    assert struct.unpack("!I", answer[:4])[0] == len(answer) - 4
    frame = answer[4:]
    assert frame[:14] == GUEST_MAC + GATEWAY_MAC + b"\x08\x00"
    assert (frame[23], frame[26:30], frame[30:34]) == (ICMP, packed("10.0.2.2"), packed("10.0.2.15"))
    assert frame[34:36] == bytes([3, 13])
    assert frame[42:] == refused[14:42], "the header and the ports of what was refused"
    assert sums_to_zero(frame[14:34])
    assert sums_to_zero(frame[34:])


def test_what_must_not_be_answered_is_not() -> None:
    assert refusal(packet("169.254.169.254", ICMP, bytes(8))) == b""
    assert refusal(udp("224.0.0.251", 5353)) == b""
    assert refusal(tcp("169.254.169.254", fragment=0x0001)) == b""
    assert refusal(ethernet(0x86DD, bytes(40))) == b""
    assert refusal(b"\xff" * 6 + tcp("127.0.0.1")[6:]) == b""
    assert refusal(b"short") == b""


def test_a_handshake_of_the_guests_server_is_ended_for_it() -> None:
    answer = greeting(tcp("10.0.2.2", 50000, SYN_ACK, from_port=22))
    frame = answer[4:]
    assert struct.unpack("!I", answer[:4])[0] == len(frame)
    assert (frame[26:30], frame[30:34]) == (packed("10.0.2.2"), packed("10.0.2.15"))
    assert struct.unpack_from("!HHII", frame, 34) == (50000, 22, 200, 101)
    assert frame[47] == ACK
    assert sums_to_zero(frame[14:34])
    assert sums_to_zero(frame[26:34] + struct.pack("!BBH", 0, TCP, 20) + frame[34:54])


def test_no_other_frame_is_greeted() -> None:
    for flags in (SYN, ACK, SYN_ACK | 0x04, SYN_ACK | 0x01):
        assert greeting(tcp("10.0.2.2", 50000, flags)) == b""
    assert greeting(tcp("203.0.113.80", 50000, SYN_ACK)) == b""
    assert greeting(udp("10.0.2.2", 67)) == b""
    assert greeting(ethernet(0x0806, bytes(28))) == b""
    assert greeting(b"") == b""


def test_passt_is_told_the_guests_address() -> None:
    frame = introduction("52:54:00:11:22:33")[4:]
    assert frame[:14] == b"\xff" * 6 + GUEST_MAC + b"\x08\x06"
    assert frame[28:32] == packed("10.0.2.15")
    assert frame[38:42] == packed("10.0.2.2")
