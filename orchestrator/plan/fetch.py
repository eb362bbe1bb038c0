"""Scripts and files are fetched and checked before any VM boots: from http(s), Azure blobs, or this machine."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from hypervisor.deadline import Deadline
from hypervisor.errors import InputError
from orchestrator.plan import http
from orchestrator.plan.credentials import Credentials, is_blob
from orchestrator.plan.fetched_store import FetchedStore, Stored, without_sas
from orchestrator.plan.http_errors import ChecksumMismatch, FetchError, NotAuthorized, NotFound, redact_url
from orchestrator.plan.model import Payload
from orchestrator.record import files
from orchestrator.template.model import File, PowerShell, Shell, Template
from orchestrator.template.regular_file import chunks, open_regular

LIMITS = http.Limits(size=512 << 20, redirects=5, total=1800.0)
_NEAR_TEXT = 8 << 20
"""Larger files are no scripts: their line ends are not tried."""

Say = Callable[[str], None]


class InputUnavailable(InputError):
    """A script or file of the template cannot be had; `cause` says why, the hint quotes what the service would say."""

    def __init__(self, message: str, cause: InputError, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.cause = cause


class InputsUnavailable(InputError):
    """Several cannot be had; all are told at once."""

    def __init__(self, errors: tuple[InputError, ...]) -> None:
        lines = "".join(f"\n- {e.message}" + (f"\n    {e.hint}" if e.hint else "") for e in errors)
        super().__init__(f"{len(errors)} scripts and files are not available:{lines}")
        self.errors = errors


@dataclass(frozen=True, slots=True)
class Wanted:
    """One script or file: its URI, its sha256 if the template gives one, and where the template asks for it."""

    uri: str
    sha256: str
    pointer: str
    label: str


@dataclass(frozen=True, slots=True)
class Allowed:
    """Where a template may have its scripts and files from: by default anywhere its author may read.

    `roots`: the folders of this machine that local paths must lie in, links resolved (None: anywhere). `private`:
    whether addresses of this machine and of private networks may be spoken to.
    """

    roots: tuple[Path, ...] | None = None
    private: bool = True

    def local(self, path: Path) -> Path:
        """The path to open, links resolved where it had to be looked at; `InputError` when it is outside."""
        if self.roots is None:
            return path
        resolved = path.resolve()
        if any(resolved.is_relative_to(root.resolve()) for root in self.roots):
            return resolved
        raise NotAllowed(f"{path}: local paths are not allowed here", hint=_HOW_TO_ALLOW)


class NotAllowed(InputError):
    """A local path that a template of somebody else names."""


ANYWHERE = Allowed()
_HOW_TO_ALLOW = "Use an http(s) address, or have the owner of this server allow the folder."


def is_local(uri: str) -> bool:
    """Whether a script's or file's URI names a file of this machine."""
    return "://" not in uri or urlsplit(uri).scheme.lower() == "file"


def wanted_by(template: Template) -> tuple[Wanted, ...]:
    """Everything that the template's steps need from elsewhere, in the order of the steps."""
    steps: list[tuple[str, Shell | PowerShell | File]] = []
    if not (template.validate and template.validate.source_validation_only):
        steps += [
            (step.pointer or f"/properties/customize/{index}", step)
            for index, step in enumerate(template.customize)
            if isinstance(step, Shell | PowerShell | File)
        ]
    if template.validate:
        steps += [
            (step.pointer or f"/properties/validate/inVMValidations/{index}", step)
            for index, step in enumerate(template.validate.in_vm_validations)
        ]
    found = []
    for pointer, step in steps:
        label = f"{type(step).__name__} {step.name!r}" if step.name else f"{type(step).__name__} at {pointer}"
        if isinstance(step, File):
            found.append(Wanted(step.source_uri, step.sha256, pointer, label))
        elif step.script.inline is None:
            found.append(Wanted(step.script.uri, step.script.sha256, pointer, label))
    return tuple(found)


@dataclass
class Fetcher:
    """Fetches for one template. `base` is the template's folder, against which relative paths count."""

    store: FetchedStore
    base: Path
    credentials: Credentials
    deadline: Deadline
    offline: bool = False
    say: Say = lambda _: None
    limits: http.Limits = LIMITS
    allowed: Allowed = ANYWHERE
    _done: dict[str, Stored] = field(default_factory=dict, init=False)

    def fetch_all(self, wanted: tuple[Wanted, ...]) -> Mapping[str, Payload]:
        """Payloads by pointer. Raises `InputUnavailable`, `ChecksumMismatch`, or `InputsUnavailable` with several."""
        payloads: dict[str, Payload] = {}
        errors: list[InputError] = []
        for each in wanted:
            try:
                payloads[each.pointer] = self.fetch(each)
            except InputError as error:
                errors.append(error)
        if len(errors) > 1:
            raise InputsUnavailable(tuple(errors))
        if errors:
            raise errors[0]
        return payloads

    def fetch(self, wanted: Wanted) -> Payload:
        """One payload, in the store and with the right checksum; raises `InputUnavailable` or `ChecksumMismatch`."""
        stored = self._done.get(wanted.uri)
        if stored is None:
            try:
                stored = self._bring(wanted)
            except InputUnavailable:
                raise
            except InputError as error:
                raise self._explained(wanted, error) from error
            self._done[wanted.uri] = stored
        _check(wanted, stored)
        return Payload(redact_url(shown(wanted.uri)), stored.sha256, stored.size, stored.path)

    def _bring(self, wanted: Wanted) -> Stored:
        scheme = urlsplit(wanted.uri).scheme.lower() if "://" in wanted.uri else ""
        if scheme in {"http", "https"}:
            return self._stored(wanted) if self.offline else self._download(wanted.uri)
        if scheme not in {"", "file"}:
            raise InputError(
                f"{redact_url(wanted.uri)}: {scheme}:// cannot be fetched",
                hint="Use https://, a path relative to the template, or file://.",
            )
        return self._copy(self.allowed.local(self._local_path(wanted.uri, scheme)))

    def _stored(self, wanted: Wanted) -> Stored:
        """What the store has for it; a checksum finds it even under another address."""
        stored = self.store.find(wanted.sha256.lower()) if wanted.sha256 else None
        stored = stored or self.store.last_answer(wanted.uri)
        if stored is None:
            raise InputError(
                f"{redact_url(shown(wanted.uri))} was never fetched, and --offline fetches nothing",
                hint="Run once without --offline.",
            )
        return stored

    def _download(self, url: str) -> Stored:
        self.say(f"Fetching {redact_url(shown(url))}")
        limits = self.limits if self.allowed.private else replace(self.limits, public_only=True)
        with self.store.incoming() as path:
            done = http.download(
                url, path, deadline=self.deadline, limits=limits, headers=self.credentials.headers(url)
            )
            stored = self.store.publish(path, done.sha256)
        self.store.remember(url, stored)
        return stored

    def _local_path(self, uri: str, scheme: str) -> Path:
        if not scheme:
            return self.base / uri
        parts = urlsplit(uri)
        if parts.netloc not in {"", "localhost"}:
            raise InputError(f"{uri}: a file:// address with a host cannot be read", hint="Write file:///path.")
        return Path(unquote(parts.path))

    def _copy(self, source: Path) -> Stored:
        """Take a file of this machine as it is now: what the user changes later does not change this run."""
        digest = hashlib.sha256()
        try:
            with open_regular(source) as (file, size):
                if size > self.limits.size:
                    raise InputError(f"{source} is larger than the limit of {self.limits.size} bytes")
                with self.store.incoming() as path, files.translating("copying", path), path.open("xb") as copy:
                    for data in chunks(file, size):
                        digest.update(data)
                        copy.write(data)
                        self.deadline.check(f"reading {source}")
                    copy.flush()
                    os.fsync(copy.fileno())
                    return self.store.publish(path, digest.hexdigest())
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            hint = f"One file is needed; relative paths count from the template's folder, {self.base}."
            raise InputError(f"cannot read {source}: {reason}", hint=hint) from error

    def _explained(self, wanted: Wanted, error: InputError) -> InputUnavailable:
        hints = [error.hint]
        address = redact_url(shown(wanted.uri))
        private = isinstance(error, NotAuthorized | NotFound) and is_blob(
            wanted.uri, self.credentials.config.storage_endpoints
        )
        if private:
            hints.append(self.credentials.how_to_map())
        if isinstance(error, NotAuthorized):
            hints.append(
                f"(The service says: Not authorized to access the resource: {address}. "
                "Please check the user assigned identity ...)"
            )
        elif isinstance(error, FetchError):
            hints.append(
                f"(The service says: Downloading external file ({address}) to local file (xxxxx.0.customizer.fp) "
                "[attempt 1 of 10] failed: Error downloading ...)"
            )
        hint = " ".join(filter(None, hints))
        return InputUnavailable(f"{wanted.label} ({wanted.pointer}): {error.message}", error, hint=hint)


def shown(uri: str) -> str:
    """The URI as it may be written anywhere."""
    return without_sas(uri) if uri.lower().startswith(("http://", "https://")) else uri


def _check(wanted: Wanted, stored: Stored) -> None:
    expected = wanted.sha256.strip().lower()
    if not expected or expected == stored.sha256:
        return
    what = f"{shown(wanted.uri)}, wanted by {wanted.label} ({wanted.pointer})"
    raise ChecksumMismatch(what, "sha256", expected, stored.sha256, hint=_line_end_hint(stored, expected))


def _line_end_hint(stored: Stored, expected: str) -> str:
    """Whether only the line ends differ, which is what a checkout on another system does."""
    if stored.size > _NEAR_TEXT:
        return ""
    data = stored.path.read_bytes()
    unix = data.replace(b"\r\n", b"\n")
    for other, name in ((unix, "LF"), (unix.replace(b"\n", b"\r\n"), "CRLF")):
        if other != data and hashlib.sha256(other).hexdigest() == expected:
            have = "CRLF" if name == "LF" else "LF"
            return (
                f"With {name} line ends it would have the expected sum: the file has {have}. "
                "Did git or an editor convert it? `.gitattributes` with `*.sh text eol=lf` keeps it as it is."
            )
    return ""
