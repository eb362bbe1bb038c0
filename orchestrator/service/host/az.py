"""The user's own Azure CLI, pointed to the server: a configuration folder of its own, registered and signed in once."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from hypervisor import process
from hypervisor.deadline import Deadline
from hypervisor.errors import HostError
from orchestrator.record import files, locks
from orchestrator.service.host.endpoint import CLIENT, Endpoint, ServeFolder

CLOUD = "AibLocal"
SIGN_IN_SECONDS = 300.0
"""For the four calls of a sign-in; az takes a second or two for each, and half a minute the very first time."""
_DROPPED = ("AZURE_", "ARM_", "IDENTITY_", "MSI_")
"""Of the caller's environment: it may speak of the cloud."""
_KEPT = ("AZURE_DEFAULTS_", "AZURE_CORE_")


def prepare(folder: ServeFolder, endpoint: Endpoint, say: Callable[[str], None]) -> Path:
    """The user's az, after this process's environment was made to lead it to the server: `become` it next.

    The first call registers the cloud and signs in. `AIB_AZ` names another az than the one that PATH finds. Raises
    `HostError` when there is none, when the server speaks plain HTTP (az signs in over HTTPS alone), or when az
    cannot sign in.
    """
    az = _find(os.environ)
    if not endpoint.ca:
        raise HostError("az cannot sign in over plain HTTP", hint="start the server without --http")
    for name in [name for name in os.environ if name.startswith(_DROPPED) and not name.startswith(_KEPT)]:
        del os.environ[name]
    os.environ |= {
        "AZURE_CONFIG_DIR": str(folder.az),
        "AZURE_CORE_INSTANCE_DISCOVERY": "false",
        "AZURE_CORE_COLLECT_TELEMETRY": "false",
        "AZURE_CORE_SURVEY_MESSAGE": "false",
        "REQUESTS_CA_BUNDLE": endpoint.bundle,
    }
    folder.az.mkdir(mode=0o700, parents=True, exist_ok=True)
    done = folder.az / "aib-signed-in.json"
    wanted = {"az": str(az), "url": endpoint.url, "of": _digest(endpoint)}
    with locks.locked(folder.path / "az.lock", exclusive=True):
        if files.read_json(done) != wanted:
            say("Registering the server with az and signing in (once) ...")
            _sign_in(az, folder, endpoint)
            files.publish_json(done, wanted)
    return az


def _find(environment: Mapping[str, str]) -> Path:
    named = environment.get("AIB_AZ", "")
    found = shutil.which(named or "az", path=environment.get("PATH"))
    if found is None:
        raise HostError(
            f"there is no Azure CLI: {named} cannot be run" if named else "there is no Azure CLI (az) on PATH",
            hint="install it (`pip install azure-cli` in an environment of its own, or your distribution's package); "
            "AIB_AZ=/path/to/az names one that is not on PATH",
        )
    return Path(found)


def _digest(endpoint: Endpoint) -> str:
    """Changes when the sign-in must be done anew."""
    facts = [endpoint.subscription, endpoint.tenant, endpoint.secret, endpoint.bundle]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _sign_in(az: Path, folder: ServeFolder, endpoint: Endpoint) -> None:
    deadline = Deadline.after(SIGN_IN_SECONDS, "the time az gets to sign in")
    shutil.rmtree(folder.az, ignore_errors=True)
    folder.az.mkdir(mode=0o700)
    secret = folder.az / "secret"
    files.publish(secret, endpoint.secret.encode())
    steps = (
        ("cloud", "register", "--name", CLOUD, "--endpoint-resource-manager", endpoint.url),
        ("cloud", "set", "--name", CLOUD),
        # By a file: a command line can be read by everybody on this machine.
        ("login", "--service-principal", "--username", CLIENT, "--password", f"@{secret}",
         "--tenant", endpoint.tenant),
        ("account", "set", "--subscription", endpoint.subscription),
    )  # fmt: skip
    for step in steps:
        argv = [str(az), *step, "--output", "none", "--only-show-errors"]
        try:
            process.run(argv, deadline=deadline)
        except process.ProcessError as error:
            said = error.stderr.decode(errors="replace").strip()
            raise HostError(
                f"az {step[0]} {step[1]} failed: {said or error.message}", hint="is `aib serve` still running?"
            ) from error
    secret.unlink()


def become(az: Path, arguments: Sequence[str]) -> NoReturn:
    """Run az in place of this process: the terminal, signals and the exit code are its own."""
    os.execv(az, [str(az), *arguments])  # noqa: S606 -- argv, no shell
