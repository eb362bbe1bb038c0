"""Can this machine build? Every check, what it found, and the exact commands that mend it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from orchestrator.verbs import doctor_checks as checks
from orchestrator.verbs.doctor_checks import Finding
from orchestrator.verbs.doctor_host import Host

EXIT_HOST = 3


@dataclass(frozen=True, slots=True)
class Report:
    """All findings about one host."""

    host: Host
    findings: tuple[Finding, ...]

    @property
    def exit_code(self) -> int:
        """0 when this machine can build, else 3."""
        return EXIT_HOST if any(finding.status == "missing" for finding in self.findings) else 0

    @property
    def install(self) -> str:
        """One command for everything that a package would mend; "" when there is nothing or nobody knows how."""
        names = [name for finding in self.findings if finding.status != "ok" for name in finding.packages.split()]
        return self.host.install(" ".join(dict.fromkeys(names)))

    def to_json(self) -> dict[str, Any]:
        """What `aib doctor --json` prints."""
        return {
            "system": self.host.system,
            "canBuild": self.exit_code == 0,
            "install": self.install,
            "findings": [finding.to_json() for finding in self.findings],
        }


def examine(host: Host | None = None, *, prove: bool = False) -> Report:
    """Run every check. `prove` boots a kernel under KVM (5 s at most) instead of telling what is remembered."""
    from hypervisor import runtime
    from orchestrator.verbs.doctor_probe import libvirt_opens

    host = host or Host()
    findings = [
        checks.python_version(host),
        *(checks.tool(host, name) for name in checks.BUILD_TOOLS),
        checks.apt_sources(host),
        checks.libvirt(host, libvirt_opens),
        checks.uefi(host),
        checks.isolated_network(host),
        checks.windows_tpm(host),
        *(checks.tool(host, name) for name in checks.BOOTSTRAP_TOOLS),
        checks.subordinate_ids(host),
        checks.user_namespaces(host),
        checks.kvm(host, (lambda: _prove(host)) if prove else None),
        checks.home_writable(host),
        checks.disk_space(host),
        checks.memory(host),
        checks.runtime_folder(host, runtime.parents(), runtime.LONGEST_ROOT),
    ]
    return Report(host, tuple(findings))


def _prove(host: Host) -> tuple[bool, str] | None:
    """Boot the kernel of the inspection VM, else the host's own; None when there is none that we may read."""
    from hypervisor import accel
    from hypervisor.errors import HostError

    kernels = sorted((host.home / "appliance").rglob("vmlinuz"))
    try:
        chosen = accel.choose("auto", kernel=kernels[-1] if kernels else None, cache=host.home / "accel")
    except HostError as error:
        return False, error.message
    return None if chosen.reason.startswith("KVM unproved") else (chosen.name == "kvm", chosen.reason)
