"""The Shell customizer and validator, run as the service's Packer runs it (`aib-service.md` 2.4, PKR)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from provisioners.base import Context, Guest, Outcome
from provisioners.reboot import SSH_LIMIT_SECONDS
from provisioners.remote_script import RemoteScript, assignments, script_path

INLINE_SHEBANG = b"#!/bin/sh -e\n"


@dataclass(frozen=True, slots=True)
class Shell:
    """One script, run in the login user's home without a terminal; only exit 0 is success.

    `as_root`: the service runs `inline` as the login user; for `scriptUri` the evidence says root (INFERRED), so it is
    a switch. Root means `sudo -n env VARS script`: the variables get through whatever sudoers keeps, HOME is root's,
    the folder stays the login user's home.
    """

    content: bytes = field(repr=False)
    as_root: bool = False
    reboot_limit: float = SSH_LIMIT_SECONDS

    @classmethod
    def inline(cls, lines: Sequence[str], *, as_root: bool = False) -> Shell:
        """All lines as one script under `#!/bin/sh -e`, unless the text brings its own first line."""
        text = "\n".join(lines).encode("utf-8", "surrogatepass") + b"\n"
        return cls(_unix(text if text.startswith(b"#!") else INLINE_SHEBANG + text), as_root)

    @classmethod
    def script(cls, payload: Path | bytes, *, as_root: bool = True) -> Shell:
        """A fetched script: it keeps its own first line, and gets no `-e`."""
        return cls(_unix(payload if isinstance(payload, bytes) else payload.read_bytes()), as_root)

    def apply(self, guest: Guest, context: Context) -> Outcome:
        """See `Provisioner.apply`."""
        path = script_path()
        command = shell_command(path, context.environment, as_root=self.as_root)
        return RemoteScript(self.content, path, command, reboot_limit=self.reboot_limit).run(guest, context)


def shell_command(path: str, environment: Mapping[str, str], *, as_root: bool) -> str:
    """Packer's `chmod +x {{.Path}}; {{.Vars}} {{.Path}}` (the two blanks are Packer's), or the same under sudo."""
    variables = assignments(environment)
    if as_root:
        return f"chmod +x {path}; sudo -n env {variables} {path}"
    return f"chmod +x {path}; {variables} {path}"


def _unix(text: bytes) -> bytes:
    """CRLF to LF as Packer does. What holds a NUL byte is a program, not a text, and stays as it is."""
    return text if b"\0" in text else text.replace(b"\r\n", b"\n")
