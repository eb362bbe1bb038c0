"""The appliance: a kernel and a first root file system from distribution packages, built once, without root.

It proves acceleration (`hypervisor.accel`) and reads disks that nobody trusts (`hypervisor.inspect`). Debian's cloud
kernel has all that is needed (virtio, ext4, XFS, Btrfs, FAT, ISO 9660, FUSE) at a quarter of the size of the generic
one; no Debian 12 kernel has ntfs3, so NTFS is read by ntfs-3g.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hypervisor import packages
from hypervisor.cachefolder import ensure_folder
from hypervisor.deadline import Deadline
from hypervisor.errors import InputError
from hypervisor.initramfs import Initramfs, modules

KERNEL = "linux-image-cloud-amd64"
TOOLS = ("busybox-static", "e2fsprogs", "findutils", "grep", "ntfs-3g", "tar", "util-linux")
PROGRAMS = ("/usr/bin/find", "/bin/grep", "/bin/ntfs-3g", "/bin/tar", "/sbin/blkid", "/sbin/debugfs")
MODULES = {
    "boot": ("virtio_pci", "virtio_blk", "ext4", "vfat", "nls_cp437", "nls_iso8859_1", "nls_ascii", "nls_utf8"),
    "xfs": ("xfs",),
    "btrfs": ("btrfs", "xxhash_generic", "blake2b_generic", "sha256_generic"),
    "iso9660": ("isofs",),
    "udf": ("udf",),
    "ntfs": ("fuse",),
}
"""What every system has, and by file system what is loaded when one is met: all of it takes as long as the kernel's
own start."""
INIT = Path(__file__).with_name("payloads") / "inspect-init.sh"
_RECIPE = "2"  # raise it when what is built changes without a change of the names above or of the init script


@dataclass(frozen=True, slots=True)
class Appliance:
    """A Linux kernel and its initramfs, both readable files of the cache."""

    kernel: Path
    initrd: Path


def ensure(cache: Path, deadline: Deadline, say: Callable[[str], None]) -> Appliance:
    """The appliance of this machine's package lists, built in a few seconds when the cache has none.

    Where packages cannot be had, one that was built from older lists serves. Raises `PackagesUnavailable`.
    """
    shelf = cache / "appliance"
    recipe = _recipe()
    final = shelf / f"{recipe}-{packages.fingerprint()}"

    def build(staging: Path) -> None:
        say("building the inspection appliance from distribution packages (once)")
        _build(staging, deadline)

    try:
        ensure_folder(final, build)
    except InputError as error:
        older = sorted(shelf.glob(f"{recipe}-*"), key=lambda folder: folder.stat().st_mtime)
        if not older:
            raise
        say(f"using an older inspection appliance: {error.message.splitlines()[0]}")
        final = older[-1]
    return Appliance(final / "vmlinuz", final / "initrd")


def _recipe() -> str:
    parts = (_RECIPE, KERNEL, *TOOLS, *PROGRAMS, repr(MODULES), INIT.read_text())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def _build(staging: Path, deadline: Deadline) -> None:
    with tempfile.TemporaryDirectory(prefix="aib-appliance-") as scratch:
        root = Path(scratch, "root")
        apt = packages.Apt(Path(scratch, "apt"))
        kernel = apt.depends(KERNEL, "linux-image-", deadline)
        debs = apt.fetch([kernel], deadline, with_dependencies=False) | apt.fetch(TOOLS, deadline)
        packages.unpack(debs.values(), root, deadline)
        [image] = root.glob("boot/vmlinuz-*")
        (staging / "vmlinuz").write_bytes(image.read_bytes())
        (staging / "initrd").write_bytes(_initramfs(root, deadline))
    for name in ("vmlinuz", "initrd"):
        (staging / name).chmod(0o444)


def _initramfs(root: Path, deadline: Deadline) -> bytes:
    target = Initramfs()
    for folder in ("dev", "proc", "sys", "tmp", "disk", "out"):
        target.folder(folder)
    target.device("dev/console", 5, 1)
    target.add("init", INIT.read_bytes(), mode=0o755)
    target.add("bin/busybox", (root / "bin/busybox").read_bytes(), mode=0o755)
    target.link("bin/sh", "busybox")
    groups = {group: modules(root / "usr/lib/modules", wanted) for group, wanted in MODULES.items()}
    for name, code in {module.name: module.code for loading in groups.values() for module in loading}.items():
        target.add(f"modules/{name}.ko", code)
    for group, loading in groups.items():
        target.add(f"modules/{group}", "".join(f"{module.name}\n" for module in loading).encode())
    shared = {path for program in PROGRAMS for path in packages.libraries(root, program, deadline)}
    for path in sorted({*PROGRAMS, *shared}):
        target.add(path, (root / path.lstrip("/")).read_bytes(), mode=0o755)
    return target.archive()
