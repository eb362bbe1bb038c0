"""On every save of the template or of a file that it names: go on from the first step that changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from hypervisor.deadline import CancelToken
from hypervisor.errors import AibError, UsageError
from orchestrator.build.options import BuildOptions
from orchestrator.build.requirements import require_build_extra
from orchestrator.record.store import Store
from orchestrator.template.model import File, PowerShell, Shell, Template
from orchestrator.verbs.build import STANDARD_INPUT, Checked, Shower, build, check

POLL_SECONDS = 0.3
CANCELLED = 130

Shown = Callable[[Checked], None]
"""Shows what is wrong with a template."""


@dataclass(frozen=True, slots=True)
class Watch:
    """A template file to be built on every save.

    It stops after the last customizer or validator; with `whole` the image is generalized and distributed too.
    """

    template_file: Path
    options: BuildOptions
    store: Store
    shower: Shower
    shown: Shown
    say: Callable[[str], None]
    token: CancelToken
    whole: bool = False

    def rounds(self) -> Iterator[int]:
        """Build now and after every save, until cancelled; gives the exit code of each build.

        A template that is invalid, or a build that fails, is shown, and the next save is waited for. Raises
        `UsageError` for standard input.
        """
        if self.template_file == STANDARD_INPUT:
            raise UsageError("standard input cannot be watched", hint="name the template's file")
        require_build_extra()
        while not self.token.cancelled:
            seen, code = self._round()
            yield code
            if code == CANCELLED:
                return
            self.say(f"Watching {self.template_file} and {len(seen) - 1} files that it names; Ctrl-C ends it")
            while _stamps(list(seen)) == seen:
                if self.token.wait(POLL_SECONDS):
                    return

    def _round(self) -> tuple[dict[Path, object], int]:
        """One build: what its files looked like before it, so that a save meanwhile is seen, and its exit code."""
        seen = _stamps([self.template_file])
        try:
            checked = check(self.template_file, self.options)
            self.shown(checked)
            if not checked.loaded.is_valid:
                return seen, 2
            template = checked.template()
            seen = _stamps([self.template_file, *_named_files(template, self.template_file.absolute().parent)])
            last = "" if self.whole else _last_step(template)
            wanted = replace(checked, options=replace(self.options, until_step=last))
            ended = build(wanted, self.store, self.shower)
        except AibError as error:
            self.say(f"error: {error.message}")
            if error.hint:
                self.say(f"  {error.hint}")
            return seen, error.exit_code
        return seen, CANCELLED if ended.stopped else ended.exit_code


def _last_step(template: Template) -> str:
    """The number of the last customizer or validator; "" when there is none."""
    validate = template.validate
    steps = len(validate.in_vm_validations) if validate else 0
    if not (validate and validate.source_validation_only):
        steps += len(template.customize)
    return str(steps) if steps else ""


def _named_files(template: Template, base: Path) -> list[Path]:
    """The local scripts and files of the template."""
    uris = []
    validators = template.validate.in_vm_validations if template.validate else ()
    for item in (*template.customize, *validators):
        match item:
            case Shell() | PowerShell():
                uris.append(item.script.uri)
            case File():
                uris.append(item.source_uri)
    local = [uri.removeprefix("file://") for uri in uris if uri and ("://" not in uri or uri.startswith("file://"))]
    return [base / path for path in local]


def _stamps(paths: list[Path]) -> dict[Path, object]:
    """What a save changes; None for a file that is not there (an editor may be replacing it)."""
    found: dict[Path, object] = {}
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            found[path] = None
        else:
            found[path] = (status.st_mtime_ns, status.st_size, status.st_ino)
    return found
