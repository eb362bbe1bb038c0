"""Disks that tests of images begin with."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path


def small_disk_in(folder: Path) -> Path:
    """A raw disk of 16 MiB as Azure's Debian images are laid out: BIOS boot code, ESP, ext4 root. Not to be changed."""
    path = folder / "disk.raw"
    with path.open("wb") as file:
        file.truncate(16 << 20)
    parts = ["-n14:0:+3M", "-t14:ef02", "-n15:0:+4M", "-t15:ef00", "-n1:0:0", "-t1:8304"]
    sgdisk = shutil.which("sgdisk", path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    assert sgdisk, "gdisk is among the packages that make test installs"
    subprocess.run([sgdisk, *parts, path], check=True, capture_output=True)
    with path.open("r+b") as file:
        file.write(b"\xeb\x63\x90" + b"boot code")
        file.seek((8 << 20) + 1080)
        file.write(b"\x53\xef")
        file.seek(10 << 20)
        file.write(os.urandom(1 << 20))
    path.chmod(0o444)
    return path
