"""The proof of generalization: what the power-off disk still holds, read from outside (DESIGN "Generalize").

The service has no such proof; it leaves machine-id and cloud-init's state in every image (`images-and-libvirt.md` 5).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from hypervisor import rawscan
from hypervisor.deadline import Deadline
from hypervisor.inspect import Inspection, InspectionError, Request
from hypervisor.rawscan import Hits
from hypervisor.spec import DiskSpec
from orchestrator.build import leftovers, leftovers_windows
from orchestrator.build.leftovers import Finding
from provisioners.identity import BuildIdentity

Verdict = Literal["passed", "failed", "warned", "not-inspected"]

GIVEN = {"linux": "host key", "windows": "listener key or password"}
NEVER_GIVEN = {"linux": "login key or password", "windows": "login key"}
"""What the kinds of secrets are called, by system."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What was found. "warned": only what the service leaves behind too, or what the user's own script left.

    "not-inspected": nothing bad was found, but a file system could not be read; `findings` say which. Never a pass.
    """

    verdict: Verdict
    findings: tuple[Finding, ...]
    own_script: bool
    file_systems: tuple[Mapping[str, Any], ...] = ()
    raw_scan: Mapping[str, int] | None = None
    """Occurrences on the whole disk by kind of secret."""

    @property
    def failures(self) -> tuple[str, ...]:
        """The findings that fail the run, as sentences."""
        return tuple(str(finding) for finding in self.findings if finding.severity == "failure")

    def to_json(self) -> dict[str, Any]:
        """The report that the run folder keeps; it holds no secret."""
        return {
            "verdict": self.verdict,
            "deprovisionScript": "the user's own" if self.own_script else "default",
            "findings": [asdict(finding) for finding in self.findings],
            "fileSystems": [dict(found) for found in self.file_systems],
            "rawScan": dict(self.raw_scan or {}),
        }


Look = Callable[[DiskSpec, Request], Inspection]
"""Reads a disk in an inspection VM."""


def prove(
    disk: DiskSpec,
    look: Look,
    *,
    identity: BuildIdentity,
    own_script: bool,
    work: Path,
    deadline: Deadline,
    base: Path | None = None,
) -> Proof:
    """Read the powered-off `disk` and judge it. `base`: the source image below it, which is older than any secret.

    A disk that the inspection VM cannot read at all gives "not-inspected" (or "failed", when the raw scan alone finds
    a secret); raises only for the host's own failures, `DeadlineExceeded` and `Cancelled`.
    """
    needles = (*identity.secrets(), *identity.guest_secrets(), *identity.traces())
    hits = rawscan.scan(disk, needles, work=work, deadline=deadline, base=base)
    private = (*identity.secrets(), *identity.guest_secrets())
    # Which files hold a secret is asked only when there is one: searching every file takes long in a slow VM.
    # Words of UTF-16 cannot be asked for: their zeros would end the question.
    present = [needle for needle in private if hits[needle].count and b"\0" not in needle]
    try:
        if identity.system == "windows":
            request = Request(leftovers_windows.PATTERNS, present)
        else:
            request = Request(leftovers.PATTERNS, present, _every_place(hits, present), listed=leftovers.LISTED)
        inspection = look(disk, request)
    except InspectionError as error:
        return judge(None, hits, identity, own_script=own_script, problem=error.message)
    return judge(inspection, hits, identity, own_script=own_script)


def _every_place(hits: Mapping[bytes, Hits], needles: Iterable[bytes]) -> Sequence[tuple[int, int]]:
    """First and last byte of every occurrence; empty where not every one of them was remembered."""
    seen = {needle: hits[needle] for needle in needles}
    if any(found.count > len(found.offsets) for found in seen.values()):
        return ()
    return [(offset, offset + len(needle) - 1) for needle, found in seen.items() for offset in found.offsets]


def judge(
    inspection: Inspection | None,
    hits: Mapping[bytes, Hits],
    identity: BuildIdentity,
    *,
    own_script: bool,
    problem: str = "",
) -> Proof:
    """The verdict on what was read; pure. `inspection` is None when there is none, because of `problem`."""
    findings: list[Finding] = []
    if inspection is None:
        findings.append(Finding("unknown", "not-inspected", "the disk", f"could not be read: {problem}"))
    else:
        findings += leftovers.unread(inspection)
        if identity.system == "windows":
            findings += leftovers_windows.in_files(inspection, identity)
        else:
            findings += leftovers.not_linux(inspection)
            findings += leftovers.in_files(inspection, identity)
    findings += _secrets(inspection.holders if inspection else (), hits, identity)
    if own_script:
        findings = [leftovers.softened(finding) for finding in findings]
    scanned = {
        NEVER_GIVEN[identity.system]: _count(hits, identity.secrets()),
        GIVEN[identity.system]: _count(hits, identity.guest_secrets()),
        "names (public keys, instance id, host name)": _count(hits, identity.traces()),
    }
    systems = tuple(_described(inspection)) if inspection else ()
    return Proof(_verdict(findings), tuple(findings), own_script, systems, scanned)


def _secrets(holders: Sequence[str], hits: Mapping[bytes, Hits], identity: BuildIdentity) -> Iterable[Finding]:
    never_given, given = _count(hits, identity.secrets()), _count(hits, identity.guest_secrets())
    for name in holders:
        yield Finding("failure", "secret-in-file", name, "holds a private key or password of this build")
    if never_given:
        where = _places(hits, identity.secrets())
        yield Finding("failure", "login-secret", where, "the build's private login key or password is on the disk")
    if given and not holders:
        where = _places(hits, identity.guest_secrets())
        yield Finding(
            "warning",
            "host-key-remnant",
            where,
            f"the build's private {GIVEN[identity.system]} is in blocks that no file shows: deleted, not overwritten",
        )


def _count(hits: Mapping[bytes, Hits], needles: Iterable[bytes]) -> int:
    return sum(hits[needle].count for needle in needles if needle in hits)


def _places(hits: Mapping[bytes, Hits], needles: Iterable[bytes]) -> str:
    offsets = sorted(offset for needle in needles if needle in hits for offset in hits[needle].offsets)
    return "byte " + ", ".join(str(offset) for offset in offsets[:4])


def _described(inspection: Inspection) -> Iterable[Mapping[str, Any]]:
    for found in inspection.file_systems:
        yield {
            "device": found.device,
            "type": found.type,
            "size": found.size,
            "state": found.state,
            "detail": found.detail,
            "names": found.names,
        }


def _verdict(findings: Sequence[Finding]) -> Verdict:
    severities = {finding.severity for finding in findings}
    if "failure" in severities:
        return "failed"
    if "unknown" in severities:
        return "not-inspected"
    return "warned" if "warning" in severities else "passed"
