"""Addresses that a template of somebody else must not make us speak to."""

from __future__ import annotations

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from hypervisor.deadline import Deadline
from hypervisor.errors import InputError
from orchestrator.plan import http, http_guard
from orchestrator.plan.config import Config
from orchestrator.plan.credentials import Credentials
from orchestrator.plan.fetch import Allowed, Fetcher, Wanted, is_local
from orchestrator.plan.fetched_store import FetchedStore
from orchestrator.plan.http_guard import NotAllowed, is_public
from tests.unit.conftest import WebServer

PUBLIC_ONLY = http.Limits(public_only=True, attempts=1, connect=2.0)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254",
        "168.63.129.16", "100.64.0.1", "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1%eth0", "fd00::1",
        "ff02::1", "::ffff:127.0.0.1", "2002:7f00:0001::", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "nonsense", "",
    ],
)  # fmt: skip
def test_what_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "20.60.1.2", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"])
def test_what_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]"])
def test_loopback_is_not_spoken_to_however_it_is_written(web: WebServer, host: str, tmp_path: Path) -> None:
    web.on("/x.sh", b"echo")
    port = web.server.server_address[1]
    with pytest.raises(NotAllowed, match="private network"):
        http.download(f"http://{host}:{port}/x.sh", tmp_path / "x", deadline=Deadline.after(10), limits=PUBLIC_ONLY)
    assert web.seen == [] and not (tmp_path / "x").exists()


def test_a_name_that_turns_private_at_the_connection_is_refused(
    web: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second answer of a name server may be another one: the connection itself is looked at, too."""
    web.on("/x.sh", b"echo")
    port = web.server.server_address[1]
    answers = [[(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("1.1.1.1", 0))]]
    real = socket.getaddrinfo

    def resolve(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host != "turning.example":
            return real(host, *args, **kwargs)
        return answers.pop() if answers else real("127.0.0.1", port, type=socket.SOCK_STREAM)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(NotAllowed, match=r"127\.0\.0\.1"):
        http.download(
            f"http://turning.example:{port}/x.sh", tmp_path / "x", deadline=Deadline.after(10), limits=PUBLIC_ONLY
        )
    assert web.seen == []


def test_a_redirect_to_loopback_is_not_followed(
    web: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = web.on("/secret", b"secret")

    class Redirect(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", secret)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    # A public host that another loopback address plays: the redirect leads from it to the real loopback.
    real = is_public
    monkeypatch.setattr(http_guard, "is_public", lambda address: address == "127.0.0.9" or real(address))
    with ThreadingHTTPServer(("127.0.0.9", 0), Redirect) as server:
        threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02), daemon=True).start()
        url = f"http://127.0.0.9:{server.server_address[1]}/there"
        with pytest.raises(NotAllowed, match="/secret"):
            http.download(url, tmp_path / "x", deadline=Deadline.after(10), limits=PUBLIC_ONLY)
        server.shutdown()
    assert web.seen == []


def fetcher(home: Path, allowed: Allowed, base: Path) -> Fetcher:
    deadline = Deadline.after(10)
    credentials = Credentials((), Config(), deadline)
    return Fetcher(FetchedStore(home), base, credentials, deadline, allowed=allowed)


def wanted(uri: str) -> Wanted:
    return Wanted(uri, "", "/properties/customize/0", "Shell")


def test_local_paths_stay_below_the_allowed_folders(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    for folder in (inside, outside):
        folder.mkdir()
        (folder / "x.sh").write_text("echo\n")
    (inside / "link.sh").symlink_to(outside / "x.sh")
    only = fetcher(tmp_path / "home", Allowed(roots=(inside,)), inside)
    assert only.fetch(wanted("x.sh")).size == 5
    assert only.fetch(wanted((inside / "x.sh").as_uri())).size == 5
    for uri in ("../out/x.sh", str(outside / "x.sh"), (outside / "x.sh").as_uri(), "link.sh", "/etc/passwd"):
        with pytest.raises(InputError, match="local paths are not allowed"):
            only.fetch(wanted(uri))
    with pytest.raises(InputError, match="local paths are not allowed"):
        fetcher(tmp_path / "home", Allowed(roots=()), inside).fetch(wanted("x.sh"))


def test_the_guard_counts_for_scripts(web: WebServer, tmp_path: Path) -> None:
    uri = web.on("/x.sh", b"echo")
    assert fetcher(tmp_path, Allowed(), tmp_path).fetch(wanted(uri)).size == 4
    with pytest.raises(InputError, match="private network"):
        fetcher(tmp_path, Allowed(roots=(), private=False), tmp_path).fetch(wanted(uri))


@pytest.mark.parametrize("uri", ["x.sh", "/etc/passwd", "file:///etc/passwd", "FILE:///x", "c:\\x", "file:x"])
def test_what_counts_as_local(uri: str) -> None:
    assert is_local(uri) == ("://" not in uri or uri.lower().startswith("file:"))
    assert not is_local("https://x/y")
