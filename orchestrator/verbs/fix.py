"""Rewrites what is mechanical in template files; everything else of them stays as it is."""

from __future__ import annotations

import difflib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hypervisor.errors import UsageError
from orchestrator.template import fixes
from orchestrator.verbs.validate import Given, validate_each

MAX_ROUNDS = 5  # a fix may uncover another (a renamed field's value); each round changes something


@dataclass(frozen=True, slots=True)
class Fixed:
    """One file: its text before and after."""

    file: Path
    before: str
    after: str

    @property
    def diff(self) -> str:
        """A unified diff."""
        lines = difflib.unified_diff(
            self.before.splitlines(keepends=True), self.after.splitlines(keepends=True), str(self.file), str(self.file)
        )
        return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def fix(paths: Sequence[Path], given: Given, *, write: bool) -> list[Fixed]:
    """Corrects the files (when `write`) until nothing mechanical is left; returns those that change.

    Line ends stay as they are; a byte order mark is dropped. Rules that are left out change nothing.
    """
    changed: dict[Path, Fixed] = {}
    if any(str(path) == "-" or path.suffix.lower() == ".bicep" for path in paths):
        raise UsageError("--fix needs JSON files", hint="standard input and Bicep cannot be rewritten")
    for checked in validate_each(paths, given):
        file = Path(checked.file)
        source = checked.sources[checked.file]
        text = source.text
        for _ in range(MAX_ROUNDS):
            edits = fixes.fixable(item for item in checked.diagnostics if item.position.file == checked.file)
            if not edits:
                break
            text = fixes.apply(text, edits)
            checked = next(iter(validate_each([file], given, text=text)))  # noqa: PLW2901 - the next round's findings
        if text != source.text:
            changed[file] = Fixed(file, source.text, text)
            if write:
                _write(file, text)
    return list(changed.values())


def _write(file: Path, text: str) -> None:
    """Beside the file, then over it: never a half-written template. Its permissions stay."""
    target = file.resolve()
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        Path(name).chmod(target.stat().st_mode & 0o777)
        Path(name).replace(target)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
