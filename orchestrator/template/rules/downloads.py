"""Scripts and files by URI: where they come from, whether they can change, where they go."""

from __future__ import annotations

import posixpath
import re

from orchestrator.template.node import Node
from orchestrator.template.placeholders import is_open
from orchestrator.template.report import Report
from orchestrator.template.script_text import has_any, inline_lines
from orchestrator.template.subject import Subject

_COMMIT = re.compile(r"[0-9a-f]{40}")
_RAW = re.compile(r"https?://raw\.githubusercontent\.com/[^/]+/[^/]+/(?:refs/(?:heads|tags)/)?([^/]+)/", re.IGNORECASE)
_BLOB_PAGE = re.compile(r"https?://(?:www\.)?github\.com/[^/]+/[^/]+/blob/", re.IGNORECASE)
_SAS = re.compile(r"[?&]sig=[^&\s]", re.IGNORECASE)
_SECRETS = re.compile(
    r"(?i)(?:[?&]sig=[A-Za-z0-9%+/=]{16,}|\b(?:password|passwd|pwd|secret|api[_-]?key|account[_-]?key|access[_-]?token)"
    r"\s*[=:]\s*['\"]?(?![\s'\"$<{(%])[^\s'\";]{6,}|AKIA[0-9A-Z]{16}|-----BEGIN [A-Z ]*PRIVATE KEY-----"
    r"|ConvertTo-SecureString\s+(?:-String\s+)?['\"][^'\"$]{4,}['\"]\s+-AsPlainText)"
)
_SECRET_MARKS = ("sig=", "pass", "pwd", "secret", "key", "token", "akia", "securestring")
"""What every match of the pattern above contains, in lower case."""
MAX_SEARCHED = 50_000_000  # characters, for one template: about 50 ms
_MADE = re.compile(r"(?:mkdir|New-Item|md)\b", re.IGNORECASE)


def uris(subject: Subject) -> list[tuple[Node, Node]]:
    """(step, node of its URI) of every script or file that is fetched."""
    found = []
    for step in subject.steps:
        for name in ("scriptUri", "sourceUri", "script"):
            at = step.get(name)
            if at is not None and isinstance(at.value, str) and at.value and not is_open(at.value):
                found.append((step, at))
    return found


def is_remote(uri: str) -> bool:
    """Whether the URI is fetched over HTTP."""
    return uri.lower().startswith(("http://", "https://"))


def checksummed(subject: Subject, report: Report) -> None:
    """AIB035: a remote script or file without a checksum; AIB036: a branch can move under it."""
    for step, at in uris(subject):
        if not is_remote(at.value):
            continue
        if not step.string("sha256Checksum"):
            report.info(
                "AIB035", at, "a remote file without sha256Checksum", hint="add sha256Checksum", source="PSRule"
            )
        branch = _RAW.match(at.value)
        if branch and not _COMMIT.fullmatch(branch[1]) and "/refs/tags/" not in at.value:
            message = f"the branch {branch[1]!r} can change under this URI"
            report.info("AIB036", at, message, hint="name a commit instead of a branch", source="survey")


def places(subject: Subject, report: Report) -> None:
    """AIB037: a page instead of the file, or no http(s) URI at all."""
    for _, at in uris(subject):
        if _BLOB_PAGE.match(at.value):
            hint = "use the raw.githubusercontent.com address"
            report.warning("AIB037", at, "this is a web page about the file, not the file", hint=hint, source="survey")
        elif "://" in at.value and not is_remote(at.value):
            scheme = at.value.partition("://")[0]
            report.warning("AIB037", at, f"{scheme}: is no scheme the service fetches", hint="use https", source="JSON")
        elif "://" not in at.value:
            message = "a local path: aib reads it relative to the template, the service needs an http(s) URI"
            report.info("AIB037", at, message, source="JSON")


def secrets(subject: Subject, report: Report) -> None:
    """AIB038: what looks like a secret. It is never repeated in the message."""
    for _, at in uris(subject):
        if _SAS.search(at.value):
            hint = "give the identity access to the storage instead"
            report.warning("AIB038", at, "the URI carries a SAS token", hint=hint, source="JSON")
    for step in subject.steps:
        if not has_any(step, subject.memo, _SECRET_MARKS):
            continue
        reported: set[int] = set()
        for line in inline_lines(step, subject.memo):
            if _SECRETS.search(line.text) and id(line.node) not in reported:
                reported.add(id(line.node))
                hint = "scripts and templates are no place for secrets (S18)"
                report.warning("AIB038", line.node, "the line seems to hold a secret", hint=hint, source="SEED S18")


def destinations(subject: Subject, report: Report) -> None:
    """AIB041: Linux files go to /tmp alone; AIB042: destinations name the file, and their folder exists."""
    made: list[str] = []
    for step in subject.steps:
        at = step.get("destination")
        if step.string("type") == "File" and at is not None and isinstance(at.value, str) and not is_open(at.value):
            _destination(subject, step, at, made, report)
        made += [line.text.lower() for line in inline_lines(step, subject.memo) if _MADE.search(line.text)]


def _destination(subject: Subject, step: Node, at: Node, made: list[str], report: Report) -> None:
    path = at.value.strip()
    unix = path.startswith("/") and subject.os != "windows"
    if unix and subject.os == "linux" and posixpath.normpath(path).split("/")[1] != "tmp":
        hint = "send it to /tmp and move it with sudo in a Shell step"
        report.error(
            "AIB041", at, f"the login user can write to /tmp alone, not to {path}", hint=hint, source="SEED S23"
        )
        return
    if path.endswith(("/", "\\")) or path.rstrip("/") == "/tmp":
        report.warning("AIB042", at, "destination names a folder", hint="add the file's name", source="SEED S23")
        return
    folder = re.split(r"[/\\][^/\\]*$", path)[0].rstrip("/\\")
    top = folder.lower() in ("", "/tmp", "c:", "c:\\windows\\temp", "c:/windows/temp") or folder == path
    names = [part for part in re.split(r"[/\\]", folder) if part]
    if not top and names and not any(names[-1].lower() in text for text in made):
        message = f"no earlier step seems to make {folder}"
        report.warning("AIB042", at, message, hint="missing folders fail the step", source="SEED S23")


def unused_files(subject: Subject, report: Report) -> None:
    """AIB043: a file in /tmp that no later step mentions is gone after a reboot, or never used."""
    scripts = _Scripts(subject)
    work = 0
    for index, step in enumerate(subject.steps):
        at = step.get("destination")
        path = step.string("destination")
        if step.string("type") != "File" or at is None or not path.startswith("/tmp/"):
            continue
        work += scripts.size(index + 1)
        if work > MAX_SEARCHED:
            return  # thousands of files and scripts: this is advice, and every file would search them all
        name = posixpath.basename(path)
        if name and not scripts.may_use(name, posixpath.dirname(path), index + 1):
            message = f"no later step moves or uses {path}; /tmp does not outlive a reboot"
            report.info(
                "AIB043", at, message, hint="move it in a Shell step", source="danielsollondon/azvmimagebuilder#8"
            )


class _Scripts:
    """The inline scripts of all steps as one text, so that looking for a word in the later ones is one search."""

    def __init__(self, subject: Subject) -> None:
        parts: list[str] = []
        self.starts: list[int] = []
        self.globs: list[tuple[int, str]] = []
        self.last_fetched = -1
        at = 0
        for index, step in enumerate(subject.steps):
            self.starts.append(at)
            if step.string("scriptUri"):
                self.last_fetched = index
            for line in inline_lines(step, subject.memo):
                if "*" in line.text:
                    self.globs.append((at, line.text))
                parts.append(line.text)
                at += len(line.text) + 1
        self.text = "\n".join([*parts, ""])
        self.starts.append(at)

    def size(self, index: int) -> int:
        """How much there is to search from step `index` on."""
        return len(self.text) - self.starts[index] + len(self.globs)

    def may_use(self, name: str, folder: str, index: int) -> bool:
        """Whether a step from `index` on mentions the file, or all of its folder, or fetches who knows what."""
        start = self.starts[index]
        if self.last_fetched >= index or self.text.find(name, start) >= 0:
            return True
        return any(at >= start and ("/tmp/*" in text or f"{folder}/" in text) for at, text in self.globs)


RULES = (checksummed, places, secrets, destinations, unused_files)
