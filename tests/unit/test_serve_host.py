"""What a server has beside its application: certificates, the folder that tells where it answers, variables."""

from __future__ import annotations

import contextlib
import datetime
import json
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509

from hypervisor.errors import HostError, InputError
from orchestrator.service.host import certificates, environment
from orchestrator.service.host.endpoint import Endpoint, ServeFolder, write_secret
from orchestrator.service.host.listen import Listen, bind

HERE = Endpoint("https://127.0.0.1:8443", "/h/ca.pem", "/h/it's $HOME.pem", "sub", "ten", token="t'o\"k$en\\")


def shake_hands(ca: Path, made: certificates.Certificates, name: str) -> None:
    """One TLS handshake in memory, with the name checked as clients do."""
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(made.chain, made.key)
    client_context = ssl.create_default_context(cafile=str(ca))
    client_context.verify_flags |= ssl.VERIFY_X509_STRICT
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server, server_hostname=name)
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(8):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                pass
    assert client.version() is not None
    assert client.getpeercert()


def test_clients_that_trust_the_authority_trust_the_server(tmp_path: Path) -> None:
    made = certificates.ensure(tmp_path / "serve", ["build.example"])
    for name in ("127.0.0.1", "::1", "localhost", "build.example"):
        shake_hands(made.ca, made, name)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(made.ca, made, "elsewhere.example")
    other = certificates.ensure(tmp_path / "other")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(other.ca, made, "localhost")


def test_private_keys_are_private_and_stay(tmp_path: Path) -> None:
    made = certificates.ensure(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.[pk]e[my]")}
    assert set(before) == {"ca.key", "ca.pem", "server.key", "server.pem"}
    for key in (made.key, tmp_path / "ca.key"):
        assert key.stat().st_mode & 0o777 == 0o600
        key.chmod(0o644)
    again = certificates.ensure(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.[pk]e[my]")} == before
    assert again.key.stat().st_mode & 0o777 == 0o600


def test_the_certificate_is_renewed_and_the_authority_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pair() -> tuple[bytes, bytes]:
        return (tmp_path / "ca.pem").read_bytes(), (tmp_path / "server.pem").read_bytes()

    made = certificates.ensure(tmp_path)
    first = pair()
    certificates.ensure(tmp_path, ["10.0.0.7"])
    named = pair()
    assert named[0] == first[0]
    assert named[1] != first[1]
    monkeypatch.setattr(certificates, "RENEW_DAYS", certificates.LEAF_DAYS + 1)
    monkeypatch.setattr(certificates._ends_soon, "__defaults__", (certificates.LEAF_DAYS + 1,))
    certificates.ensure(tmp_path, ["10.0.0.7"])
    renewed = pair()
    assert renewed[0] == first[0]
    assert renewed[1] != named[1]
    shake_hands(made.ca, made, "10.0.0.7")


@pytest.mark.parametrize("lost", ["ca.key", "ca.pem", "server.key", "server.pem"])
@pytest.mark.parametrize("how", ["removed", "emptied", "another's"])
def test_what_is_damaged_is_made_anew(tmp_path: Path, lost: str, how: str) -> None:
    certificates.ensure(tmp_path)
    if how == "removed":
        (tmp_path / lost).unlink()
    elif how == "emptied":
        (tmp_path / lost).write_bytes(b"")
    else:
        certificates.ensure(tmp_path / "another")
        (tmp_path / "another" / lost).replace(tmp_path / lost)
    made = certificates.ensure(tmp_path)
    shake_hands(made.ca, made, "127.0.0.1")


def test_no_certificate_outlives_its_authority(tmp_path: Path) -> None:
    made = certificates.ensure(tmp_path)
    leaf, authority = x509.load_pem_x509_certificates(made.chain.read_bytes())
    assert leaf.not_valid_after_utc < authority.not_valid_after_utc
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc < datetime.timedelta(days=399)


def test_small_answers_are_sent_at_once() -> None:
    """asyncio turns Nagle's algorithm off for sockets that say they are TCP, and only for them."""
    with contextlib.closing(bind(Listen(port=0))) as listener:
        with socket.create_connection(listener.getsockname()):
            accepted, _ = listener.accept()
        with accepted:
            assert accepted.proto == socket.IPPROTO_TCP


def test_one_server_a_home(tmp_path: Path) -> None:
    folder = ServeFolder(tmp_path)
    with pytest.raises(InputError, match="no server is running"):
        folder.running()
    with folder.held():
        folder.tell(HERE)
        assert folder.running() == HERE
        with pytest.raises(HostError, match=r"running already at https://127\.0\.0\.1:8443"), folder.held():
            raise AssertionError("two servers")
        assert folder.running() == HERE, "a refused server takes nothing away"
    with pytest.raises(InputError) as caught:
        folder.running()
    assert "aib serve" in caught.value.hint


def test_a_killed_server_is_not_running(tmp_path: Path) -> None:
    folder = ServeFolder(tmp_path)
    with folder.held():
        folder.tell(HERE)
        left = (folder.path / "endpoint.json").read_bytes()
    (folder.path / "endpoint.json").write_bytes(left)
    with pytest.raises(InputError):
        folder.running()


def test_what_servers_tell_is_private(tmp_path: Path) -> None:
    folder = ServeFolder(tmp_path)
    with folder.held():
        folder.tell(HERE)
        assert (folder.path / "endpoint.json").stat().st_mode & 0o077 == 0
        assert folder.path.stat().st_mode & 0o077 == 0
        write_secret(tmp_path / "token")
        assert (tmp_path / "token").stat().st_mode & 0o077 == 0


def test_shells_read_the_variables_as_they_are() -> None:
    values = environment.variables(HERE)
    assert values["AIB_ENDPOINT"] == HERE.url
    script = environment.FORMATS["shell"](values) + "env -0"
    done = subprocess.run(["/bin/sh", "-c", script], capture_output=True, check=True)
    seen = dict(line.split("=", 1) for line in done.stdout.decode().split("\0") if "=" in line)
    assert {name: seen[name] for name in values} == values
    assert json.loads(environment.FORMATS["json"](values)) == values
    dotenv = environment.FORMATS["dotenv"](values).splitlines()
    assert {line.partition("=")[0] for line in dotenv} == set(values)
    assert 'AZURE_CLIENT_SECRET="t\'o\\"k\\$en\\\\"' in dotenv
    assert f"set -gx AIB_ENDPOINT '{HERE.url}'\n" in environment.FORMATS["fish"](values)
    assert "$Env:REQUESTS_CA_BUNDLE = '/h/it''s $HOME.pem'\n" in environment.FORMATS["powershell"](values)


def test_the_fixture_for_conftest_works(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(environment.FORMATS["pytest"](environment.variables(HERE)))
    expected = f"assert os.environ['AZURE_CLIENT_SECRET'] == {HERE.token!r}"
    (tmp_path / "test_it.py").write_text(f"import os\n\n\ndef test_it():\n    {expected}\n")
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert "1 passed" in done.stdout, done.stdout
