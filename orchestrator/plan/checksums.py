"""Checksum files of image hosts: `HEX *file`, `HEX  file` and `SHA256 (file) = HEX`; SHA-256 and SHA-512."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from hypervisor.errors import InputError

_ALGORITHMS = {64: "sha256", 128: "sha512"}
_COREUTILS = re.compile(r"(?P<hex>[0-9A-Fa-f]{32,128}) [ *](?P<file>.+)")
_BSD = re.compile(r"(?P<algorithm>[A-Za-z0-9-]+) \((?P<file>.+)\) = (?P<hex>[0-9A-Fa-f]{32,128})")


@dataclass(frozen=True, slots=True)
class Checksum:
    """An expected digest in lower-case hex; `algorithm` is sha256 or sha512."""

    algorithm: str
    hex: str


def find_checksum(text: str, name: str, origin: str) -> Checksum:
    """The strongest checksum that the checksum file `text` (from `origin`) has for `name`.

    Lines that are no checksums (comments, the armour of a signature) are passed over. Raises `InputError` when the
    file is not listed, is listed with weaker checksums only, or with two that contradict each other.
    """
    wanted = PurePosixPath(name).name
    found: dict[str, set[str]] = {}
    weak = False
    for line in text.splitlines():
        match = _BSD.fullmatch(line.strip()) or _COREUTILS.fullmatch(line.strip())
        if match is None or PurePosixPath(match["file"].strip()).name != wanted:
            continue
        algorithm = _ALGORITHMS.get(len(match["hex"]))
        if algorithm is None:
            weak = True
        else:
            found.setdefault(algorithm, set()).add(match["hex"].lower())
    for algorithm in ("sha512", "sha256"):
        match found.get(algorithm, set()):
            case values if len(values) == 1:
                return Checksum(algorithm, *values)
            case values if values:
                raise InputError(f"{origin} lists different {algorithm} checksums for {wanted}")
            case _:
                pass
    if weak:
        raise InputError(f"{origin} has neither a sha256 nor a sha512 checksum for {wanted}")
    raise InputError(f"{origin} has no checksum for {wanted}: nothing unverified is used")
