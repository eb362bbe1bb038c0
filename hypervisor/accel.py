"""KVM when it is proved to work by booting a kernel, software emulation (TCG) else.

A /dev/kvm that opens proves nothing, nor does libvirt's capability list (it asks a QEMU that runs no guest), nor a boot
sector: there are hosts where all of that works and every Linux guest hangs.
"""

from __future__ import annotations

import json
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hypervisor.deadline import Deadline
from hypervisor.emulator import QEMU
from hypervisor.errors import DeadlineExceeded, HostError
from hypervisor.process import require, run
from hypervisor.spec import AccelName

_DEVICE = Path("/dev/kvm")
_BOOT_LIMIT = 5.0  # seconds; a kernel under a working KVM panics in less than one
_PANIC = b"Kernel panic"  # what a kernel without a root file system says when it has come all the way


class AccelError(HostError):
    """KVM was demanded and does not work here."""


@dataclass(frozen=True, slots=True)
class Accel:
    """The accelerator chosen, whether it was seen to work, and why this one."""

    name: AccelName
    proved: bool
    reason: str


def choose(
    requested: Literal["auto", "kvm", "tcg"],
    *,
    kernel: Path | None,
    cache: Path,
    device: Path = _DEVICE,
    deadline: Deadline | None = None,
) -> Accel:
    """Prove KVM with `kernel` (any bootable Linux image, else the host's own) or fall back to TCG with the reason.

    The verdict is kept in `cache` for this boot of the host, this QEMU and this host kernel. Takes 5 seconds at most
    plus the end of a hanging QEMU. Raises AccelError when `kvm` is demanded and fails.
    """
    if requested == "tcg":
        return Accel("tcg", True, "asked for")
    works, reason = _access(device)
    if works:
        verdict = _verdict(kernel or _host_kernel(), cache, deadline or Deadline.after(_BOOT_LIMIT))
        if verdict is None:
            # Nothing to prove it with: who demands KVM gets it, who leaves the choice to us gets what surely works.
            return Accel("kvm" if requested == "kvm" else "tcg", requested != "kvm", "KVM unproved: no kernel to boot")
        works, reason = verdict
    if works:
        return Accel("kvm", True, reason)
    if requested == "kvm":
        raise AccelError(f"KVM was asked for and cannot be used: {reason}", hint="use --accel auto or tcg (slower)")
    return Accel("tcg", True, f"KVM cannot be used: {reason}")


def _access(device: Path) -> tuple[bool, str]:
    if platform.machine() not in ("x86_64", "AMD64"):
        return False, f"this machine is {platform.machine()}, the guests are x86_64"
    if not device.exists():
        return False, f"there is no {device}"
    if not os.access(device, os.R_OK | os.W_OK):
        return False, f"no permission on {device} (join the group kvm: sudo usermod -aG kvm $USER, then log in again)"
    return True, ""


def _host_kernel() -> Path | None:
    """The kernel this machine runs, where an ordinary user may read it."""
    for path in (Path(f"/boot/vmlinuz-{platform.release()}"), *sorted(Path("/boot").glob("vmlinuz-*"), reverse=True)):
        if os.access(path, os.R_OK):
            return path
    return None


def _verdict(kernel: Path | None, cache: Path, deadline: Deadline) -> tuple[bool, str] | None:
    """The verdict of this boot, QEMU and host kernel: read, or made and kept; None without a kernel to make it with."""
    qemu = require(QEMU)
    there = qemu.stat()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    key = [boot, str(qemu), there.st_size, there.st_mtime_ns, platform.release()]
    file = cache / "kvm.json"
    try:
        kept = json.loads(file.read_text())
        if kept["key"] == key:
            return bool(kept["works"]), str(kept["reason"])
    except (FileNotFoundError, json.JSONDecodeError, KeyError, TypeError):
        pass  # none yet, or torn: it is made again
    if kernel is None:
        return None
    works, reason = _prove(qemu, kernel, deadline)
    cache.mkdir(parents=True, exist_ok=True)
    fresh = cache / f"kvm.json.{os.getpid()}"
    fresh.write_text(json.dumps({"key": key, "works": works, "reason": reason}))
    fresh.replace(file)
    return works, reason


def _prove(qemu: Path, kernel: Path, deadline: Deadline) -> tuple[bool, str]:
    """Boot it with two CPUs until it panics for want of a root file system."""
    argv: list[str | Path] = [
        qemu,
        "-accel",
        "kvm",
        "-cpu",
        "host",
        "-smp",
        "2",
        "-m",
        "256",
        "-nodefaults",
        "-display",
        "none",
    ]
    argv += ["-no-reboot", "-serial", "stdio", "-kernel", kernel]
    argv += ["-append", "console=ttyS0 quiet panic=-1 root=/dev/none"]
    limit = deadline.limited(_BOOT_LIMIT, "the KVM probe")
    try:
        done = run(argv, deadline=limit, check=False)
    except DeadlineExceeded:
        return False, f"a Linux kernel does not boot under it within {_BOOT_LIMIT:.0f} s"
    if _PANIC in done.stdout and done.exit_code == 0:
        return True, "a Linux kernel boots under it"
    said = (done.stderr.decode(errors="replace").strip().splitlines() or ["QEMU said nothing"])[0]
    return False, f"QEMU ended with {done.exit_code}: {said}"
