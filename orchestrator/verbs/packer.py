"""Write the Packer template of a plan into a folder, and let Packer itself check it."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hypervisor import seed
from hypervisor.errors import HostError, UsageError
from orchestrator.plan.model import RunPlan
from orchestrator.plan.packer_export import KEY, SEED, TEMPLATE, PackerExport, packer_export
from orchestrator.record import files
from provisioners.identity import BuildIdentity
from provisioners.provisioning import nocloud_documents

CHECK_SECONDS = 60
"""Packer starts a process of itself for every plugin of a template: 0.2 s each on an idle machine."""
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class PackerRejects(HostError):
    """Packer is installed here, and calls the exported template invalid."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written. `verdict` is one line: who checked it, or why nobody did."""

    template: Path
    notes: tuple[str, ...]
    verdict: str


def export(plan: RunPlan, folder: Path) -> Exported:
    """Write `folder` (new, or empty) with template.json, scripts, files, and for Linux a seed and its login key.

    Raises `UsageError` for a folder that is in use, `InputError` without a stored source image, `PackerRejects`.
    """
    folder = folder.absolute()
    if "," in str(folder):
        raise UsageError(f"{folder}: QEMU takes no comma in the path of a disk", hint="choose another folder")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is not empty", hint="name a new folder: it gets a key of its own each time")
    made = packer_export(plan)
    with files.translating("writing", folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".packer-", dir=folder.parent) as scratch:
            whole = Path(scratch) / "whole"
            _write(plan, made, whole)
            if folder.exists():
                folder.rmdir()
            shutil.move(whole, folder)
    template = folder / TEMPLATE
    return Exported(template, made.notes, check(template))


def check(template: Path) -> str:
    """Let Packer validate the template through python-packer; one line of verdict. Raises `PackerRejects`."""
    try:
        import sh
        from packer import Packer
    except ImportError:
        return "not checked by Packer: python-packer is not installed (pip install 'aib[packer]')"
    try:
        client = Packer(str(template))
    except sh.CommandNotFound:
        return "not checked by Packer: it is not installed (sudo apt install packer)"
    client.packer = client.packer.bake(_timeout=CHECK_SECONDS, _env={**os.environ, "CHECKPOINT_DISABLE": "1"})
    try:
        client.validate()
    except AttributeError as error:
        # python-packer 0.1.2 reads `.message` of the exception it caught, which no exception of Python 3 has.
        cause = error.__context__
        if isinstance(cause, sh.ErrorReturnCode):
            raise PackerRejects(
                f"Packer rejects the exported template: {_words(cause.stdout + cause.stderr)}",
                hint=f"{template} is written; a provisioner it does not know is a plugin that is not installed",
            ) from error
        if isinstance(cause, sh.TimeoutException):
            return f"not checked by Packer: it did not answer within {CHECK_SECONDS} s"
        raise
    return f"checked by Packer {client.version()}"


def _write(plan: RunPlan, made: PackerExport, folder: Path) -> None:
    folder.mkdir(mode=0o700)
    for name, content in made.files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    if plan.source.os == "linux":
        identity = BuildIdentity.create()
        seed.write_iso(folder / SEED, nocloud_documents(identity))
        files.publish(folder / KEY, identity.login_private.encode())
    (folder / TEMPLATE).write_text(json.dumps(made.template, indent=2) + "\n", encoding="utf-8")


def _words(output: bytes) -> str:
    return " ".join(_COLOURS.sub("", output.decode(errors="replace")).split()).removeprefix("Error: ")
