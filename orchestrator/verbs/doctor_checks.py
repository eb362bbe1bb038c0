"""The checks of `aib doctor`: each a small function of the host, each with the exact way to mend what it finds."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from orchestrator.verbs.doctor_host import Host

Status = Literal["ok", "warning", "missing"]
GIB = 2**30
LEAST_SPACE, GOOD_SPACE = 3 * GIB, 15 * GIB
LEAST_MEMORY, GOOD_MEMORY = GIB, 3 * GIB
SUBORDINATE_IDS = 65536
RUNTIME_NAME_LENGTH = 9
"""A run's folder in the runtime folder: a slash and eight hex digits."""

BUILD_TOOLS = ("qemu-system-x86_64", "qemu-img", "setpriv", "apt-get", "dpkg-deb")
BOOTSTRAP_TOOLS = ("mmdebstrap", "sgdisk", "mkfs.vfat", "mcopy", "mke2fs")
_NO_APT = "aib makes its inspection VM from Debian packages: run it on Debian or Ubuntu, or in a container of one"
_NO_BOOTSTRAP = "source images cannot be made from packages; use `aib image pull` or `aib image import FILE`"
_WHY = {
    "qemu-system-x86_64": "runs the build VM",
    "qemu-img": "makes and converts disks",
    "setpriv": "ends QEMU with its parent",
    "mmdebstrap": "makes source images from packages",
    "apt-get": "fetches packages for source images and for the inspection VM",
    "dpkg-deb": "unpacks packages for the inspection VM",
    "sgdisk": "partitions images without a loop device",
    "mkfs.vfat": "makes the EFI system partition",
    "mcopy": "puts files into the EFI system partition",
    "mke2fs": "makes root file systems",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found; `fix` is what to do, `packages` what to install for it. `missing` means: cannot build."""

    check: str
    status: Status
    found: str
    fix: str = ""
    packages: str = ""

    def to_json(self) -> dict[str, str]:
        """The object that `aib doctor --json` lists."""
        return {
            "check": self.check,
            "status": self.status,
            "found": self.found,
            "fix": self.fix,
            "packages": self.packages,
        }


def python_version(host: Host) -> Finding:
    """Python 3.11 or newer."""
    version = ".".join(map(str, host.python))
    if host.python >= (3, 11, 0):
        return Finding("python", "ok", version)
    return Finding(
        "python", "missing", version, "install Python 3.11 or newer and make the virtual environment with it"
    )


def tool(host: Host, name: str) -> Finding:
    """A program on the PATH. Those that only make source images from packages are no must off Debian."""
    found = host.which(name)
    if found:
        return Finding(name, "ok", found)
    packages = host.packages(name)
    fix = host.install(packages)
    if name in BOOTSTRAP_TOOLS and host.family != "debian":
        return Finding(name, "warning", f"not found ({_WHY[name]})", fix or _NO_BOOTSTRAP, packages if fix else "")
    if name == "apt-get":
        fix = fix or _NO_APT
    return Finding(
        name, "missing", f"not found ({_WHY[name]})", fix or f"install the package that has {name}", packages
    )


def isolated_network(host: Host) -> Finding:
    """passt, which `--network isolated` needs; every other build works without it."""
    name = "isolated network"
    if found := host.which("passt"):
        return Finding(name, "ok", found)
    packages = host.packages("passt")
    fix = host.install(packages) or "install passt"
    return Finding(name, "warning", "passt not found: `--network isolated` cannot be used", fix, packages)


def apt_sources(host: Host) -> Finding:
    """apt knows a mirror: packages come from the sources that this machine already uses, and from nowhere else."""
    folder = host.path("/etc/apt")
    for file in [folder / "sources.list", *sorted(folder.glob("sources.list.d/*"))]:
        name = f"/{file.relative_to(host.root)}"
        if any(line.startswith(("deb ", "deb\t", "deb[", "URIs:")) for line in host.text(name).splitlines()):
            return Finding("apt sources", "ok", name)
    fix = "name a Debian mirror in /etc/apt/sources.list, then: " + host.as_root("apt-get update")
    return Finding("apt sources", "missing", f"no source of packages in {folder}", fix)


def libvirt(host: Host, probe: Callable[[], tuple[str, str]]) -> Finding:
    """libvirt's Python binding and embedded driver. `probe` opens it: (version, "") or ("", what went wrong)."""
    if not host.which("qemu-system-x86_64") or not host.which("setpriv"):
        return Finding("libvirt", "warning", "not tried: QEMU or setpriv is missing", "install them first")
    version, error = probe()
    if version:
        return Finding("libvirt", "ok", f"{version}, embedded driver opens")
    if "binding" in error or "No module" in error:
        packages = f"{host.packages('libvirt')} {host.packages('libvirt-dev')}".strip()
        install = host.install(packages)
        return Finding("libvirt", "missing", error, f"{install}, then pip install 'aib[build]'".lstrip(", "), packages)
    if "driver" not in error.lower():
        return Finding("libvirt", "missing", error)
    packages = host.packages("libvirt")
    return Finding("libvirt", "missing", error, host.install(packages) or "install libvirt's QEMU driver", packages)


def uefi(host: Host) -> Finding:
    """UEFI firmware that libvirt can find: a descriptor for x86_64 without Secure Boot whose files are there."""
    for descriptor in sorted(host.path("/usr/share/qemu/firmware").glob("*.json")):
        firmware = _uefi_file(host, descriptor)
        if firmware:
            return Finding("UEFI firmware", "ok", firmware)
    packages = host.packages("uefi")
    fix = host.install(packages) or "install OVMF (edk2 for QEMU)"
    return Finding("UEFI firmware", "warning", "not found: generation 2 images cannot be built", fix, packages)


def _uefi_file(host: Host, descriptor: Path) -> str:
    try:
        data: dict[str, Any] = json.loads(descriptor.read_text())
        firmware = str(data["mapping"]["executable"]["filename"])
        fits = any(target["architecture"] == "x86_64" for target in data["targets"])
        fits = fits and "uefi" in data["interface-types"] and "secure-boot" not in data["features"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return firmware if fits and host.path(firmware).exists() else ""


def windows_tpm(host: Host) -> Finding:
    """Windows 11 wants a TPM (`aib build --tpm`); nothing else does, so that it is no fault when there is none."""
    name = "TPM emulator"
    lacking = [program for program in ("swtpm", "swtpm_setup") if not host.which(program)]
    if not lacking:
        return Finding(name, "ok", host.which("swtpm"))
    install = host.install(host.packages("swtpm"))
    how = f": {install}" if install else ""
    return Finding(name, "ok", f"not found (optional, for `--tpm` with Windows 11 images{how})")


def subordinate_ids(host: Host) -> Finding:
    """An ordinary user needs newuidmap and 65536 subordinate ids to make a source image from packages."""
    name = "subordinate ids"
    if host.uid == 0:
        return Finding(name, "ok", "not needed by root")
    if not host.which("newuidmap"):
        packages = host.packages("newuidmap")
        return Finding(name, "missing", "newuidmap not found", host.install(packages) or "install newuidmap", packages)
    lacking = [file for file in ("/etc/subuid", "/etc/subgid") if _ids(host, file) < SUBORDINATE_IDS]
    if not lacking:
        return Finding(name, "ok", f"{_ids(host, '/etc/subuid')} for {host.user}")
    free = _free_range(host)
    fix = host.as_root(f"usermod --add-subuids {free} --add-subgids {free} {host.user}")
    return Finding(name, "missing", f"fewer than {SUBORDINATE_IDS} for {host.user} in {' and '.join(lacking)}", fix)


def _ids(host: Host, file: str) -> int:
    most = 0
    for line in host.text(file).splitlines():
        owner, _, rest = line.partition(":")
        count = rest.rpartition(":")[2].strip()
        if owner in (host.user, str(host.uid)) and count.isdigit():
            most = max(most, int(count))
    return most


def _free_range(host: Host) -> str:
    """65536 ids after everything that is given out: two users must not share any."""
    start = 100_000
    for line in (host.text("/etc/subuid") + host.text("/etc/subgid")).splitlines():
        numbers = [int(word) for word in line.split(":")[1:] if word.strip().isdigit()]
        start = max(start, sum(numbers))
    return f"{start}-{start + SUBORDINATE_IDS - 1}"


def user_namespaces(host: Host) -> Finding:
    """An ordinary user's mmdebstrap works in a user namespace; some systems forbid them."""
    name = "user namespaces"
    forbidden = {
        "kernel.unprivileged_userns_clone": "0",
        "user.max_user_namespaces": "0",
        "kernel.apparmor_restrict_unprivileged_userns": "1",
    }
    allowed = {
        "kernel.unprivileged_userns_clone": "1",
        "user.max_user_namespaces": "15000",
        "kernel.apparmor_restrict_unprivileged_userns": "0",
    }
    if host.uid == 0:
        return Finding(name, "ok", "not needed by root")
    for setting, bad in forbidden.items():
        if host.text(f"/proc/sys/{setting.replace('.', '/')}").strip() == bad:
            fix = host.as_root(f"sysctl {setting}={allowed[setting]}")
            return Finding(name, "warning", f"{setting} = {bad}: {_NO_BOOTSTRAP}", fix)
    return Finding(name, "ok", "allowed")


def kvm(host: Host, prove: Callable[[], tuple[bool, str] | None] | None = None) -> Finding:
    """Hardware acceleration, and whether it was proved by booting a kernel; builds work without it, more slowly.

    `prove` does that now and says (works, why), or None when there is no kernel to boot; otherwise what an earlier
    build found out is told.
    """
    name = "KVM"
    slower = "builds use software emulation, which is several times slower"
    device = host.path("/dev/kvm")
    if not device.exists():
        return Finding(
            name, "warning", f"no /dev/kvm: {slower}", "turn on virtualization in the firmware of this machine"
        )
    if not os.access(device, os.R_OK | os.W_OK):
        fix = host.as_root(f"usermod --append --groups kvm {host.user}") + ", then log in again"
        return Finding(name, "warning", f"no permission on /dev/kvm: {slower}", fix)
    verdict = prove() if prove else _remembered(host)
    if verdict is None:
        how = "the first build does it" if prove else "the first build does it, or aib doctor --prove"
        return Finding(name, "ok", f"/dev/kvm can be opened; not yet proved to run a guest ({how})")
    works, reason = verdict
    if works:
        return Finding(name, "ok", f"proved: {reason}")
    return Finding(name, "warning", f"{reason}: {slower}")


def _remembered(host: Host) -> tuple[bool, str] | None:
    """What `hypervisor.accel` kept, when it is of this boot of the host."""
    try:
        kept = json.loads((host.home / "accel" / "kvm.json").read_text())
        if kept["key"][0] != host.text("/proc/sys/kernel/random/boot_id").strip():
            return None
        return bool(kept["works"]), str(kept["reason"])
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None


def home_writable(host: Host, flags: Callable[[Path], int] = lambda path: os.statvfs(path).f_flag) -> Finding:
    """AIB_HOME can be made and written, and programs in it may run (QEMU is started through a script there)."""
    existing = _existing(host.home)
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        fix = f"set AIB_HOME to a folder of yours, or: {host.as_root(f'chown {host.user} {existing}')}"
        return Finding("AIB_HOME", "missing", f"{host.home}: {error.strerror or error}", fix)
    if flags(existing) & os.ST_NOEXEC:
        fix = "set AIB_HOME to a folder on a file system that is not mounted noexec"
        return Finding("AIB_HOME", "missing", f"{host.home} is on a file system that is mounted noexec", fix)
    return Finding("AIB_HOME", "ok", str(host.home))


def disk_space(host: Host, free: Callable[[Path], int] = lambda path: shutil.disk_usage(path).free) -> Finding:
    """Room for a source image, an overlay and the artifacts."""
    space = free(_existing(host.home))
    found = f"{space / GIB:.1f} GiB free in {host.home}"
    fix = "free some (`aib gc`), or set AIB_HOME to a folder on a larger disk"
    if space < LEAST_SPACE:
        return Finding("disk space", "missing", f"{found}; a build needs {LEAST_SPACE // GIB} GiB at least", fix)
    if space < GOOD_SPACE:
        return Finding("disk space", "warning", f"{found}; {GOOD_SPACE // GIB} GiB are comfortable", fix)
    return Finding("disk space", "ok", found)


def memory(host: Host) -> Finding:
    """Memory for the build VM."""
    fields = (line.split() for line in host.text("/proc/meminfo").splitlines())
    kib = next((int(words[1]) for words in fields if words[:1] == ["MemAvailable:"]), 0)
    available = kib * 1024
    found = f"{available / GIB:.1f} GiB available"
    fix = "end something that uses much memory, or use a machine with more"
    if available < LEAST_MEMORY:
        return Finding("memory", "missing", f"{found}; a build VM needs {LEAST_MEMORY // GIB} GiB at least", fix)
    if available < GOOD_MEMORY:
        return Finding("memory", "warning", f"{found}; build VMs get less than most vmSizes have", fix)
    return Finding("memory", "ok", found)


def runtime_folder(host: Host, parents: Sequence[Path], longest: int) -> Finding:
    """A private folder for a VM's sockets: short enough for a socket's path (`longest`), and ours to write."""
    name = "runtime folder"
    said = []
    for parent in parents:
        length = len(str(parent)) + RUNTIME_NAME_LENGTH
        place = _existing(parent)
        if length > longest:
            said.append(f"{parent} is too long ({length} characters, at most {longest})")
        elif not os.access(place, os.W_OK | os.X_OK):
            said.append(f"{parent} cannot be made or written")
        else:
            return Finding(name, "ok", str(parent))
    fix = f"export XDG_RUNTIME_DIR=/run/user/{host.uid} (a short folder of yours with mode 0700)"
    return Finding(name, "missing", "; ".join(said), fix)


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    return next((p for p in (path, *path.parents) if p.exists()), Path("/"))
