"""Runs `sh -n`, `bash -n` and ShellCheck over many scripts: one process of each for a batch, and none for ever."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from hypervisor.deadline import Deadline
from hypervisor.errors import AibError
from hypervisor.process import run
from orchestrator.template.shell_finding import MAX_SCRIPT, Finding, Findings

BATCH = 50  # scripts
BATCH_SECONDS = 10.0
SHELLCHECK_BYTES = 64_000  # of one script: beyond that its time and memory grow faster than the script (1 s, 120 MB)
SHELLCHECK_LINES = 2_000
_LONGEST_TEXT = 300  # characters of a complaint; bash quotes the whole line
_LINE = re.compile(r"(?::|line )\s*(\d+):\s*(.*)")
# One shell that starts the checks costs a quarter of what a process of ours for each would. NUL separates its answers.
_EACH = 'for file do "$SHELL_TO_CHECK" -n "$file" </dev/null 2>&1; printf "\\0%s\\0" "$?"; done'

Scripts = Mapping[str, tuple[str, bytes]]
"""(shell, text) by the script's key."""


def findings(scripts: Scripts, seconds: float) -> Iterator[tuple[str, Findings]]:
    """(key, findings) of the scripts that could be checked within `seconds`, batch by batch; the rest is left out."""
    deadline = Deadline.after(seconds, "the time for checking shell scripts")
    for shell in ("sh", "bash"):
        waiting = iter([(key, text) for key, (its_shell, text) in scripts.items() if its_shell == shell])
        while (batch := dict(islice(waiting, BATCH))) and not deadline.over:
            found = _batch(shell, batch, deadline.limited(BATCH_SECONDS, "the time of one batch"))
            if found is not None:
                yield from found.items()


def _batch(shell: str, batch: Mapping[str, bytes], deadline: Deadline) -> dict[str, Findings] | None:
    """The findings of a batch; None when the tools did not get through it in time."""
    checked = {key: text for key, text in batch.items() if len(text) <= MAX_SCRIPT}
    for_shellcheck = [
        key for key, text in checked.items()
        if len(text) <= SHELLCHECK_BYTES and text.count(b"\n") < SHELLCHECK_LINES
    ]  # fmt: skip
    try:
        with tempfile.TemporaryDirectory(prefix="aib-shell-") as name:
            folder = Path(name)
            for key, text in checked.items():
                (folder / key).write_bytes(text)
            found = _syntax(shell, list(checked), folder, deadline)
            for key, finding in _shellcheck(shell, for_shellcheck, folder, deadline):
                found[key].append(finding)
    except (AibError, OSError, ValueError):
        return None
    for key, text in batch.items():
        if key not in for_shellcheck:
            tool = "ShellCheck" if key in checked else f"{shell} -n and ShellCheck"
            lines = text.count(b"\n") + 1
            note = f"a script of {len(text)} bytes, {lines} lines is too long for {tool}"
            found.setdefault(key, []).append(Finding(1, 1, tool, note, is_note=True))
    return {key: tuple(each) for key, each in found.items()}


def _syntax(shell: str, names: list[str], folder: Path, deadline: Deadline) -> dict[str, list[Finding]]:
    """What the shell itself refuses. Raises ValueError when its answers cannot be told apart."""
    if shutil.which(shell) is None:
        return {name: [] for name in names}
    done = run(
        ["sh", "-c", _EACH, "sh", *names], deadline=deadline, cwd=folder, env={"SHELL_TO_CHECK": shell}, check=False
    )
    parts = done.stdout.split(b"\0")
    if len(parts) != 2 * len(names) + 1:
        raise ValueError(f"{len(parts)} answers of {shell} for {len(names)} scripts")
    found: dict[str, list[Finding]] = {}
    for name, said, code in zip(names, parts[::2], parts[1::2], strict=False):
        found[name] = [] if code == b"0" else [_complaint(shell, said.decode(errors="replace"))]
    return found


def _complaint(shell: str, said: str) -> Finding:
    first = said.strip().partition("\n")[0]
    place = _LINE.search(first)
    line, message = (int(place[1]), place[2]) if place else (1, first or "syntax error")
    return Finding(line, 1, f"{shell} -n", message[:_LONGEST_TEXT])


def _shellcheck(shell: str, names: list[str], folder: Path, deadline: Deadline) -> Iterator[tuple[str, Finding]]:
    """(script, finding) for each warning of ShellCheck; nothing where it is not installed."""
    if not names or shutil.which("shellcheck") is None:
        return
    argv = ["shellcheck", "--norc", "-f", "json", "-s", shell, "-S", "warning", *names]
    done = run(argv, deadline=deadline, cwd=folder, check=False)
    comments: list[dict[str, Any]] = json.loads(done.stdout or b"[]")
    for comment in comments:
        # what `sh -n` refuses was said already
        if comment["level"] == "error" and comment["code"] < 2000:
            continue
        text = comment["message"][:_LONGEST_TEXT]
        yield comment["file"], Finding(comment["line"], comment["column"], f"ShellCheck SC{comment['code']}", text)
