"""What a Windows guest is told at its first boot: `Unattend.xml` and what it starts (`windows.md` 5).

Windows Setup looks for the answer file at the root of every drive while a generalized image starts for the first time.
From memory, and never run with real Windows.
"""

from __future__ import annotations

import base64
from xml.sax.saxutils import escape

from provisioners import windows_payloads
from provisioners.certificate import pfx, thumbprint
from provisioners.identity import BuildIdentity

VOLUME = "AIB_ANSWER"
LONGEST_COMMAND = 1024
"""What Windows Setup takes as a CommandLine."""
_FOLDER = "aib"
_COMMAND = (
    "powershell.exe -NoProfile -ExecutionPolicy Bypass -Command \"foreach ($drive in 'D','E','F','G','H') { "
    f"$script = $drive + ':\\{_FOLDER}\\open-access.ps1'; if (Test-Path -Path $script) {{ & $script }} }}\""
)
"""The drive's letter is not known before: disks come first."""


def answer_documents(identity: BuildIdentity) -> dict[str, bytes]:
    """The files of the answer medium. They hold the password: the medium is taken out once the guest answers."""
    hidden = hidden_password(identity.password, "Password")
    values = {
        "@HOSTNAME@": identity.hostname,
        "@USER@": identity.user,
        "@HIDDEN_PASSWORD@": hidden,
        "@COMMAND@": _COMMAND,
    }
    answer = windows_payloads.text("unattend.xml")
    for name, value in values.items():
        answer = answer.replace(name, escape(value))
    script = windows_payloads.text("open-access.ps1").replace("@PASSWORD@", windows_payloads.literal(identity.password))
    return {
        "Unattend.xml": answer.encode(),
        f"{_FOLDER}/open-access.ps1": script.encode(),
        f"{_FOLDER}/winrm.pfx": pfx(identity.certificate, identity.certificate_key, identity.password),
    }


def hidden_password(password: str, element: str) -> str:
    """As Windows' own tools write it with PlainText false: not readable at a glance, and no secret."""
    return base64.b64encode((password + element).encode("utf-16-le")).decode()


def forget_logon() -> str:
    """PowerShell that takes away, before the deprovision script, what the answer file left and no connection needs."""
    return windows_payloads.text("forget-logon.ps1")


def close_access(identity: BuildIdentity) -> str:
    """PowerShell that takes away the way in, the account last, and powers off."""
    script = windows_payloads.text("close-access.ps1")
    return script.replace("@USER@", identity.user).replace("@THUMBPRINT@", thumbprint(identity.certificate))
