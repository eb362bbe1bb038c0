"""The credential that the user maps to a template's identity (S5), for blobs that carry no SAS token."""

from __future__ import annotations

import base64
import binascii
import json
import os
import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from hypervisor import process
from hypervisor.deadline import Deadline
from hypervisor.errors import HostError, InputError
from orchestrator.plan.config import Config, IdentityConfig

TOKEN_VARIABLE = "AIB_STORAGE_TOKEN"  # noqa: S105 -- the name of a variable
AUDIENCE = "https://storage.azure.com"
STORAGE_VERSION = "2020-10-02"
"""`x-ms-version` of our requests; without one the service refuses bearer tokens."""
_BLOB_DOMAINS = (
    ".blob.core.windows.net",
    ".blob.core.usgovcloudapi.net",
    ".blob.core.chinacloudapi.cn",
    ".blob.storage.azure.net",
)
_TOKEN_SECONDS = 120.0


def is_blob(url: str, endpoints: tuple[str, ...] = ()) -> bool:
    """Whether the URL names a blob in Azure Storage (no custom domains, S5) or below one of `endpoints`."""
    host = (urlsplit(url).hostname or "").lower()
    return host.endswith(_BLOB_DOMAINS) or any(url.startswith(f"{endpoint}/") for endpoint in endpoints)


def has_signature(url: str) -> bool:
    """Whether the URL carries a SAS token."""
    return any(name.lower() == "sig" for name, _ in parse_qsl(urlsplit(url).query, keep_blank_values=True))


@dataclass
class Credentials:
    """Tokens for the blobs of one template. A token is asked for once, when the first blob needs it."""

    identities: tuple[str, ...]
    config: Config
    deadline: Deadline
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    on_secret: Callable[[str], None] = lambda _: None
    """Told every token, so that it never gets into a log."""
    _token: str | None = field(default=None, init=False)

    def headers(self, url: str) -> dict[str, str]:
        """The headers that give the identity's access to `url`; empty where it has none to give.

        Only for blobs over https without a SAS token: a token must not travel in clear, nor to anybody else.
        Raises `InputError` when the mapped credential is not usable.
        """
        if has_signature(url) or not is_blob(url, self.config.storage_endpoints):
            return {}
        version = {"x-ms-version": STORAGE_VERSION}
        token = self.token() if urlsplit(url).scheme == "https" else ""
        return {**version, "Authorization": f"Bearer {token}"} if token else version

    def token(self) -> str:
        """The token of the template's identity, "" when nothing is mapped to it."""
        if self._token is None:
            self._token = self._find()
            if self._token:
                self.on_secret(self._token)
                _check(self._token, self.identities[0])
        return self._token

    def how_to_map(self) -> str:
        """What the user can do so that a private blob can be read."""
        if not self.identities:
            return "The template has no identity: make the blob public, add a SAS token, or give the template one."
        name = self.identities[0].rpartition("/")[2]
        return (
            f"Map the identity {name} to a credential: [identities.{name}] with token_command, token_env or token_file "
            f"in config.toml of AIB_HOME, or {TOKEN_VARIABLE} in the environment (audience {AUDIENCE})."
        )

    def _find(self) -> str:
        if not self.identities:
            return ""
        whole = self.identities[0].lower()
        known = self.config.identities
        mapped = known.get(whole) or known.get(whole.rpartition("/")[2])
        if mapped is None:
            return self.environment.get(TOKEN_VARIABLE, "").strip()
        token = self._from(mapped).strip()
        if not token or any(character.isspace() for character in token):
            raise InputError(
                f"the credential mapped to the identity {self.identities[0]} gives no token",
                hint="token_command, token_env or token_file must give one access token and nothing else.",
            )
        return token

    def _from(self, mapped: IdentityConfig) -> str:
        if mapped.token_env:
            return self.environment.get(mapped.token_env, "")
        if mapped.token_file:
            try:
                return Path(mapped.token_file).expanduser().read_text(encoding="utf-8")
            except (OSError, ValueError) as error:
                raise InputError(f"cannot read the token file {mapped.token_file}: {error}") from error
        limit = self.deadline.limited(_TOKEN_SECONDS, f"the {_TOKEN_SECONDS:g} s for token_command")
        try:
            return process.run(shlex.split(mapped.token_command), deadline=limit).stdout.decode("utf-8", "replace")
        except HostError as error:
            raise InputError(f"token_command failed: {error.message}", hint=error.hint) from error
        except ValueError as error:
            raise InputError(f"token_command {mapped.token_command!r} is no command line: {error}") from error


def _check(token: str, identity: str) -> None:
    """Refuse a token that is for something else or over, where it can be read; the server judges the rest."""
    claims = _claims(token)
    audience = claims.get("aud")
    if isinstance(audience, str):
        host = (urlsplit(audience).hostname or "").lower()
        if audience.rstrip("/") != AUDIENCE and not host.endswith(_BLOB_DOMAINS):
            raise InputError(
                f"the token mapped to the identity {identity} is for {audience}, not for {AUDIENCE}",
                hint=f"az account get-access-token --resource {AUDIENCE} gives the right one.",
            )
    expiry = claims.get("exp")
    if isinstance(expiry, int | float) and expiry < time.time():
        raise InputError(
            f"the token mapped to the identity {identity} expired {time.time() - expiry:.0f} s ago",
            hint="Get a new one; token_command does so for each run.",
        )


def _claims(token: str) -> dict[str, Any]:
    """The claims of a JSON web token, unverified; empty for any other token."""
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, binascii.Error):
        return {}
    return claims if isinstance(claims, dict) else {}
