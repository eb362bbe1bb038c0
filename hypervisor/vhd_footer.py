"""The 512-byte footer of a VHD file (Virtual Hard Disk Image Format Specification 1.0)."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import BinaryIO, Self

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


def read_footer(file: BinaryIO) -> VhdFooter | None:
    """The footer at the end of an open file."""
    file.seek(max(0, file.seek(0, os.SEEK_END) - FOOTER_SIZE))
    return VhdFooter.parse(file.read(FOOTER_SIZE))


def fixed_size(path: Path) -> int | None:
    """The size in bytes of the disk that a fixed VHD holds from its first byte on; None for any other file.

    qemu computes it from the CHS geometry for the files of some creators, and so loses the end of the disk.
    """
    with path.open("rb") as file:
        footer = read_footer(file)
    return footer.current_size if footer is not None and footer.kind is VhdKind.FIXED else None
