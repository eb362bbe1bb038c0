"""`AIB_HOME/config.toml`: what the user maps from Azure's names to things of this machine.

[fidelity]
script_user = "service"            # who runs scripts given by URI: "service" (root, inferred) or "login"

[networks]                         # a template's vnetConfig -> a libvirt network
"my-vnet/my-subnet" = "lab"        # also a subnet id, or the virtual network's name alone

[identities.builder]               # the last part of the identity's id, or the whole id
token_command = "az account get-access-token --resource https://storage.azure.com --query accessToken -o tsv"
# or token_env = "NAME_OF_A_VARIABLE", or token_file = "/path"

[storage]
endpoints = ["https://127.0.0.1:10000/devstoreaccount1"]   # blob endpoints beside Azure's own

[checkpoints]
max = "20G"                        # what they may take up after a build; the least used go first
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hypervisor.errors import UsageError

FILE = "config.toml"
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
_TOKEN_KEYS = {"token_command", "token_env", "token_file"}


@dataclass(frozen=True, slots=True)
class IdentityConfig:
    """Where the bearer token of one identity comes from; exactly one of the three is set."""

    token_command: str = ""
    token_env: str = ""
    token_file: str = ""


@dataclass(frozen=True, slots=True)
class Config:
    """The user's configuration; everything is optional."""

    script_user: Literal["service", "login"] = "service"
    networks: Mapping[str, str] = field(default_factory=dict)
    identities: Mapping[str, IdentityConfig] = field(default_factory=dict)
    storage_endpoints: tuple[str, ...] = ()
    checkpoints_max: int = 20 << 30
    """Bytes."""

    @classmethod
    def load(cls, home: Path) -> Config:
        """Read `home`/config.toml if it is there; raises `UsageError` for what is wrong in it."""
        path = home / FILE
        try:
            data = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError) as error:
            raise UsageError(f"{path} cannot be read: {error}", hint="Mend it, or move it away.") from error
        try:
            return _config(data)
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"{path}: {error}",
                hint="Its tables are [fidelity], [networks], [identities.NAME], [storage] and [checkpoints].",
            ) from error


def _config(data: Mapping[str, Any]) -> Config:
    fidelity = _table(data, "fidelity")
    storage = _table(data, "storage")
    checkpoints = _table(data, "checkpoints")
    _known("", data, {"fidelity", "networks", "identities", "storage", "checkpoints"})
    _known("checkpoints.", checkpoints, {"max"})
    _known("fidelity.", fidelity, {"script_user"})
    _known("storage.", storage, {"endpoints"})
    script_user = fidelity.get("script_user", "service")
    if script_user not in ("service", "login"):
        raise ValueError(f"fidelity.script_user is {script_user!r}: it must be 'service' or 'login'")
    endpoints = storage.get("endpoints", [])
    if not isinstance(endpoints, list) or not all(isinstance(item, str) for item in endpoints):
        raise TypeError("storage.endpoints must be a list of addresses")
    return Config(
        script_user=script_user,
        networks={key.lower(): str(value) for key, value in _table(data, "networks").items()},
        identities={key.lower(): _identity(key, value) for key, value in _table(data, "identities").items()},
        storage_endpoints=tuple(item.rstrip("/") for item in endpoints),
        checkpoints_max=_bytes("checkpoints.max", checkpoints.get("max", "20G")),
    )


def _bytes(name: str, value: object) -> int:
    """`500M` or `20G`, powers of 1024."""
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{name} is {value!r}: it must be a size such as '500M' or '20G'")
    return int(float(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " "))


def _identity(name: str, value: object) -> IdentityConfig:
    if not isinstance(value, dict) or len(value) != 1 or not set(value) <= _TOKEN_KEYS:
        raise ValueError(f"identities.{name} must hold exactly one of {', '.join(sorted(_TOKEN_KEYS))}")
    ((key, text),) = value.items()
    if not isinstance(text, str) or not text:
        raise TypeError(f"identities.{name}.{key} must be a text")
    return IdentityConfig(**{key: text})


def _table(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = data.get(name, {})
    if not isinstance(value, dict):
        raise TypeError(f"{name} must be a table ([{name}])")
    return value


def _known(prefix: str, data: Mapping[str, Any], names: set[str]) -> None:
    if unknown := set(data) - names:
        raise ValueError(f"unknown settings: {', '.join(prefix + name for name in sorted(unknown))}")
