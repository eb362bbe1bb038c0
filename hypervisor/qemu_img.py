"""qemu-img with explicit formats: nothing is ever probed, and an image that refers to other files is refused first."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypervisor.deadline import Deadline
from hypervisor.disk_format import DiskFormat
from hypervisor.errors import InputError
from hypervisor.process import ProcessError, run
from hypervisor.vhd_footer import fixed_size

Progress = Callable[[float], None]
"""Called with the percentage that is done."""
Argv = list[str | Path]

_SECTOR = 512
_METADATA_SECONDS = 120.0  # reading or writing a header, on a slow and loaded machine
_CHECKABLE = ("qcow2", "vhdx", "vmdk")
_LEAKS_ONLY = 3  # qemu-img check: clusters are allocated and not used; the content is right
_NOT_COMPLETED = 1
_DIFFERENT = 1  # qemu-img compare


class CorruptImage(InputError):
    """A disk image whose structure is damaged, or that is not whole."""

    def __init__(self, message: str, *, hint: str = "get the image again") -> None:
        super().__init__(message, hint=hint)


class ImagesDiffer(InputError):
    """Two disks that must hold the same content do not."""


@dataclass(frozen=True, slots=True)
class DiskInfo:
    """What qemu-img knows about an image. Sizes in bytes: the disk's, and what the file takes up on disk."""

    virtual_size: int
    actual_size: int
    format: str
    backing: str | None
    dirty: bool = False
    corrupt: bool = False
    encrypted: bool = False


def _default(deadline: Deadline | None, doing: str) -> Deadline:
    return deadline or Deadline.after(_METADATA_SECONDS, f"the time limit of {doing}")


def _absolute(path: Path) -> Path:
    """qemu takes a relative name with a colon for a protocol, and one with a dash for an option."""
    return path.absolute()


def info(path: Path, format: DiskFormat, deadline: Deadline | None = None) -> DiskInfo:
    """Read the header of `path`; raises `InputError` when it is not a readable image of that format."""
    argv: Argv = ["qemu-img", "info", "--force-share", "--output=json", "-f", format, _absolute(path)]
    try:
        done = run(argv, deadline=_default(deadline, "qemu-img info"))
    except ProcessError as error:
        raise _unreadable(path, format, error) from error
    facts: dict[str, Any] = json.loads(done.stdout)
    specific: dict[str, Any] = facts.get("format-specific", {}).get("data", {})
    return DiskInfo(
        virtual_size=int(facts["virtual-size"]),
        actual_size=int(facts.get("actual-size", 0)),
        format=str(facts["format"]),
        backing=facts.get("backing-filename"),
        dirty=bool(facts.get("dirty-flag", False)),
        corrupt=bool(specific.get("corrupt", False)),
        encrypted=bool(facts.get("encrypted", False)),
    )


def _unreadable(path: Path, format: str, error: ProcessError) -> InputError:
    reason = error.stderr.decode(errors="replace").strip().splitlines()
    detail = reason[-1].removeprefix("qemu-img: ") if reason else str(error)
    if "Permission denied" in detail:
        return InputError(f"{path} may not be read", hint="give yourself read permission on the file and its folder")
    return CorruptImage(f"{path} is not a readable {format} image: {detail}")


def check_structure(path: Path, format: DiskFormat, deadline: Deadline | None = None) -> None:
    """Let qemu-img check the metadata where it can (qcow2, vhdx, vmdk); raises `CorruptImage`."""
    if format not in _CHECKABLE:
        return
    argv: Argv = ["qemu-img", "check", "--force-share", "-f", format, _absolute(path)]
    done = run(argv, deadline=_default(deadline, "qemu-img check"), check=False)
    if done.exit_code in (0, _LEAKS_ONLY):
        return
    said = (done.stderr + b"\n" + done.stdout).decode(errors="replace")
    lines = [line.removeprefix("qemu-img: ") for line in said.splitlines() if line.strip()]
    first = "; ".join(lines[:2]) if lines else f"qemu-img check: exit code {done.exit_code}"
    incomplete = " (the check could not be completed)" if done.exit_code == _NOT_COMPLETED else ""
    raise CorruptImage(f"{path} is a damaged {format} image: {first}{incomplete}")


def create_overlay(
    base: Path, base_format: DiskFormat, overlay: Path, size_bytes: int | None = None, deadline: Deadline | None = None
) -> None:
    """Create the qcow2 `overlay` on the immutable `base`; `size_bytes` grows the disk.

    The base is named relative to the overlay, so that a store can be moved as a whole.
    """
    name = os.path.relpath(base.resolve(), overlay.resolve().parent)
    argv: Argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", base_format, "-b", name]
    size = [] if size_bytes is None else [str(size_bytes)]
    run([*argv, _absolute(overlay), *size], deadline=_default(deadline, "qemu-img create"))


def create_empty(path: Path, format: DiskFormat, size_bytes: int, deadline: Deadline | None = None) -> None:
    """Create an empty disk of `size_bytes`."""
    argv: Argv = ["qemu-img", "create", "-q", "-f", format, _absolute(path), str(size_bytes)]
    run(argv, deadline=_default(deadline, "qemu-img create"))


def convert(
    source: Path,
    source_format: DiskFormat,
    target: Path,
    target_format: DiskFormat,
    deadline: Deadline,
    *,
    progress: Progress | None = None,
    options: str = "",
    any_order: bool = False,
) -> None:
    """Copy the content of a disk into a new file of another format; holes stay holes.

    `any_order` writes as the reads come, which is quicker; only where every byte has its place (raw, fixed VHD) is the
    file the same each time.
    `options` are the target format's, in qemu-img's spelling. The caller names a throw-away target: a failure or a
    passed deadline leaves a half-written file there.
    """
    argv: Argv = ["qemu-img", "convert", "-p", "-f", source_format, "-O", target_format]
    if options:
        argv += ["-o", options]
    if any_order:
        argv += ["-W", "-m", "8"]
    run([*argv, _absolute(source), _absolute(target)], deadline=deadline, on_output=_percentages(progress))


def _percentages(progress: Progress | None) -> Callable[[bytes], None] | None:
    """qemu-img -p prints `    (12.34/100%)` and a carriage return."""
    if progress is None:
        return None

    def on_output(chunk: bytes) -> None:
        if found := re.findall(rb"\((\d+\.\d+)/100%\)", chunk):
            progress(float(found[-1]))

    return on_output


def compare(a: Path, a_format: DiskFormat, b: Path, b_format: DiskFormat, deadline: Deadline) -> None:
    """Prove that two disks have the same size and content; raises `ImagesDiffer`."""
    sizes = info(a, a_format).virtual_size, info(b, b_format).virtual_size
    if sizes[0] != sizes[1]:  # qemu-img lets a longer disk pass when the rest is zero, unless it compares holes as well
        raise ImagesDiffer(f"{a} holds {sizes[0]} bytes, {b} {sizes[1]}")
    argv: Argv = ["qemu-img", "compare", "-f", a_format, "-F", b_format, _absolute(a), _absolute(b)]
    done = run(argv, deadline=deadline, check=False)
    if done.exit_code == 0:
        return
    if done.exit_code == _DIFFERENT:
        raise ImagesDiffer(f"{a} and {b} differ: {done.stdout.decode(errors='replace').strip()}")
    raise ProcessError([str(word) for word in argv], done.exit_code, done.stderr)


def read_bytes(path: Path, format: DiskFormat, offset: int, length: int, deadline: Deadline | None = None) -> bytes:
    """Read `length` bytes of the disk (fewer at its end) from `offset`, a multiple of 512."""
    size = fixed_size(path) if format == "vpc" else None
    if format == "raw" or size is not None:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(length if size is None else max(0, min(length, size - offset)))
    length = min(length, info(path, format, deadline).virtual_size - offset)
    if length <= 0:
        return b""
    # `qemu-img dd skip= count=` counts from the disk's start in some versions; a raw node over a window does not.
    name = str(_absolute(path)).replace(",", ",,")
    window = f"driver=raw,offset={offset},size={-(-length // _SECTOR) * _SECTOR}"
    image = f"{window},file.driver={format},file.file.driver=file,file.file.filename={name}"
    with tempfile.TemporaryDirectory(prefix="aib-read-") as folder:
        part = Path(folder) / "part"
        try:
            run(
                ["qemu-img", "convert", "--image-opts", "-O", "raw", image, part],
                deadline=_default(deadline, "qemu-img convert"),
            )
        except ProcessError as error:
            raise _unreadable(path, format, error) from error
        return part.read_bytes()[:length]
