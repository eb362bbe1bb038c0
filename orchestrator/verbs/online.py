"""`aib validate --online`: are the scripts and files of a template reachable, small enough, and what they should be.

What was fetched lies in the store afterwards, so a build of the same template need not fetch it again.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hypervisor.deadline import Deadline
from hypervisor.errors import InputError
from orchestrator.plan.config import Config
from orchestrator.plan.credentials import Credentials
from orchestrator.plan.fetch import Fetcher, Wanted, wanted_by
from orchestrator.plan.fetched_store import FetchedStore
from orchestrator.plan.http_errors import ChecksumMismatch
from orchestrator.template.diagnostics import Diagnostic, Position, Severity
from orchestrator.template.model import File, Shell, Template
from orchestrator.template.regular_file import read_regular
from orchestrator.template.rules.downloads import is_remote
from orchestrator.template.rules.local_files import FILE_LIMIT
from orchestrator.template.shell_finding import MAX_SCRIPT, Finding
from orchestrator.template.shell_syntax import ShellTools

TIME_LIMIT = 600.0  # seconds for all files of one template
_NO_TIME = Finding(1, 1, "sh -n", "not looked at: the time for shell scripts is used up", is_note=True)


def check(template: Template, folder: Path, home: Path, shell: ShellTools | None) -> Iterator[Diagnostic]:
    """AIB034, AIB039, AIB040 and AIB048 for what a template fetches over HTTP; local paths were looked at before.

    Raises UsageError for a wrong config.toml in `home`, HostError when the store cannot be written.
    """
    deadline = Deadline.after(TIME_LIMIT, "--online")
    credentials = Credentials(template.identities, Config.load(home), deadline)
    fetcher = Fetcher(FetchedStore(home), folder, credentials, deadline)
    for wanted in wanted_by(template):
        if not is_remote(wanted.uri):
            continue
        pointer, place = _place(template, wanted)
        try:
            payload = fetcher.fetch(wanted)
        except ChecksumMismatch as error:
            yield Diagnostic("AIB034", Severity.ERROR, error.message, pointer, place, error.hint, "SEED S19")
            continue
        except InputError as error:
            yield Diagnostic("AIB039", Severity.ERROR, error.message, pointer, place, error.hint, "TRBL E9")
            continue
        step = _step(template, wanted)
        if isinstance(step, File) and payload.size >= FILE_LIMIT:
            message = f"the file has {payload.size} bytes; the File customizer is for files under 20 MB"
            hint = "download it in a script"
            yield Diagnostic("AIB040", Severity.WARNING, message, pointer, place, hint, "SEED S23")
        if isinstance(step, Shell) and shell is not None:
            findings = shell.check([read_regular(payload.path, MAX_SCRIPT + 1)])[0]
            for found in findings if findings is not None else (_NO_TIME,):
                severity = Severity.INFO if found.is_note else Severity.WARNING
                message = f"line {found.line} of the fetched script: {found.text}"
                yield Diagnostic("AIB048", severity, message, pointer, place, "", found.tool)


def _place(template: Template, wanted: Wanted) -> tuple[str, Position]:
    """Pointer into the resource and position of the URI."""
    for name in ("scriptUri", "sourceUri", "script"):
        pointer = f"{wanted.pointer}/{name}"
        if pointer in template.positions:
            return pointer, template.positions[pointer]
    return wanted.pointer, template.positions.get(wanted.pointer, Position())


def _step(template: Template, wanted: Wanted) -> object:
    steps = (*template.customize, *(template.validate.in_vm_validations if template.validate else ()))
    return next((step for step in steps if step.pointer == wanted.pointer), None)
