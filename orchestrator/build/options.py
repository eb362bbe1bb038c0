"""How the user wants this build to be run, beside what the template says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from hypervisor.errors import UsageError
from orchestrator.plan.steps import PowerShellForm
from orchestrator.template.arm.functions_azure import Scope

CHOICES: Mapping[str, tuple[str, ...]] = {
    "upload": ("stdin", "packer"),
    "powershell": ("service", "script", "try-catch"),
}
"""Of `--fidelity`, the default first. upload: how files go to a Windows guest; powershell: how inline lines are run
there (as the service's Packer of the template's api-version did, or one of the two forms)."""


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """Options of `aib build`; JSON-able, because the worker process gets them through its standard input.

    `connect` is `embed`, `qemu:///session` or `qemu:///system`.
    `network`: "" (what the template's vnetConfig is mapped to, else `user`), `user` (QEMU's own: the guest reaches
    this host's loopback), `isolated` (through passt: it reaches no address of this host and no metadata service; for
    templates of people you do not know), or a libvirt network's name.
    `script_user` is the documented switch who runs scripts given by URI (`root`, as inferred
    of the service, or `login`). `fidelity` chooses between ways of doing the same (`CHOICES`); `require_reboot` makes a
    WindowsRestart without a reboot an error.
    `cache`: go on from checkpoints and take them; `from_step` and `until_step` name steps
    (or number them from 1); `max_age` in seconds bounds the age of the oldest step in a checkpoint.
    `excused`: the digests of steps that failed before and from whose failure this build goes on.
    For Windows: `guest_user` and `guest_password_file` (which holds the password alone) are of an account in an image
    that listens on WinRM already, by the transport `winrm`; `answer` says whether the answer file comes on a
    CD alone or is put into the image's disk as well; `tpm` gives the build VM an emulated TPM 2.0.
    """

    connect: str = "embed"
    accel: Literal["auto", "kvm", "tcg"] = "auto"
    network: str = ""
    offline: bool = False
    strict_size: bool = False
    script_user: Literal["root", "login"] = "root"
    fidelity: Mapping[str, str] = field(default_factory=dict)
    require_reboot: bool = False
    on_error: Literal["", "cleanup", "abort", "ask"] = ""
    ssh_port: int = 0
    catalogue: str = ""
    name: str = ""
    subscription: str = ""
    resource_group: str = ""
    cache: bool = True
    from_step: str = ""
    until_step: str = ""
    max_age: float = 7 * 24 * 3600.0
    excused: tuple[str, ...] = ()
    guest_user: str = ""
    guest_password_file: str = ""
    winrm: Literal["http", "https"] = "https"
    answer: Literal["cd", "disk"] = "cd"
    tpm: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in self.fidelity.items():
            if value not in CHOICES.get(name, ()):
                known = "; ".join(f"{each}={'|'.join(choices)}" for each, choices in CHOICES.items())
                raise UsageError(f"--fidelity {name}={value} is not known", hint=f"There is: {known}.")
        if bool(self.guest_user) != bool(self.guest_password_file):
            raise UsageError("--guest-user and --guest-password-file go together")

    @property
    def upload(self) -> Literal["stdin", "packer"]:
        """How files go to a Windows guest."""
        return "packer" if self.fidelity.get("upload") == "packer" else "stdin"

    @property
    def powershell_form(self) -> PowerShellForm:
        """How inline PowerShell is run on a Windows guest."""
        form = self.fidelity.get("powershell", "service")
        return "script" if form == "script" else "try-catch" if form == "try-catch" else "service"

    @property
    def scope(self) -> Scope:
        """Where the template counts as deployed to, for the expressions of a deployment."""
        here = Scope()
        return Scope(self.subscription or here.subscription, self.resource_group or here.resource_group)

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary for `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> BuildOptions:
        """The options that `to_json` wrote; unknown keys are refused."""
        known = {f.name for f in fields(cls)}
        if unknown := set(data) - known:
            raise ValueError(f"unknown build options: {', '.join(sorted(unknown))}")
        return cls(**{**data, "excused": tuple(data.get("excused", ()))})
