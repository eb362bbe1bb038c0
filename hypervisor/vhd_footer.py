"""The 512-byte footer of a VHD file (Virtual Hard Disk Image Format Specification 1.0)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Self

FOOTER_SIZE = 512
_COOKIE = b"conectix"
# cookie, features, version, data offset, time, creator app, creator version, creator OS, original size, current size,
# CHS geometry, disk type, checksum
_LAYOUT = struct.Struct(">8sIIQI4sI4sQQIII")


class VhdKind(IntEnum):
    """The disk types the specification gives a meaning."""

    FIXED = 2
    DYNAMIC = 3
    DIFFERENCING = 4


@dataclass(frozen=True, slots=True)
class VhdFooter:
    """A footer whose checksum is right. `current_size` in bytes is the disk's size."""

    kind: VhdKind
    creator: bytes
    current_size: int
    data_offset: int

    @classmethod
    def parse(cls, raw: bytes) -> Self | None:
        """The footer in `raw` (512 bytes); None when it is not one, or is damaged."""
        if len(raw) != FOOTER_SIZE or not raw.startswith(_COOKIE):
            return None
        _, _, _, data_offset, _, creator, _, _, _, current, _, kind, checksum = _LAYOUT.unpack_from(raw)
        if ~(sum(raw) - sum(raw[64:68])) & 0xFFFFFFFF != checksum or kind not in list(VhdKind):
            return None
        return cls(VhdKind(kind), creator, current, data_offset)
