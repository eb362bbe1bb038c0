"""What a build leaves in an image, one rule each: pure functions over an inspection."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from hypervisor.inspect import Inspection
from provisioners.identity import BuildIdentity

Severity = Literal["failure", "unknown", "warning", "note"]

# As find's -path: `*` matches slashes, so a system below the top (a Btrfs subvolume) is found too.
PATTERNS = (
    *("*/etc/passwd", "*/etc/passwd-", "*/etc/shadow", "*/etc/shadow-", "*/etc/sudoers", "*/etc/sudoers.d/*"),
    *("*/authorized_keys", "*/authorized_keys2", "*/etc/ssh/ssh_host_*", "*/etc/machine-id"),
    *("*/var/lib/waagent/ovf-env.xml", "*/.*_history", "*/etc/os-release"),
)
LISTED = (
    *PATTERNS,
    *("*/home/*", "*/var/lib/cloud/instances/*", "*/var/lib/waagent/*", "*/Windows/System32"),
)
"""Names that the rules ask for; a listing of everything would take a slow VM longer than all the rest."""
_STUB = "Please login as the user"  # cloud-init's way of closing root's door


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found: `where` names a file or place, `what` says it in words.

    "failure" fails the run, "unknown" could not be looked at, "warning" is what the service leaves too, "note" is fact.
    """

    severity: Severity
    code: str
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


# Never given to the guest: no script of anybody can have put these there.
_ALWAYS = frozenset({"login-secret"})


def softened(finding: Finding) -> Finding:
    """As judged when the user's own deprovision script ran: what it leaves is the user's decision."""
    if finding.severity == "failure" and finding.code not in _ALWAYS:
        return replace(finding, severity="warning")
    return finding


def unread(inspection: Inspection) -> Iterator[Finding]:
    """What could not be looked at."""
    for found in inspection.file_systems:
        if found.state == "not-inspected":
            reason = found.detail or "no driver for it"
            yield Finding("unknown", "not-inspected", found.device, f"{found.type or 'its contents'}: {reason}")
        elif found.state == "read" and found.detail:
            yield Finding("unknown", "not-inspected", found.device, found.detail)
    if inspection.root is None:
        yield Finding("unknown", "not-inspected", "the disk", "no operating system was found on it")


def not_linux(inspection: Inspection) -> Iterator[Finding]:
    """A system that the rules of this module say nothing about."""
    if inspection.root is not None and f"{inspection.root.root}/etc/os-release" not in inspection.root.entries:
        yield Finding("unknown", "not-inspected", inspection.root.device, "not Linux: these rules know nothing of it")


def in_files(inspection: Inspection, identity: BuildIdentity) -> Iterator[Finding]:
    """Everything the rules find, the builder's account first."""
    texts = {name: data.decode("utf-8", errors="replace") for name, data in inspection.files.items()}
    yield from _account(inspection, texts, identity.user)
    yield from _authorized_keys(texts, identity)
    yield from _host_keys(inspection)
    yield from _state(inspection, texts)


def _account(inspection: Inspection, texts: dict[str, str], user: str) -> Iterator[Finding]:
    for name in ("/etc/passwd", "/etc/shadow"):
        if _has_line_of(texts.get(name, ""), user):
            yield Finding("failure", "account", name, f"the build account {user} is still there")
    for name, entry in inspection.matching(f"*/home/{user}"):
        if entry.kind == "d":
            yield Finding("failure", "home", name, f"the home folder of the build account {user} is still there")
    for name in ("/etc/passwd-", "/etc/shadow-"):
        if _has_line_of(texts.get(name, ""), user):
            yield Finding("note", "account-backup", name, f"the backup copy still names {user}")
    for name, text in texts.items():
        rules = [line for line in text.splitlines() if line.split(maxsplit=1)[:1] == [user]]
        if "/etc/sudoers" in name and rules:
            yield Finding("warning", "sudoers", name, f"gives rights to {user} (waagent leaves this behind)")


def _has_line_of(text: str, user: str) -> bool:
    return any(line.startswith(f"{user}:") for line in text.splitlines())


def _authorized_keys(texts: dict[str, str], identity: BuildIdentity) -> Iterator[Finding]:
    blob = identity.login_public.split()[1]
    for name, text in texts.items():
        if not name.endswith(("/authorized_keys", "/authorized_keys2")):
            continue
        keys = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
        ours = [line for line in keys if blob in line]
        stubs = [line for line in ours if _STUB in line]
        if len(ours) > len(stubs):
            yield Finding("failure", "login-key", name, "the build's login key opens this account")
        elif stubs:
            yield Finding("warning", "login-key-stub", name, "cloud-init's stub with the build's key: it opens nothing")
        if len(keys) > len(ours):
            yield Finding("warning", "authorized-key", name, f"{len(keys) - len(ours)} key(s) that are not the build's")


def _host_keys(inspection: Inspection) -> Iterator[Finding]:
    for name, entry in inspection.matching("*/etc/ssh/ssh_host_*_key"):
        if entry.kind == "f":
            yield Finding("failure", "host-key", name, "every machine made from the image would have this host key")


def _state(inspection: Inspection, texts: dict[str, str]) -> Iterator[Finding]:
    identifier = texts.get("/etc/machine-id", "").strip()
    if identifier and identifier != "uninitialized":
        yield Finding("warning", "machine-id", "/etc/machine-id", "the same in every machine made from the image")
    for name, entry in inspection.matching("*/var/lib/cloud/instances/*"):
        if entry.kind == "d" and name.count("/") == "/var/lib/cloud/instances/x".count("/"):
            yield Finding("warning", "cloud-init", name, "cloud-init's record of the build VM")
    for name, entry in inspection.matching("*/var/lib/waagent/*"):
        if entry.kind == "f":
            yield Finding("warning", "waagent", name, "the Azure Linux agent's record of the build VM")
    for name, text in texts.items():
        if name.endswith("_history") and text.strip():
            yield Finding("warning", "history", name, "a shell's history")
