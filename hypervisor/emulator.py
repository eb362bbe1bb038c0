"""What the embedded driver starts as QEMU, and its capability cache shared between runs.

The emulator is a script of ours that asks the kernel to kill QEMU when its parent dies, then becomes QEMU. libvirt
probes what an emulator can do (1 to 4 s) and keeps the answer by path, time stamp and libvirt version; each run has a
driver root of its own, so the answers are copied in and out of one shared folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from hypervisor.process import require

QEMU = "qemu-system-x86_64"
# HOME is <root>/lib/qemu/domain-<n>-<name> when libvirt starts a VM, and our own when it only probes. The signal is
# asked for first and the parent looked at afterwards: so no moment is left in which the owner's death goes unseen.
_SCRIPT = """#!/bin/sh
case "$HOME" in
*/lib/qemu/domain-*) ;;
*) exec {qemu} "$@" ;;
esac
exec {setpriv} --pdeathsig KILL /bin/sh -c '
read -r owner < "$HOME/../../../owner" && [ "$PPID" = "$owner" ] && exec "$0" "$@"
echo "the process $owner that owns this VM is gone (parent: $PPID)" >&2
exit 1' {qemu} "$@"
"""


def tied_emulator(cache: Path) -> Path:
    """The script, made once per QEMU installed: its path changes with QEMU, so a stale probe is never used.

    Raises ToolMissing without QEMU or setpriv.
    """
    qemu, setpriv = require(QEMU), require("setpriv")
    there = qemu.stat()
    text = _SCRIPT.format(qemu=_quoted(qemu), setpriv=_quoted(setpriv))
    key = hashlib.sha256(f"{there.st_size} {there.st_mtime_ns} {text}".encode()).hexdigest()[:12]
    script = cache / "emulator" / key / QEMU
    if not script.exists():
        _publish(text.encode(), script, mode=0o755)
    return script


def seed_capabilities(cache: Path, root: Path) -> None:
    """Give a new driver root what earlier runs have probed."""
    _copy_all(cache / "capabilities", root / "cache" / "qemu" / "capabilities")


def save_capabilities(cache: Path, root: Path) -> None:
    """Keep what libvirt has probed in this root for the next run."""
    _copy_all(root / "cache" / "qemu" / "capabilities", cache / "capabilities")


def _copy_all(source: Path, target: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        for path in source.glob("*.xml"):
            data = path.read_bytes()
            if not (target / path.name).exists() or (target / path.name).read_bytes() != data:
                _publish(data, target / path.name, mode=0o600)


def _publish(data: bytes, target: Path, *, mode: int) -> None:
    """Whole or not at all, also when two processes do it at once."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(name).chmod(mode)
        shutil.move(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _quoted(path: Path) -> str:
    """For use inside and outside of single quotes alike."""
    return str(path).replace(" ", "\\ ")
