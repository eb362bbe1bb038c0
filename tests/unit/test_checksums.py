"""Checksum files as the image hosts write them."""

from __future__ import annotations

import hashlib

import pytest

from hypervisor.errors import InputError
from orchestrator.plan.checksums import Checksum, find_checksum

SHA256 = hashlib.sha256(b"x").hexdigest()
SHA512 = hashlib.sha512(b"x").hexdigest()
OTHER = hashlib.sha256(b"y").hexdigest()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{SHA256} *disk.img\n", Checksum("sha256", SHA256)),
        (f"{OTHER} *other-disk.img\r\n{SHA256}  disk.img\r\n", Checksum("sha256", SHA256)),
        (f"{SHA512}  disk.img\n", Checksum("sha512", SHA512)),
        (f"# disk.img: 12 bytes\nSHA256 (disk.img) = {SHA256.upper()}\n", Checksum("sha256", SHA256)),
        (f"SHA512 (disk.img) = {SHA512}", Checksum("sha512", SHA512)),
        (f"{SHA256}  ./amd64/disk.img\n", Checksum("sha256", SHA256)),
        (f"MD5 (disk.img) = {'0' * 32}\nSHA256 (disk.img) = {SHA256}\n", Checksum("sha256", SHA256)),
        (f"{SHA256}  disk.img\n{SHA512}  disk.img\n", Checksum("sha512", SHA512)),
        (
            f"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n{SHA256} *disk.img\n-----BEGIN PGP SIGNATURE-----\n",
            Checksum("sha256", SHA256),
        ),
    ],
)
def test_the_shapes_of_checksum_files(text: str, expected: Checksum) -> None:
    assert find_checksum(text, "disk.img", "SUMS") == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no checksum"),
        ("<html>404</html>", "no checksum"),
        (f"{SHA256}  disk.img.xz\n", "no checksum"),
        (f"{SHA256[:-1]}  disk.img\n", "neither"),
        (f"{'0' * 32}  disk.img\n{'0' * 40}  disk.img\n", "neither"),
        (f"{SHA256}  disk.img\n{OTHER}  disk.img\n", "different"),
    ],
)
def test_nothing_is_trusted_without_one_strong_checksum(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        find_checksum(text, "disk.img", "http://127.0.0.1/SUMS")
    assert "http://127.0.0.1/SUMS" in caught.value.message
