"""A bootable Debian image from distribution packages: mmdebstrap, no loop device, as root or as an ordinary user.

Everything that needs the file owners of the new system happens inside mmdebstrap's hook (`payloads/bootstrap-hook.sh`),
in its user namespace; out come a file system and GRUB's images, which `bootdisk` puts together.
"""

from __future__ import annotations

import contextlib
import datetime
import email.utils
import hashlib
import os
import re
import shlex
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hypervisor import bootdisk
from hypervisor.apt_sources import debian_sources
from hypervisor.deadline import Deadline
from hypervisor.errors import HostError
from hypervisor.packages import LISTS
from hypervisor.process import ProcessError, require, run

_PAYLOADS = Path(__file__).with_name("payloads")
HOOK = _PAYLOADS / "bootstrap-hook.sh"
ESSENTIAL_HOOK = _PAYLOADS / "bootstrap-essential-hook.sh"
_CLEANING = 60.0  # seconds for removing a half-made system when the time is over already
_RECIPE = "1"  # raise it when the image changes without a change of packages or hook

# What Debian's own Azure images have and builds rely on; Recommends stay out.
PACKAGES = (
    *("linux-image-cloud-amd64", "initramfs-tools", "grub-pc-bin", "grub-efi-amd64-bin", "grub2-common"),
    *("systemd-sysv", "systemd-resolved", "dbus", "libpam-systemd", "udev", "kmod", "iproute2", "iputils-ping"),
    *("cloud-init", "cloud-guest-utils", "waagent", "openssh-server", "sudo", "locales", "e2fsprogs", "dosfstools"),
    *("ca-certificates", "curl", "wget", "gnupg", "less", "netbase", "procps", "psmisc", "rsyslog", "vim-tiny", "zstd"),
)


@dataclass(frozen=True, slots=True)
class BootstrapRecipe:
    """What to make: a Debian suite, its packages, and the disk's size in bytes (the guest grows into a bigger one)."""

    suite: str = "bookworm"
    packages: tuple[str, ...] = PACKAGES
    disk_size: int = 4 * 1024 * bootdisk.MIB


def version(recipe: BootstrapRecipe, lists: Path = LISTS) -> str:
    """`0.YYYYMMDD.<8 hex>`: the date of the newest of this machine's package lists, and a digest of all inputs.

    The same version means the same inputs, so it serves as cache key. Raises `HostError` without package lists.
    """
    releases = sorted(lists.glob(f"*_dists_{recipe.suite}*_*Release"))
    texts = [text for path in releases if "Origin: Debian\n" in (text := path.read_text(errors="replace"))]
    if not texts:
        raise HostError(
            f"{lists} has no package lists of Debian {recipe.suite}",
            hint="run: sudo apt-get update (this machine's apt sources must name a Debian mirror)",
        )
    digest = hashlib.sha256(
        "\0".join((_RECIPE, repr(recipe), HOOK.read_text(), ESSENTIAL_HOOK.read_text(), *texts)).encode()
    )
    return f"0.{max(map(_date, texts)):%Y%m%d}.{digest.hexdigest()[:8]}"


def _date(release: str) -> datetime.datetime:
    match = re.search(r"^Date: (.+)$", release, re.MULTILINE)
    if not match:
        raise HostError("a package list of this machine has no date", hint="run: sudo apt-get update")
    return email.utils.parsedate_to_datetime(match[1].replace("UTC", "+0000"))


def bootstrap(
    recipe: BootstrapRecipe, target: Path, work: Path, deadline: Deadline, say: Callable[[str], None]
) -> None:
    """Write the image as qcow2 to `target` (which must not exist); `work` is an empty folder for what comes between.

    BIOS and UEFI bootable, cloud-init with [NoCloud, Azure, None], no account, no host key, an empty machine-id.
    Takes one to two minutes and about 2 GiB under the temporary folder. Raises `HostError` (no Debian sources, no
    subordinate ids), `ToolMissing`, `ProcessError`, `DeadlineExceeded`, `Cancelled`.
    """
    mode = _mode()
    for tool in ("mmdebstrap", "mke2fs", "sgdisk", "mkfs.vfat", "mcopy", "qemu-img"):
        require(tool)  # before the long part
    sources = debian_sources(recipe.suite)
    say(f"making Debian {recipe.suite} from {len(sources)} package sources of this machine (mode {mode})")
    fs_uuid = str(uuid.uuid4())
    argv = _command(recipe, mode, [source.line for source in sources], fs_uuid, work)
    try:
        with _tree_folder(mode) as folder:
            run(argv, deadline=deadline, on_output=_progress(say), env={"TMPDIR": str(folder)})
    except ProcessError as error:
        raise HostError(
            f"mmdebstrap could not make Debian {recipe.suite}: {_complaints(error.stderr)}",
            hint="check this machine's apt sources (apt-get update) and the space under the temporary folder (2 GiB)",
        ) from error
    say("putting the disk together")
    loader = bootdisk.BootLoader(
        boot=(work / "boot.img").read_bytes(),
        core=(work / "core.img").read_bytes(),
        efi=(work / "bootx64.efi").read_bytes(),
    )
    root, raw, part = work / "root.raw", work / "disk.raw", target.with_name(f".{target.name}.part")
    _convert(work / "root.qcow2", "qcow2", root, "raw", deadline)
    bootdisk.write_raw(bootdisk.BootDisk(root, loader, recipe.disk_size), raw, deadline)
    _convert(raw, "raw", part, "qcow2", deadline)
    part.rename(target)
    for name in ("root.raw", "disk.raw", "root.qcow2"):
        (work / name).unlink()


def _mode() -> str:
    if os.geteuid() == 0:
        return "root"
    require("newuidmap")
    name = os.environ.get("USER") or str(os.getuid())
    entries = Path("/etc/subuid").read_text().splitlines() if Path("/etc/subuid").is_file() else []
    if not any(line.split(":")[0] in (name, str(os.getuid())) for line in entries):
        raise HostError(
            f"the user {name} has no subordinate ids: an image with the right file owners cannot be made",
            hint=f"run: sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name}",
        )
    return "unshare"


def _complaints(stderr: bytes) -> str:
    """apt's and mmdebstrap's own error lines, without the script and the progress around them."""
    lines = stderr.decode(errors="replace").splitlines()
    errors = [line for line in lines if line.startswith(("E:", "Err:", "dpkg:"))]
    return "\n".join((errors or lines)[-8:])


@contextlib.contextmanager
def _tree_folder(mode: str) -> Iterator[Path]:
    """Where mmdebstrap lays out the new system; gone at the end, also when mmdebstrap was ended half-way.

    It lies under the temporary folder because the namespace's root must be able to reach it; what it holds then belongs
    to subordinate ids, which only the namespace's root can remove.
    """
    with tempfile.TemporaryDirectory(prefix="aib-bootstrap-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        tree = folder / "tree"
        tree.mkdir()
        tree.chmod(0o1777)
        try:
            yield tree
        finally:
            left = list(tree.iterdir())
            if left and mode == "unshare":
                helper: list[str | Path] = ["mmdebstrap", "--unshare-helper", "rm", "-rf", *left]
                run(helper, deadline=Deadline.after(_CLEANING, "removing the half-made system"), check=False)


def _command(recipe: BootstrapRecipe, mode: str, sources: list[str], fs_uuid: str, work: Path) -> list[str]:
    variables = {
        "fs_uuid": fs_uuid,
        "fs_size": str(bootdisk.root_size(recipe.disk_size) // 1024),
        "embedded": bootdisk.embedded_config(fs_uuid),
        "bios_modules": " ".join(bootdisk.MODULES_BIOS),
        "uefi_modules": " ".join(bootdisk.MODULES_UEFI),
    }
    assignments = "".join(f"{name}={shlex.quote(value)}\n" for name, value in variables.items())
    # The text itself, not the file: the namespace's root may not be able to look into our folders.
    hooks = [f"--essential-hook={ESSENTIAL_HOOK.read_text()}", f"--customize-hook={assignments}{HOOK.read_text()}"]
    for name in ("root.qcow2", "boot.img", "core.img", "bootx64.efi"):
        hooks.append(f"--customize-hook=download /aib/{name} {shlex.quote(str(work / name))}")
    return [
        *("mmdebstrap", f"--mode={mode}", "--variant=minbase", "--format=null", "--architectures=amd64"),
        *("--aptopt=APT::Install-Recommends false", "--aptopt=Acquire::Retries 3", "--dpkgopt=force-unsafe-io"),
        *(f"--include={','.join(recipe.packages)}", *hooks, recipe.suite, "/dev/null", *sources),
    ]


def _progress(say: Callable[[str], None]) -> Callable[[bytes], None]:
    """mmdebstrap's own progress lines ("I: installing remaining packages inside the chroot..."), as they come."""
    rest = b""

    def take(chunk: bytes) -> None:
        nonlocal rest
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.startswith(b"I: ") and line.endswith(b"...") and b"hook" not in line:
                say(line[3:].decode(errors="replace").removesuffix("..."))

    return take


def _convert(source: Path, source_format: str, target: Path, target_format: str, deadline: Deadline) -> None:
    run(["qemu-img", "convert", "-f", source_format, "-O", target_format, source, target], deadline=deadline)
