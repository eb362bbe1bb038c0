"""Private blobs against Azurite, an implementation of Azure Storage that is not ours: SAS tokens and bearer tokens.

Azurite comes from npm into pytest's cache, once per version. Its certificate and its account key are made for the test.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import hmac
import ipaddress
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlencode

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from hypervisor.deadline import Deadline
from orchestrator.plan import http
from orchestrator.plan.config import Config, IdentityConfig
from orchestrator.plan.credentials import AUDIENCE, Credentials
from orchestrator.plan.fetch import Fetcher, InputUnavailable, Wanted
from orchestrator.plan.fetched_store import FetchedStore
from orchestrator.plan.http_errors import NotAuthorized, NotFound

pytestmark = [pytest.mark.azurite, pytest.mark.xdist_group("azurite")]  # one installation serves all its tests

VERSION = "3.34.0"
MAIN = Path("node_modules/azurite/dist/src/blob/main.js")
ACCOUNT = "contoso"
IDENTITY = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/builder"
SCRIPT = b"#!/bin/sh\necho private\n"
SAS_VERSION = "2019-12-12"


@dataclass(frozen=True)
class Azurite:
    """A running Azurite with the private blob `scripts/a.sh`."""

    endpoint: str
    key: bytes
    certificate: Path

    @property
    def blob(self) -> str:
        return f"{self.endpoint}/scripts/a.sh"

    def sign(self, *fields: str) -> str:
        return base64.b64encode(hmac.digest(self.key, "\n".join(fields).encode(), hashlib.sha256)).decode()

    def account_sas(self) -> str:
        """May do everything: it prepares the test."""
        expiry = moment(minutes=10)
        signature = self.sign(ACCOUNT, "rwc", "b", "sco", "", expiry, "", "https", SAS_VERSION, "")
        return urlencode(
            {"sp": "rwc", "ss": "b", "srt": "sco", "se": expiry, "spr": "https", "sv": SAS_VERSION, "sig": signature}
        )

    def blob_sas(self, minutes: int = 10) -> str:
        """May read the one blob."""
        expiry, resource = moment(minutes=minutes), f"/blob/{ACCOUNT}/scripts/a.sh"
        signature = self.sign("r", "", expiry, resource, "", "", "https", SAS_VERSION, "b", "", "", "", "", "", "")
        return urlencode({"sp": "r", "se": expiry, "spr": "https", "sv": SAS_VERSION, "sr": "b", "sig": signature})


def moment(**later: int) -> str:
    return (datetime.now(UTC) + timedelta(**later)).strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.fixture(scope="module")
def program(pytestconfig: pytest.Config) -> Path:
    """The installed program; installing takes some 20 seconds, once."""
    folder = Path(pytestconfig.cache.mkdir(f"azurite-{VERSION}"))
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "installed").exists():
            npm = shutil.which("npm")
            assert npm, "npm is not installed: make setup does it, or `apt-get install npm`"
            command = [npm, "install", "--prefix", folder, "--no-audit", "--no-fund", "--no-save", "--ignore-scripts"]
            done = subprocess.run(
                [*command, f"azurite@{VERSION}"], check=False, capture_output=True, text=True, cwd=folder, timeout=600
            )
            assert done.returncode == 0, done.stderr
            (folder / "installed").touch()
    return folder / MAIN


@pytest.fixture(scope="module")
def azurite(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    work = tmp_path_factory.mktemp("azurite")
    key = os.urandom(32)
    certificate = make_certificate(work)
    argv = ["node", program, "--blobHost", "127.0.0.1", "--blobPort", "0", "--inMemoryPersistence"]
    argv += ["--disableTelemetry", "--oauth", "basic", "--cert", certificate, "--key", work / "key.pem"]
    environment = {**os.environ, "AZURITE_ACCOUNTS": f"{ACCOUNT}:{base64.b64encode(key).decode()}"}
    with (work / "log").open("wb") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log, env=environment, cwd=work)
    try:
        running = Azurite(f"{wait_for_address(process, work / 'log')}/{ACCOUNT}", key, certificate)
        prepare(running)
        yield running
    finally:
        process.terminate()
        process.wait(timeout=20)


def wait_for_address(process: subprocess.Popen[bytes], log: Path) -> str:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        if match := re.search(r"successfully listens on (https://\S+)", log.read_text()):
            return match[1]
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)
    raise AssertionError(log.read_text())


def prepare(azurite: Azurite) -> None:
    verify = str(azurite.certificate)
    sas = azurite.account_sas()
    made = requests.put(f"{azurite.endpoint}/scripts?restype=container&{sas}", verify=verify, timeout=30)
    assert made.status_code == 201, made.text
    headers = {"x-ms-blob-type": "BlockBlob"}
    sent = requests.put(f"{azurite.blob}?{sas}", data=SCRIPT, headers=headers, verify=verify, timeout=30)
    assert sent.status_code == 201, sent.text


def make_certificate(folder: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "storage of a test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(pem))
    return folder / "certificate.pem"


def token(audience: str = AUDIENCE) -> str:
    """A token of the shape that the service issues; Azurite checks its claims, not its signature."""
    now = int(time.time())
    claims = {"aud": audience, "iss": "https://sts.windows.net/0/", "iat": now - 60, "nbf": now - 60, "exp": now + 600}
    header = {"alg": "RS256", "typ": "JWT"}
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in (header, claims)]
    return ".".join([*parts, "c2lnbmF0dXJl"])


def fetcher(azurite: Azurite, home: Path, given: str = "", *, identity: bool = True) -> Fetcher:
    deadline = Deadline.after(60, "the test")
    mapped = {"builder": IdentityConfig(token_env="TOKEN")} if given else {}
    config = Config(identities=mapped, storage_endpoints=(azurite.endpoint,))
    identities = (IDENTITY,) if identity else ()
    credentials = Credentials(identities, config, deadline, {"TOKEN": given})
    limits = http.Limits(attempts=2, backoff=0.01)
    return Fetcher(FetchedStore(home), home, credentials, deadline, limits=limits)


def want(uri: str) -> Wanted:
    return Wanted(uri, hashlib.sha256(SCRIPT).hexdigest(), "/properties/customize/0", "Shell 'private'")


@pytest.fixture(autouse=True)
def trust(azurite: Azurite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(azurite.certificate))


def test_a_sas_token_reads_the_blob(azurite: Azurite, tmp_path: Path) -> None:
    payload = fetcher(azurite, tmp_path).fetch(want(f"{azurite.blob}?{azurite.blob_sas()}"))
    assert payload.path.read_bytes() == SCRIPT
    assert payload.uri == azurite.blob


def test_the_sas_token_wins_over_the_identity(azurite: Azurite, tmp_path: Path) -> None:
    wrong = token("https://management.azure.com/")
    assert fetcher(azurite, tmp_path, wrong).fetch(want(f"{azurite.blob}?{azurite.blob_sas()}")).size == len(SCRIPT)


@pytest.mark.parametrize("spoil", ["tampered", "expired"])
def test_a_bad_sas_token_is_refused_and_not_shown(azurite: Azurite, tmp_path: Path, spoil: str) -> None:
    sas = azurite.blob_sas(minutes=-10 if spoil == "expired" else 10)
    if spoil == "tampered":
        sas = sas.replace("sp=r&", "sp=rw&")
    with pytest.raises(InputUnavailable) as caught:
        fetcher(azurite, tmp_path).fetch(want(f"{azurite.blob}?{sas}"))
    assert isinstance(caught.value.cause, NotAuthorized)
    assert "Not authorized to access the resource" in caught.value.hint
    assert sas.rpartition("sig=")[2] not in caught.value.message + caught.value.hint


def test_the_mapped_identity_reads_the_blob(azurite: Azurite, tmp_path: Path) -> None:
    assert fetcher(azurite, tmp_path, token()).fetch(want(azurite.blob)).path.read_bytes() == SCRIPT


@pytest.mark.parametrize("identity", [True, False])
def test_a_private_blob_without_a_credential_says_what_to_do(azurite: Azurite, tmp_path: Path, identity: bool) -> None:
    with pytest.raises(InputUnavailable) as caught:
        fetcher(azurite, tmp_path, identity=identity).fetch(want(azurite.blob))
    assert isinstance(caught.value.cause, NotAuthorized | NotFound)
    assert ("[identities.builder]" if identity else "has no identity") in caught.value.hint


def test_a_token_for_something_else_is_refused_before_it_is_sent(azurite: Azurite, tmp_path: Path) -> None:
    with pytest.raises(InputUnavailable, match=r"is for https://management\.azure\.com/") as caught:
        fetcher(azurite, tmp_path, token("https://management.azure.com/")).fetch(want(azurite.blob))
    assert caught.value.exit_code == 4


def test_a_token_that_the_server_refuses(azurite: Azurite, tmp_path: Path) -> None:
    with pytest.raises(InputUnavailable) as caught:
        fetcher(azurite, tmp_path, "opaque-and-wrong").fetch(want(azurite.blob))
    assert isinstance(caught.value.cause, NotAuthorized)


def test_the_certificate_must_be_known(azurite: Azurite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    with pytest.raises(InputUnavailable, match="TLS") as caught:
        fetcher(azurite, tmp_path, token()).fetch(want(azurite.blob))
    assert "REQUESTS_CA_BUNDLE" in caught.value.hint
