"""What a build leaves in a Windows image, as far as files tell: pure functions over an inspection.

Accounts, certificates and listeners are in the registry, which is not read: that is said, and so no proof is a pass.
"""

from __future__ import annotations

from collections.abc import Iterator

from hypervisor.inspect import Inspection
from orchestrator.build.leftovers import Finding
from provisioners.identity import BuildIdentity

PATTERNS = ("*/Panther/unattend.xml", "*/Panther/Unattend/unattend.xml")
_OURS = ("packer-", "script-", "aib-")
REGISTRY = "accounts, certificates, listeners and the logon at start are in the registry, which is not read"


def in_files(inspection: Inspection, identity: BuildIdentity) -> Iterator[Finding]:
    """Everything the rules find. Windows does not tell small letters from capital ones."""
    for found in inspection.file_systems:
        top = found.root
        if top is None:
            continue
        for path, entry in found.entries.items():
            below = path[len(top) :].lower() if path.startswith(f"{top}/") else ""
            where = Inspection.name(found, path)
            if below in ("/windows/panther/unattend.xml", "/windows/panther/unattend/unattend.xml"):
                yield Finding("warning", "answer-file", where, "the next first start would do what it says")
            if entry.kind == "d" and below == f"/users/{identity.user.lower()}" and identity.certificate:
                yield Finding("warning", "profile", where, "the profile folder of the build account is still there")
            folder, _, name = below.rpartition("/")
            if folder == "/windows/temp" and name.startswith(_OURS):
                yield Finding("warning", "script", where, "a script of this build, or what it printed")
    yield Finding("unknown", "not-inspected", "the registry", REGISTRY)
