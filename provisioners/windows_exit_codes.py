"""What the exit code of a command in a Windows guest means, in words."""

from __future__ import annotations

_MEANINGS = {
    1: "a terminating error, or a command failed",
    2: "a file was not found",
    5: "access is denied",
    101: "Windows Update: a restart is needed",
    112: "the guest's disk is full",
    1115: "a system shutdown is in progress",
    1190: "a system shutdown has already been scheduled",
    1603: "Windows Installer: fatal error during installation",
    1618: "Windows Installer: another installation is in progress",
    1641: "Windows Installer: success, a restart has begun",
    3010: "success, a restart is required",
    9009: "cmd.exe found no such command",
    16001: "the connection was lost while it ran",
    267014: "the scheduled task was terminated (0x41306)",
    0xC000013A: "it was ended with ctrl-c",
    0xC0000005: "a program crashed: access violation",
    0xFFFD0000: "PowerShell could not run the script file",
}
_HINTS = {
    1603: "look into the installer's log: msiexec /l*v FILE",
    1618: "let the earlier step wait for its installer: Start-Process -Wait",
    1641: "put a WindowsRestart step behind it and add 1641 to validExitCodes",
    3010: "put a WindowsRestart step behind it and add 3010 to validExitCodes",
    16001: "a script must not restart the guest, its network, firewall or WinRM: use a WindowsRestart step, or "
    "add 16001 to validExitCodes if that is meant",
    0xFFFD0000: "PowerShell did not find the script, or its policy forbids it",
}


def describe(code: int) -> str:
    """ "exit code 3010 (success, a restart is required)"; large ones in hexadecimal too."""
    meaning = _MEANINGS.get(code, "")
    if code >= 0x80000000:
        meaning = f"0x{code:08X}" + (f": {meaning}" if meaning else "")
    return f"exit code {code}" + (f" ({meaning})" if meaning else "")


def hint(code: int) -> str:
    """What to do about it, where that can be said."""
    return _HINTS.get(code, "")
