"""`aib serve`, `aib env` and `aib az` as commands: what they say, how they refuse, how they end."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.contract.served import AIB, Served, aib, clean_environment, served

SUBSCRIPTION = "00000000-0000-0000-0000-000000000000"
AZ = """#!/bin/sh
echo "$AZURE_CONFIG_DIR|$REQUESTS_CA_BUNDLE|${AZURE_CLIENT_SECRET-none}|$*" >> "$AZ_LOG"
case "$*" in
  login*) [ -z "$AZ_REFUSES" ] || { echo "ERROR: no such tenant" >&2; exit 1; } ;;
  "show exit 7") exit 7 ;;
esac
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("serve") / "home") as running:
        yield running


def test_it_answers_over_tls_that_its_authority_vouches_for(server: Served) -> None:
    health = server.get("/_aib/health").json()
    assert (health["status"], health["pid"]) == ("ok", server.process.pid)
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(server.url, timeout=10)


def test_what_env_says_signs_in(server: Served) -> None:
    known = server.environment
    form = {"grant_type": "client_credentials", "scope": "x/.default"}
    form |= {"client_id": known["AZURE_CLIENT_ID"], "client_secret": known["AZURE_CLIENT_SECRET"]}
    address = f"{known['AZURE_AUTHORITY_HOST']}/{known['AZURE_TENANT_ID']}/oauth2/v2.0/token"
    answer = requests.post(address, data=form, verify=known["REQUESTS_CA_BUNDLE"], timeout=10)
    assert answer.json()["token_type"] == "Bearer"


def test_one_server_a_home(server: Served) -> None:
    done = server.aib("serve", "--port", "0")
    assert done.returncode == 3
    assert f"is running already at {server.url}" in done.stderr
    assert server.get("/_aib/health").status_code == 200


def test_a_taken_port_is_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = aib(tmp_path, "serve", "--port", str(port))
    assert (done.returncode, f"cannot listen on 127.0.0.1:{port}" in done.stderr) == (3, True)
    assert "--port 0" in done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--listen", "0.0.0.0"), "--token-file FILE"),
        (("--listen", "0.0.0.0", "--http", "--token-file", "t"), "readable on the network"),
        (("--listen", "build.example"), "not an IP address"),
        (("--token-file", "short"), "at least 16"),
        (("--allow-local", "nowhere"), "nowhere"),
    ],
    ids=["no-token", "http", "name", "short-token", "no-folder"],
)
def test_what_would_let_others_in_is_refused(tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    (tmp_path / "short").write_text("guess me")
    done = subprocess.run(
        [AIB, "serve", "--port", "0", *options], cwd=tmp_path, env=clean_environment(tmp_path / "home"),
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 64, done.stderr
    assert said in done.stderr


def test_with_a_token_only_who_knows_it_gets_in(tmp_path: Path) -> None:
    token_file = tmp_path / "token"
    with served(tmp_path / "home", "--listen", "0.0.0.0", "--token-file", token_file) as server:
        token = token_file.read_text().strip()
        assert token_file.stat().st_mode & 0o077 == 0
        assert server.environment["AZURE_CLIENT_SECRET"] == token
        assert server.get("/_aib/health").status_code == 200
        for path in ("/", "/ui", "/ui/runs/latest", "/ui/assets/live.js"):
            answer = requests.get(server.url + path, verify=server.ca, timeout=10, allow_redirects=False)
            assert answer.status_code == 401, path
            assert answer.headers["WWW-Authenticate"].startswith("Basic ")
            for said in (token, "guess"):
                answer = requests.get(server.url + path, verify=server.ca, timeout=10, auth=("me", said))
                assert (answer.status_code == 401) == (said == "guess"), path


def test_plain_http_when_asked(tmp_path: Path) -> None:
    with served(tmp_path / "home", http=True) as server:
        assert server.url.startswith("http://127.0.0.1:")
        assert requests.get(f"{server.url}/_aib/health", timeout=10).json()["status"] == "ok"
        assert "REQUESTS_CA_BUNDLE" not in json.loads(server.aib("env", "--format", "json").stdout)
        assert server.aib("az", "version").returncode == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_also_while_a_client_is_slow(tmp_path: Path, number: int) -> None:
    with served(tmp_path / "home", http=True) as server, socket.socket() as idle:
        idle.connect(("127.0.0.1", int(server.url.rpartition(":")[2])))
        idle.send(b"GET /_aib/health HTTP/1.1\r\nHost: 127.0.0.1\r\n")  # a request that never ends
        server.process.send_signal(number)
        assert server.process.wait(20) == 0
    assert not (tmp_path / "home/serve/endpoint.json").exists()
    done = aib(tmp_path / "home", "env")
    assert (done.returncode, "no server is running" in done.stderr) == (4, True)


def test_tokens_and_certificates_outlive_a_killed_server(tmp_path: Path) -> None:
    home, form = tmp_path / "home", {"grant_type": "client_credentials", "client_id": "me", "client_secret": "x"}
    with served(home) as server:
        token = requests.post(f"{server.url}/t/oauth2/token", data=form, verify=server.ca, timeout=10).json()
        before = (home / "serve/server.pem").read_bytes()
        server.process.kill()
        server.process.wait()
    assert "no server is running" in aib(home, "env").stderr
    with served(home) as server:
        assert (home / "serve/server.pem").read_bytes() == before
        path = f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.VirtualMachineImages/locations/x/operations/y"
        answer = server.get(f"{path}?api-version=2024-02-01", Authorization=f"Bearer {token['access_token']}")
        assert answer.json()["error"]["code"] == "OperationNotFound"


def test_a_throw_away_server_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "t"))
    with served(tmp_path / "home", "--in-memory") as server:
        assert server.get("/_aib/health").json()["inMemory"] is True
        assert len(list((tmp_path / "t").iterdir())) == 1
    assert not list((tmp_path / "t").iterdir())
    with served(tmp_path / "home", "--in-memory") as server:
        server.process.kill()
        server.process.wait()
    assert len(list((tmp_path / "t").iterdir())) == 1
    with served(tmp_path / "home", "--in-memory"):
        assert len(list((tmp_path / "t").iterdir())) == 1, "what a killed one left goes"


def test_each_request_is_shown_without_its_query(tmp_path: Path) -> None:
    with served(tmp_path / "home", "--requests", http=True) as server:
        requests.get(f"{server.url}/_aib/health?sig=secret", timeout=10)
    said = (tmp_path / "home-serve.log").read_text()
    assert "GET '/_aib/health' -> 200" in said
    assert "secret" not in said


@pytest.fixture
def fake_az(tmp_path: Path) -> Path:
    """Stands in for az where only what aib asks of it counts; it writes down how it was called."""
    (tmp_path / "bin").mkdir()
    az = tmp_path / "bin" / "az"
    az.write_text(AZ)
    az.chmod(0o755)
    return az


def test_az_is_signed_in_once_and_runs_in_our_place(server: Served, fake_az: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    environment = {**clean_environment(server.home), "AIB_AZ": str(fake_az), "AZ_LOG": str(log)}
    environment |= {"AZURE_CLIENT_SECRET": "of the cloud"}

    def az(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        argv = [AIB, "az", *words]
        return subprocess.run(argv, env={**environment, **more}, capture_output=True, text=True, check=False)

    refused = az("group", "list", AZ_REFUSES="1")
    assert (refused.returncode, "no such tenant" in refused.stderr) == (3, True)
    log.unlink()
    assert az("group", "list", "--output", "table", "-h").returncode == 0
    assert az("show", "exit", "7").returncode == 7
    calls = [line.split("|") for line in log.read_text().splitlines()]
    assert {call[0] for call in calls} == {str(server.home / "serve/az")}
    assert {call[1] for call in calls} == {str(server.home / "serve/bundle.pem")}
    assert {call[2] for call in calls} == {"none"}
    words = [call[3].split(" --only")[0].split()[:2] for call in calls]
    assert words[:4] == [["cloud", "register"], ["cloud", "set"], ["login", "--service-principal"], ["account", "set"]]
    assert [call[3] for call in calls[4:]] == ["group list --output table -h", "show exit 7"]
    assert not list((server.home / "serve/az").glob("secret*"))


def test_az_that_is_missing_or_has_no_server_is_said(server: Served, tmp_path: Path) -> None:
    environment = {**clean_environment(server.home), "AIB_AZ": "/nowhere/az"}
    done = subprocess.run([AIB, "az", "version"], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, "/nowhere/az cannot be run" in done.stderr) == (3, True)
    done = aib(tmp_path / "other", "az", "version")
    assert (done.returncode, "aib serve" in done.stderr) == (4, True)


def test_many_start_at_once_and_one_serves(tmp_path: Path) -> None:
    codes: list[int] = []

    def start() -> None:
        argv = [AIB, "serve", "--port", "0"]
        with subprocess.Popen(argv, env=clean_environment(tmp_path), stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            if process.stdout.readline():
                process.send_signal(signal.SIGTERM)
            codes.append(process.wait(60))

    threads = [threading.Thread(target=start) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0 in codes
    assert set(codes) <= {0, 3}
    assert (tmp_path / "serve/ca.key").exists()
