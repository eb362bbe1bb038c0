"""The identity of a build VM: made before its first boot, so that the first connection is authenticated both ways."""

from __future__ import annotations

import json
import os
import secrets
import string
import uuid
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

from provisioners.certificate import self_signed

BUILD_USER = "packer"
_ALPHABET = string.ascii_lowercase + string.digits


@dataclass(frozen=True, slots=True)
class BuildIdentity:
    """Keys, names and addresses of one checkpoint lineage. Private parts never show in `repr`.

    `login_private`/`host_private` are ed25519 keys in OpenSSH's PEM, the public parts one `ssh-ed25519 AAAA...` line
    without comment. `password` belongs to Windows guests; a Linux guest gets none. `certificate` and `certificate_key`
    (PEM) are what a Windows guest's WinRM listener shows; empty where the guest is not told what to show.
    """

    user: str
    hostname: str
    instance_id: str
    mac: str
    login_public: str
    host_public: str
    login_private: str = field(repr=False)
    host_private: str = field(repr=False)
    password: str = field(repr=False)
    system: Literal["linux", "windows"] = "linux"
    certificate: str = ""
    certificate_key: str = field(default="", repr=False)

    @classmethod
    def create(cls, user: str = BUILD_USER) -> BuildIdentity:
        """A fresh identity from the system's random source, for a Linux guest."""
        login_private, login_public = _ed25519()
        host_private, host_public = _ed25519()
        return cls(
            user=user,
            hostname="pkrvm" + "".join(secrets.choice(_ALPHABET) for _ in range(10)),
            instance_id=f"aib-{uuid.uuid4()}",
            mac="52:54:00:" + ":".join(f"{byte:02x}" for byte in secrets.token_bytes(3)),
            login_public=login_public,
            host_public=host_public,
            login_private=login_private,
            host_private=host_private,
            password=_password(),
        )

    @classmethod
    def create_for_windows(cls) -> BuildIdentity:
        """As `create`, with a certificate for the WinRM listener."""
        made = cls.create()
        certificate, key = self_signed(made.hostname)
        return replace(made, system="windows", certificate=certificate, certificate_key=key)

    @classmethod
    def of_account(cls, user: str, password: str) -> BuildIdentity:
        """For a Windows image that has an account of its own and listens already: it is told nothing."""
        return replace(cls.create(user), system="windows", password=password)

    def secrets(self) -> tuple[bytes, ...]:
        """What no byte of an image may hold: these were never given to the guest.

        One line from the middle of a key is enough to find it, in whatever file or format it lies.
        """
        if self.system == "windows":
            return (_fingerprint(self.login_private), _fingerprint(self.host_private))
        return (_fingerprint(self.login_private), self.password.encode())

    def guest_secrets(self) -> tuple[bytes, ...]:
        """What the guest was given and no *file* of an image may still hold: the private host key of a Linux guest; of
        a Windows guest the listener's key, and the password (Windows keeps text in UTF-16)."""
        if self.system == "linux":
            return (_fingerprint(self.host_private),)
        if not self.certificate_key:
            return ()
        return (_fingerprint(self.certificate_key), self.password.encode(), self.password.encode("utf-16-le"))

    def traces(self) -> tuple[bytes, ...]:
        """What is not secret, but names this build: its public keys, instance id and host name."""
        keys = (self.login_public.split()[1], self.host_public.split()[1])
        return tuple(text.encode() for text in (*keys, self.instance_id, self.hostname))

    def save(self, path: Path) -> None:
        """Write as JSON, readable by the owner alone, never half."""
        part = path.with_name(path.name + ".part")
        part.unlink(missing_ok=True)
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(asdict(self), file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)

    @classmethod
    def load(cls, path: Path) -> BuildIdentity:
        """Read what `save` wrote."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))


def _ed25519() -> tuple[str, str]:
    """(private key as OpenSSH PEM, public key line)."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return private.decode(), public.decode()


def _password() -> str:
    """32 characters of every class that Windows' policy asks for."""
    classes = (string.ascii_lowercase, string.ascii_uppercase, string.digits, "-_.+")
    chosen = [secrets.choice(group) for group in classes]
    chosen += [secrets.choice("".join(classes)) for _ in range(28)]
    secrets.SystemRandom().shuffle(chosen)
    return "".join(chosen)


def _fingerprint(pem: str) -> bytes:
    """The line of a PEM that holds the private scalar: the first lines of such keys are alike up to the public part."""
    lines = [line for line in pem.splitlines() if line and not line.startswith("-----")]
    return lines[3].encode()
