"""The smallest disks that are what they say they are: for runs that boot nothing. No tool is needed to make them."""

from __future__ import annotations

import struct
import time
import uuid
from pathlib import Path

SIZE = 1 << 20
"""Bytes of the disk: nothing is on it."""
_CLUSTER_BITS = 16
_CLUSTER = 1 << _CLUSTER_BITS
_VHD_EPOCH = 946684800
"""2000-01-01: a VHD's times count from there."""
_CREATOR = b"qem2"
"""Readers take the size for what counts then, not the geometry."""
_FIXED = 2
_NO_OFFSET = 0xFFFFFFFFFFFFFFFF


def write_qcow2(path: Path) -> None:
    """An empty qcow2 (version 3): header, refcount table, refcount block and L1 table, a cluster each."""
    header = struct.pack(
        ">4sIQIIQIIQQIIQQQQII",
        b"QFI\xfb", 3, 0, 0, _CLUSTER_BITS, SIZE, 0, 1, 3 * _CLUSTER, _CLUSTER, 1, 0, 0, 0, 0, 0, 4, 104,
    )  # fmt: skip
    table = struct.pack(">Q", 2 * _CLUSTER)
    block = struct.pack(">4H", 1, 1, 1, 1)
    path.write_bytes(b"".join(part.ljust(_CLUSTER, b"\0") for part in (header, table, block, b"")))


def write_vhd(path: Path) -> None:
    """An empty fixed VHD: the disk, then its footer."""
    cylinders, heads, sectors = _geometry(SIZE // 512)
    footer = bytearray(
        struct.pack(
            ">8sIIQI4sI4sQQHBBII16sB",
            b"conectix", 2, 0x10000, _NO_OFFSET, int(time.time()) - _VHD_EPOCH, _CREATOR, 0x10000, b"Wi2k", SIZE, SIZE,
            cylinders, heads, sectors, _FIXED, 0, uuid.uuid4().bytes, 0,
        ).ljust(512, b"\0")
    )  # fmt: skip
    struct.pack_into(">I", footer, 64, ~sum(footer) & 0xFFFFFFFF)
    with path.open("wb") as file:
        file.truncate(SIZE)
        file.seek(SIZE)
        file.write(footer)


def _geometry(total: int) -> tuple[int, int, int]:
    """Cylinders, heads and sectors per track of a small disk of `total` sectors, by the VHD specification."""
    sectors = 17
    heads = max(4, -(-(total // sectors) // 1024))
    return total // sectors // heads, heads, sectors
