"""The host as `aib doctor` looks at it: what is installed, whose machine it is, and how software gets onto it."""

from __future__ import annotations

import os
import pwd
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import platformdirs

Family = Literal["debian", "fedora", "suse", "arch", ""]

_FAMILIES: Mapping[str, Family] = {
    "debian": "debian",
    "ubuntu": "debian",
    "fedora": "fedora",
    "rhel": "fedora",
    "centos": "fedora",
    "suse": "suse",
    "opensuse": "suse",
    "opensuse-leap": "suse",
    "opensuse-tumbleweed": "suse",
    "sles": "suse",
    "arch": "arch",
}
_INSTALL: Mapping[Family, str] = {
    "debian": "apt-get install --yes",
    "fedora": "dnf install --assumeyes",
    "suse": "zypper --non-interactive install",
    "arch": "pacman -S --needed --noconfirm",
}
# What provides a thing: Debian and Ubuntu, Fedora, openSUSE, Arch. "": not packaged there.
_PACKAGES: Mapping[str, tuple[str, str, str, str]] = {
    "qemu-system-x86_64": ("qemu-system-x86", "qemu-system-x86", "qemu-x86", "qemu-system-x86"),
    "qemu-img": ("qemu-utils", "qemu-img", "qemu-tools", "qemu-img"),
    "setpriv": ("util-linux", "util-linux", "util-linux", "util-linux"),
    "mmdebstrap": ("mmdebstrap", "mmdebstrap", "", ""),
    "apt-get": ("apt", "apt", "", "apt"),
    "dpkg-deb": ("dpkg", "dpkg", "dpkg", "dpkg"),
    "sgdisk": ("gdisk", "gdisk", "gptfdisk", "gptfdisk"),
    "mkfs.vfat": ("dosfstools", "dosfstools", "dosfstools", "dosfstools"),
    "mcopy": ("mtools", "mtools", "mtools", "mtools"),
    "mke2fs": ("e2fsprogs", "e2fsprogs", "e2fsprogs", "e2fsprogs"),
    "passt": ("passt", "passt", "passt", "passt"),
    "newuidmap": ("uidmap", "shadow-utils", "shadow", "shadow"),
    "libvirt": (
        "libvirt-daemon libvirt-daemon-driver-qemu",
        "libvirt-daemon-driver-qemu",
        "libvirt-daemon-driver-qemu",
        "libvirt",
    ),
    "libvirt-dev": (
        "libvirt-dev pkg-config gcc python3-dev",
        "libvirt-devel pkgconf gcc python3-devel",
        "libvirt-devel pkg-config gcc python3-devel",
        "libvirt pkgconf gcc",
    ),
    "swtpm": ("swtpm swtpm-tools", "swtpm swtpm-tools", "swtpm", "swtpm"),
    "uefi": ("ovmf", "edk2-ovmf", "qemu-ovmf-x86_64", "edk2-ovmf"),
}
_COLUMNS: tuple[Family, ...] = ("debian", "fedora", "suse", "arch")
# Partition and file system tools lie where an ordinary user's PATH does not look.
_SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin")


def home_folder(environ: Mapping[str, str]) -> Path:
    """AIB_HOME, else the platform's data folder; not created."""
    named = environ.get("AIB_HOME", "")
    return Path(named).expanduser().absolute() if named else platformdirs.user_data_path("aib")


def user_name() -> str:
    """Who runs this; the number where the user has no name (some containers)."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


@dataclass(frozen=True, slots=True)
class Host:
    """What the checks may ask; a test gives another root, PATH and user. `home` is AIB_HOME."""

    root: Path = Path("/")
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    uid: int = field(default_factory=os.getuid)
    user: str = field(default_factory=user_name)
    python: tuple[int, int, int] = field(default_factory=lambda: sys.version_info[:3])
    home: Path = field(default_factory=lambda: home_folder(os.environ))

    def which(self, tool: str) -> str:
        """The full path of a program, or ""."""
        folders = [self.environ.get("PATH", os.defpath), *_SYSTEM_FOLDERS] if self.root == Path("/") else []
        path = os.pathsep.join(folders or [self.environ.get("PATH", "")])
        return shutil.which(tool, path=path) or ""

    def path(self, name: str) -> Path:
        """A path of the system (`/etc/subuid`) under this host's root."""
        return self.root / name.lstrip("/")

    def text(self, name: str) -> str:
        """What a small system file holds; "" when it is not there or not ours to read."""
        try:
            return self.path(name).read_text(errors="replace")
        except OSError:
            return ""

    @property
    def system(self) -> str:
        """`Debian GNU/Linux 12 (bookworm)`, or "this system"."""
        return self._release().get("PRETTY_NAME", "this system")

    @property
    def family(self) -> Family:
        """Which package manager's words to use; "" when unknown."""
        release = self._release()
        for name in (release.get("ID", ""), *release.get("ID_LIKE", "").split()):
            if family := _FAMILIES.get(name.lower()):
                return family
        return ""

    def packages(self, thing: str) -> str:
        """The packages that provide `thing` here; "" when there are none or nobody knows."""
        if self.family == "" or thing not in _PACKAGES:
            return ""
        return _PACKAGES[thing][_COLUMNS.index(self.family)]

    def install(self, packages: str) -> str:
        """The command that installs `packages`; "" when nobody knows."""
        command = _INSTALL.get(self.family, "")
        return self.as_root(f"{command} {packages}") if command and packages else ""

    def as_root(self, command: str) -> str:
        """`command`, with sudo for who needs it."""
        return command if self.uid == 0 else f"sudo {command}"

    def _release(self) -> dict[str, str]:
        pairs = (line.partition("=") for line in self.text("/etc/os-release").splitlines())
        return {key.strip(): value.strip().strip("\"'") for key, _, value in pairs if key.strip()}
