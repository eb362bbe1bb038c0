"""How the user wants this build to be run, beside what the template says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from orchestrator.template.arm.functions_azure import Scope


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """Options of `aib build`; JSON-able, because the worker process gets them through its standard input.

    `connect` is `embed`, `qemu:///session` or `qemu:///system`; `network` is `user` or a libvirt network's name;
    `script_user` is the documented switch who runs scripts given by URI (`root`, as inferred
    of the service, or `login`).
    """

    connect: str = "embed"
    accel: Literal["auto", "kvm", "tcg"] = "auto"
    network: str = ""
    offline: bool = False
    strict_size: bool = False
    script_user: Literal["root", "login"] = "root"
    on_error: Literal["", "cleanup", "abort"] = ""
    ssh_port: int = 0
    catalogue: str = ""
    name: str = ""
    subscription: str = ""
    resource_group: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)

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
        return cls(**data)
