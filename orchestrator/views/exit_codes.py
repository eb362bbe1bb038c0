"""What a guest's exit code means (facts: POSIX shells, Windows, and the codes users of the service ask about: P5)."""

from __future__ import annotations

import signal

_SHELL = {
    1: "a general error",
    2: "wrong usage of a command or a shell built-in",
    100: "apt-get failed (its own error code)",
    126: "a command was found but may not be executed (no execute permission, or /tmp is mounted noexec)",
    127: "command not found",
    255: "exit status -1 or out of range",
}
_ANYWHERE = {
    1115: "a system shutdown is in progress (ERROR_SHUTDOWN_IN_PROGRESS)",
    1190: "a system shutdown has already been scheduled (ERROR_SHUTDOWN_IS_SCHEDULED)",
    1602: "Windows Installer: the user cancelled the installation",
    1603: "Windows Installer: fatal error during installation",
    1618: "Windows Installer: another installation is in progress",
    1641: "Windows Installer: success, a restart has begun",
    3010: "Windows: success, a restart is required",
    16001: "the WinRM connection was lost while the command ran (a restart, or the network or firewall was changed)",
    267014: "the scheduled task was terminated (0x41306)",
    2300218: "the connection to the guest was lost while the script ran (Packer's own code)",
    4294770688: "PowerShell could not run the script file (0xFFFD0000: missing, blocked, or not readable)",
}
_SIGNALS = {
    "SIGKILL": "; out of memory?",
    "SIGTERM": "; something asked it to stop",
    "SIGPIPE": "; it wrote to a command that had ended",
}


def meaning(code: int | None) -> str:
    """The exit code in words; "" when there is nothing to say beyond the number."""
    if code is None:
        return "the guest sent no exit code: the script was killed, or the connection was lost"
    if code in _ANYWHERE:
        return _ANYWHERE[code]
    if code in _SHELL:
        return _SHELL[code]
    if 128 < code < 128 + signal.NSIG:
        try:
            name = signal.Signals(code - 128).name
        except ValueError:
            return f"ended by signal {code - 128}"
        return f"ended by {name}{_SIGNALS.get(name, '')}"
    if 0x80000000 <= code <= 0xFFFFFFFF or code < 0:
        return f"HRESULT or NTSTATUS 0x{code & 0xFFFFFFFF:08X}"
    return ""


def described(code: int | None) -> str:
    """`exit code 127: command not found`."""
    text = meaning(code)
    if code is None:
        return text
    return f"exit code {code}: {text}" if text else f"exit code {code}"
