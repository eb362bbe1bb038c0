"""The Packer template that is equivalent to a plan: QEMU builder, SSH or WinRM, the same provisioners. Pure.

JSON for Packer 1.6 and later. Checked by running: `cd_files` is there in 1.6.6, but puts the seed on an IDE CD-ROM,
which cloud kernels have no driver for; so the seed is a virtio disk, through `qemuargs`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypervisor.errors import InputError
from orchestrator.plan.model import RunPlan
from orchestrator.plan.packer_steps import BUILD_NAME, FORGET_SEED, PASSWORD_VARIABLE, provisioners_of
from provisioners.generalize import LINUX_SCRIPT_PATH
from provisioners.identity import BUILD_USER

TEMPLATE, SEED, KEY = "template.json", "seed.iso", "id_ed25519"
_MIB = 1 << 20
_DISK = "file={{ .OutputDir }}/{{ .Name }},if=virtio,format=qcow2,cache=writeback,discard=unmap"
_HERE = "{{template_dir}}"


@dataclass(frozen=True, slots=True)
class PackerExport:
    """The template, the files that belong beside it (by relative path), and what it cannot say."""

    template: dict[str, Any]
    files: dict[str, bytes]
    notes: tuple[str, ...]


def packer_export(plan: RunPlan) -> PackerExport:
    """The plan for Packer. `seed.iso` and `id_ed25519` belong beside it for Linux, and are not among its files.

    Raises `InputError` when the source image is not in the store.
    """
    if not plan.source.digest:
        raise InputError(f"the source image {plan.source.requested} is not stored yet", hint="plan with --prepare")
    steps = provisioners_of(plan)
    linux = plan.source.os == "linux"
    template = {
        "variables": _variables(plan, linux=linux),
        "sensitive-variables": [] if linux else ["winrm_password"],
        "builders": [_builder(plan, linux=linux)],
        "provisioners": steps.provisioners,
    }
    return PackerExport(template, steps.files, (*steps.notes, *_notes(plan, linux=linux)))


def _variables(plan: RunPlan, *, linux: bool) -> dict[str, str]:
    found = {"accelerator": "kvm", "output_directory": f"{_HERE}/output"}
    if plan.machine.firmware == "uefi":
        found["firmware"] = "/usr/share/ovmf/OVMF.fd"
    return found if linux else {**found, "winrm_password": ""}


def _builder(plan: RunPlan, *, linux: bool) -> dict[str, Any]:
    machine, source = plan.machine, plan.source
    # The key `firmware` is younger than 1.6.
    arguments = [["-bios", "{{user `firmware`}}"]] if machine.firmware == "uefi" else []
    arguments += _drives() if linux else []
    return {
        "type": "qemu",
        "name": BUILD_NAME,
        "disk_image": True,
        "iso_url": str(source.path),
        "iso_checksum": f"sha256:{source.digest}",
        "format": "qcow2",
        "disk_size": f"{-(-machine.os_disk_bytes // _MIB)}M",
        "disk_interface": "virtio",
        "net_device": "virtio-net",
        "accelerator": "{{user `accelerator`}}",
        "cpus": machine.vcpus,
        "memory": machine.memory_mib,
        **({"qemuargs": arguments} if arguments else {}),
        "headless": True,
        "boot_wait": "-1s",  # there is nothing to type; "0s" would mean Packer's default of 10 s
        "output_directory": "{{user `output_directory`}}",
        "vm_name": f"{plan.template_name}.qcow2",
        **(_ssh(plan) if linux else _winrm()),
    }


def _drives() -> list[list[str]]:
    """Naming one drive replaces Packer's own, so that the system's disk is said again."""
    return [
        ["-drive", _DISK],
        ["-drive", f"file={_HERE}/{SEED},if=virtio,format=raw,readonly=on"],
        ["-serial", f"file:{_HERE}/console.log"],
    ]


def _ssh(plan: RunPlan) -> dict[str, Any]:
    """The build account and its key come with the seed; S21: 20 minutes for the first answer."""
    generalized = any(step.kind == "Generalize" for step in plan.steps)
    script = LINUX_SCRIPT_PATH
    # One root shell for all of it: after the script there is no account left that could use sudo. A script that fails
    # leaves the machine on, and so fails the build by shutdown_timeout: Packer does not look at the exit code.
    generalize = f"cat {script}; sh {script} </dev/null && cd / && sh {FORGET_SEED} && rm -f {FORGET_SEED} && poweroff"
    return {
        "communicator": "ssh",
        "ssh_username": BUILD_USER,
        "ssh_private_key_file": f"{_HERE}/{KEY}",
        "ssh_timeout": "20m",
        "shutdown_command": f"sudo -n sh -c '{generalize}'" if generalized else "sudo -n poweroff",
        "shutdown_timeout": "5m",
    }


def _winrm() -> dict[str, Any]:
    """2.4: port 5986, 10 minutes for the first answer."""
    return {
        "communicator": "winrm",
        "winrm_username": BUILD_USER,
        "winrm_password": PASSWORD_VARIABLE,
        "winrm_port": 5986,
        "winrm_use_ssl": True,
        "winrm_insecure": True,
        "winrm_timeout": "10m",
        "shutdown_command": "shutdown /s /t 10 /f",
        "shutdown_timeout": "15m",
    }


def _notes(plan: RunPlan, *, linux: bool) -> tuple[str, ...]:
    found = [
        "Packer's QEMU builder adds PACKER_HTTP_ADDR, _IP and _PORT to the environment of every script",
        f"the budget of {plan.budget / 60:g} minutes is not part of a Packer template: use timeout(1)",
    ]
    if plan.distributions:
        found.append("Packer leaves one qcow2; what distributes it is not part of the template")
    if any(step.phase == "Validating" for step in plan.steps):
        found.append("validators are ordinary provisioners for Packer: they run before the image is generalized, too")
    if "abort" in {plan.on_customizer_error, plan.on_validation_error}:
        found.append("errorHandling abort is an option of Packer's command line: -on-error=abort")
    if not linux:
        found.append(f"the image must have the account {BUILD_USER} and WinRM over HTTPS: no seed makes them here")
    return tuple(found)
