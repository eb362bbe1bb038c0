"""What a client needs to know to use the server instead of the cloud, in the forms that shells and tools read."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping

from orchestrator.service.host.endpoint import CLIENT, Endpoint

ADFS = "adfs"
"""As tenant it makes clients sign in with no look at the public list of clouds (arm-and-guest 4)."""


def variables(endpoint: Endpoint) -> dict[str, str]:
    """Environment variables for Azure's SDKs; our own begin with AIB_.

    The bundle holds the machine's authorities beside ours, so that other addresses are still trusted.
    """
    found = {
        "AIB_ENDPOINT": endpoint.url,
        "AZURE_SUBSCRIPTION_ID": endpoint.subscription,
        "AZURE_AUTHORITY_HOST": endpoint.url,
        "AZURE_TENANT_ID": ADFS,
        "AZURE_CLIENT_ID": CLIENT,
        "AZURE_CLIENT_SECRET": endpoint.secret,
        "IDENTITY_ENDPOINT": f"{endpoint.url}/msi/token",
        "IDENTITY_HEADER": endpoint.secret,
    }
    if endpoint.bundle:
        found |= {"REQUESTS_CA_BUNDLE": endpoint.bundle, "SSL_CERT_FILE": endpoint.bundle}
    return found


def _shell(values: Mapping[str, str]) -> str:
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in values.items())


def _fish(values: Mapping[str, str]) -> str:
    def quoted(value: str) -> str:
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"

    return "".join(f"set -gx {name} {quoted(value)}\n" for name, value in values.items())


def _powershell(values: Mapping[str, str]) -> str:
    def quoted(value: str) -> str:
        return "'" + value.replace("'", "''") + "'"

    return "".join(f"$Env:{name} = {quoted(value)}\n" for name, value in values.items())


def _dotenv(values: Mapping[str, str]) -> str:
    def quoted(value: str) -> str:
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$") + '"'

    return "".join(f"{name}={quoted(value)}\n" for name, value in values.items())


def _github(values: Mapping[str, str]) -> str:
    return "".join(f"{name}={value}\n" for name, value in values.items())


def _pytest(values: Mapping[str, str]) -> str:
    return (
        "import pytest\n\n\n@pytest.fixture(autouse=True)\n"
        "def use_aib(monkeypatch: pytest.MonkeyPatch) -> None:\n"
        '    """Point Azure clients to the running `aib serve`."""\n'
        + "".join(f"    monkeypatch.setenv({name!r}, {value!r})\n" for name, value in values.items())
    )


def _json(values: Mapping[str, str]) -> str:
    return json.dumps(values, indent=2) + "\n"


FORMATS: Mapping[str, Callable[[Mapping[str, str]], str]] = {
    "shell": _shell,
    "fish": _fish,
    "powershell": _powershell,
    "dotenv": _dotenv,
    "json": _json,
    "github": _github,
    "pytest": _pytest,
}
"""Name -> how the variables are written in it; `github` is what goes into the file $GITHUB_ENV."""
