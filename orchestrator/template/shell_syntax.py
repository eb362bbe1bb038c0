"""AIB048: what real tools say about shell scripts: `sh -n` or `bash -n` by the first line, and ShellCheck.

The tools cost milliseconds a script even when many share a process, so their findings are kept in a cache folder by the
script's digest, and all checks of one call share a budget of time. Without a tool its part is left out; nothing is
guessed in its place.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from orchestrator.template.shell_finding import Finding, Findings

TOTAL_SECONDS = 20.0
"""How long the tools may take over all files of one call, unless the user says otherwise."""
_MOST_KNOWN = 10_000  # scripts; over thousands of templates the memory stays flat


def shell_of(script: bytes) -> str:
    """`sh`, `bash`, or nothing when the first line names another interpreter. No first line means /bin/sh (PKR)."""
    first = script.split(b"\n", 1)[0].strip()
    if not first.startswith(b"#!"):
        return "sh"
    words = first[2:].decode(errors="replace").split()
    names = [word.rpartition("/")[2] for word in words if not word.startswith("-")]
    name = names[1] if len(names) > 1 and names[0] == "env" else names[0] if names else ""
    return {"sh": "sh", "dash": "sh", "ash": "sh", "bash": "bash"}.get(name, "")


class ShellTools:
    """The tools, the cache folder of their findings, and the seconds that are left to them."""

    def __init__(self, cache: Path | None = None, seconds: float = TOTAL_SECONDS) -> None:
        self.cache = cache
        self.seconds = seconds
        self.left = seconds
        self._known: dict[str, Findings] = {}

    def check(self, scripts: Sequence[bytes]) -> list[Findings | None]:
        """What the tools find in each script; None where the time did not suffice. New ones are run together."""
        keys = [self._key(script) for script in scripts]
        new: dict[str, tuple[str, bytes]] = {}
        for key, script in zip(keys, scripts, strict=True):
            if key and key not in self._known and not self._look_up(key):
                new.setdefault(key, (shell_of(script), script.replace(b"\r\n", b"\n")))
        if new and self.left > 0:
            self._run(new)
        found = [self._known.get(key) if key else () for key in keys]
        if len(self._known) > _MOST_KNOWN:
            self._known.clear()
        return found

    def _run(self, new: Mapping[str, tuple[str, bytes]]) -> None:
        from orchestrator.template.shell_processes import findings  # only new scripts pay for processes

        began = time.monotonic()
        for key, found in findings(new, self.left):
            self._known[key] = found
            _keep(self._file(key), found)
        self.left -= time.monotonic() - began

    def _look_up(self, key: str) -> bool:
        kept = _kept(self._file(key))
        if kept is not None:
            self._known[key] = kept
        return kept is not None

    def _file(self, key: str) -> Path | None:
        return self.cache / f"{key}.json" if self.cache is not None else None

    def _key(self, script: bytes) -> str:
        """Digest of script, shell and tools; empty for what the tools are not asked about."""
        shell = shell_of(script)
        if not shell or not script.strip():
            return ""
        text = script.replace(b"\r\n", b"\n")  # Packer does the same before it uploads
        return hashlib.sha256(b"2 " + text + _tool(shell) + _tool("shellcheck")).hexdigest()


@functools.cache
def _tool(name: str) -> bytes:
    """What tells one installed version of a tool from another."""
    path = shutil.which(name)
    if path is None:
        return f" no {name}".encode()
    stat = Path(path).stat()
    return f" {name} {stat.st_size} {stat.st_mtime_ns}".encode()


def _kept(file: Path | None) -> Findings | None:
    if file is None:
        return None
    try:
        return tuple(Finding(**item) for item in json.loads(file.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None  # not there, torn, or of another version: found anew


def _keep(file: Path | None, findings: Findings) -> None:
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
