"""AIB048: what real tools say about shell scripts: `sh -n` or `bash -n` by the first line, and ShellCheck.

The tools cost tens of milliseconds a script, so their findings are kept in a cache folder by the script's digest.
Without a tool its part is left out; nothing is guessed in its place.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypervisor.errors import AibError

MAX_SCRIPT = 500_000  # bytes
TOOL_SECONDS = 20.0
_LINE = re.compile(r"(?::|line )\s*(\d+):\s*(.*)")


@dataclass(frozen=True, slots=True)
class Finding:
    """One complaint: 1-based line and column in the script, the tool that says it, its text."""

    line: int
    column: int
    tool: str
    text: str
    is_error: bool


def shell_of(script: bytes) -> str:
    """`sh`, `bash`, or nothing when the first line names another interpreter. No first line means /bin/sh (PKR)."""
    first = script.split(b"\n", 1)[0].strip()
    if not first.startswith(b"#!"):
        return "sh"
    words = first[2:].decode(errors="replace").split()
    names = [word.rpartition("/")[2] for word in words if not word.startswith("-")]
    name = names[1] if len(names) > 1 and names[0] == "env" else names[0] if names else ""
    return {"sh": "sh", "dash": "sh", "ash": "sh", "bash": "bash"}.get(name, "")


def check(script: bytes, cache: Path | None) -> tuple[Finding, ...]:
    """What the tools find in one script."""
    shell = shell_of(script)
    if not shell or len(script) > MAX_SCRIPT or not script.strip():
        return ()
    text = script.replace(b"\r\n", b"\n")  # Packer does the same before it uploads
    kept = cache / f"{_key(shell, text)}.json" if cache is not None else None
    found = _kept(kept)
    if found is None:
        found = (*_syntax(shell, text), *_shellcheck(shell, text))
        _keep(kept, found)
    return found


def _syntax(shell: str, text: bytes) -> Iterator[Finding]:
    from hypervisor.deadline import Deadline  # only scripts that were never checked pay for processes
    from hypervisor.process import run

    try:
        done = run([shell, "-n"], deadline=Deadline.after(TOOL_SECONDS, f"{shell} -n"), input=text, check=False)
    except AibError:
        return
    if done.exit_code != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        place = _LINE.search(said[0]) if said else None
        line, message = (int(place[1]), place[2]) if place else (1, said[0] if said else "syntax error")
        yield Finding(line, 1, f"{shell} -n", message, is_error=True)


def _shellcheck(shell: str, text: bytes) -> Iterator[Finding]:
    from hypervisor.deadline import Deadline
    from hypervisor.process import run

    argv = ["shellcheck", "--norc", "-f", "json", "-s", shell, "-S", "warning", "-"]
    try:
        done = run(argv, deadline=Deadline.after(TOOL_SECONDS, "shellcheck"), input=text, check=False)
        comments: list[dict[str, Any]] = json.loads(done.stdout or b"[]")
    except (AibError, ValueError):
        return
    for comment in comments:
        code = f"SC{comment['code']}"
        # a script's own -e comes from Packer, and what `sh -n` refuses was said already
        if comment["level"] == "error" and comment["code"] < 2000:
            continue
        yield Finding(comment["line"], comment["column"], f"ShellCheck {code}", comment["message"], is_error=False)


def _key(shell: str, text: bytes) -> str:
    """Digest of the script, the shell, and the tools that would look at it."""
    return hashlib.sha256(text + _tool(shell) + _tool("shellcheck")).hexdigest()


@functools.cache
def _tool(name: str) -> bytes:
    """What tells one installed version of a tool from another."""
    path = shutil.which(name)
    if path is None:
        return f" no {name}".encode()
    stat = Path(path).stat()
    return f" {name} {stat.st_size} {stat.st_mtime_ns}".encode()


def _kept(file: Path | None) -> tuple[Finding, ...] | None:
    if file is None or not file.is_file():
        return None
    try:
        return tuple(Finding(**item) for item in json.loads(file.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None  # torn or of another version: found anew


def _keep(file: Path | None, findings: Sequence[Finding]) -> None:
    if file is None:
        return
    data = [{name: getattr(f, name) for name in Finding.__slots__} for f in findings]
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        import tempfile  # only what is new is written

        handle, name = tempfile.mkstemp(dir=file.parent)
        with os.fdopen(handle, "w") as out:
            json.dump(data, out)
        Path(name).replace(file)
    except OSError:
        return  # a cache that cannot be written costs time, not the result
