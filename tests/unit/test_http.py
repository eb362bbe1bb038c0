"""The one door to the network, against a real server on the loopback: every way to fail has its own error."""

from __future__ import annotations

import hashlib
import socket
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from hypervisor.deadline import CancelToken, Deadline
from hypervisor.errors import Cancelled, DeadlineExceeded, InputError
from orchestrator.plan import http
from orchestrator.plan import http_errors as errors
from orchestrator.plan.http_errors import redact_url

QUICK = http.Limits(size=1 << 20, redirects=3, connect=2, silence=5, total=30, attempts=3, backoff=0.01)


@pytest.fixture
def deadline() -> Deadline:
    return Deadline.after(60, "the test")


def fetch(url: str, target: Path, deadline: Deadline, **options) -> http.Downloaded:
    return http.download(url, target, deadline=deadline, **{"limits": QUICK, **options})


def reply(handler: BaseHTTPRequestHandler, status: int, body: bytes = b"", **headers: str) -> None:
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body)))
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def test_a_file_arrives_whole_with_its_checksum(web, tmp_path, deadline) -> None:
    url = web.on("/a.sh", b"echo hi\n")
    steps: list[tuple[int, int | None]] = []
    done = fetch(url, tmp_path / "a", deadline, progress=lambda n, total: steps.append((n, total)))
    assert (tmp_path / "a").read_bytes() == b"echo hi\n"
    assert done.size == 8
    assert done.sha256 == hashlib.sha256(b"echo hi\n").hexdigest()
    assert steps[-1] == (8, 8)
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_404_says_so_at_once(web, tmp_path, deadline) -> None:
    with pytest.raises(errors.NotFound, match=r"404 Not Found") as caught:
        fetch(web.url + "/nothing", tmp_path / "a", deadline)
    assert caught.value.exit_code == 4
    assert len(web.seen) == 1
    assert not list(tmp_path.iterdir())


def test_403_quotes_azures_error_code(web, tmp_path, deadline) -> None:
    url = web.on("/b", lambda h: reply(h, 403, b"", x_ms_error_code="AuthorizationFailure"))
    with pytest.raises(errors.NotAuthorized, match="AuthorizationFailure"):
        fetch(url, tmp_path / "a", deadline)


def test_refused(tmp_path, deadline) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(errors.ConnectionRefused, match="refused the connection"):
            fetch(f"http://127.0.0.1:{port}/x", tmp_path / "a", deadline)


def test_unknown_host(tmp_path, deadline) -> None:
    with pytest.raises(errors.UnknownHost, match=r"nowhere\.invalid does not resolve"):
        fetch("http://nowhere.invalid/x", tmp_path / "a", deadline)


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/x", "http://", "https:///x", "no address", "http://[::1/x"])
def test_not_an_address(url, tmp_path, deadline) -> None:
    with pytest.raises(errors.BadAddress):
        fetch(url, tmp_path / "a", deadline)


def test_tls_to_a_plain_server(web, tmp_path, deadline) -> None:
    with pytest.raises(errors.TlsFailed):
        fetch(web.url.replace("http:", "https:") + "/x", tmp_path / "a", deadline)


def test_a_busy_server_is_asked_again(web, tmp_path, deadline) -> None:
    web.on("/busy", lambda h: reply(h, 503) if len(web.seen) < 3 else reply(h, 200, b"now"))
    assert fetch(web.url + "/busy", tmp_path / "a", deadline).size == 3
    assert len(web.seen) == 3


def test_a_broken_server_is_given_up(web, tmp_path, deadline) -> None:
    web.on("/broken", lambda h: reply(h, 500))
    with pytest.raises(errors.BadStatus, match="500"):
        fetch(web.url + "/broken", tmp_path / "a", deadline)
    assert len(web.seen) == QUICK.attempts


def test_a_server_that_says_nothing(web, tmp_path, deadline) -> None:
    hold = threading.Event()
    web.on("/mute", lambda _: hold.wait(20) and None)
    limits = http.Limits(silence=0.2, attempts=1)
    with pytest.raises(errors.TooSlow, match="sent nothing for"):
        fetch(web.url + "/mute", tmp_path / "a", deadline, limits=limits)
    hold.set()


def trickle(hold: threading.Event):
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        while not hold.wait(0.02):
            try:
                handler.wfile.write(b"x")
            except OSError:
                break
        handler.close_connection = True

    return answer


def test_a_trickle_ends_at_the_limit_for_one_file(web, tmp_path, deadline) -> None:
    hold = threading.Event()
    url = web.on("/trickle", trickle(hold))
    with pytest.raises(errors.TooSlow, match=r"the 0\.3 s for one file is used up"):
        fetch(url, tmp_path / "a", deadline, limits=http.Limits(total=0.3, silence=5))
    hold.set()
    assert not list(tmp_path.iterdir())


def test_looking_up_a_name_has_a_limit_too(tmp_path, deadline, monkeypatch) -> None:
    hold = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: hold.wait(600))
    with pytest.raises(errors.TooSlow):
        fetch("http://name.invalid/x", tmp_path / "a", deadline, limits=http.Limits(total=0.2))
    hold.set()


def test_the_budget_and_a_cancel_are_not_called_slow_servers(web, tmp_path) -> None:
    hold = threading.Event()
    url = web.on("/trickle", trickle(hold))
    with pytest.raises(DeadlineExceeded):
        fetch(url, tmp_path / "a", Deadline.after(0.3, "the budget"))
    token = CancelToken()
    threading.Timer(0.2, token.cancel).start()
    with pytest.raises(Cancelled):
        fetch(url, tmp_path / "a", Deadline.after(30, "the budget", token))
    hold.set()


@pytest.mark.parametrize("begun", [False, True])
def test_a_cancel_does_not_wait_for_a_mute_server(web, tmp_path, begun) -> None:
    hold = threading.Event()

    def mute(handler: BaseHTTPRequestHandler) -> None:
        if begun:
            handler.send_response(200)
            handler.send_header("Content-Length", "100")
            handler.end_headers()
            handler.wfile.write(b"x")
        hold.wait(600)
        handler.close_connection = True

    token = CancelToken()
    threading.Timer(0.3, token.cancel).start()
    patient = http.Limits(silence=600, total=600)
    with pytest.raises(Cancelled):
        fetch(web.on("/mute", mute), tmp_path / "a", Deadline.after(600, "the budget", token), limits=patient)
    hold.set()


def test_redirects_are_followed_but_not_for_ever(web, tmp_path, deadline) -> None:
    web.on("/end", b"there")
    once = web.on("/once", lambda h: reply(h, 302, Location="/end"))
    assert fetch(once, tmp_path / "a", deadline).size == 5
    loop = web.on("/loop", lambda h: reply(h, 302, Location="/loop"))
    with pytest.raises(errors.BadRedirect, match="more than 3 redirects"):
        fetch(loop, tmp_path / "b", deadline)
    nonsense = web.on("/nonsense", lambda h: reply(h, 302, Location="http://[::1/x"))
    with pytest.raises(errors.BadRedirect, match="no address"):
        fetch(nonsense, tmp_path / "b", deadline)
    away = web.on("/away", lambda h: reply(h, 302, Location="file:///etc/passwd"))
    with pytest.raises(errors.BadRedirect, match="no http"):
        fetch(away, tmp_path / "b", deadline)


def test_the_body_of_a_redirect_is_not_read(web, tmp_path, deadline) -> None:
    hold = threading.Event()
    web.on("/end", b"there")

    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", "/end")
        handler.send_header("Content-Length", "1000000")
        handler.end_headers()
        hold.wait(600)
        handler.close_connection = True

    assert fetch(web.on("/start", endless), tmp_path / "a", deadline, limits=http.Limits(silence=600)).size == 5
    hold.set()


def test_credentials_do_not_follow_to_another_host(web, tmp_path, deadline) -> None:
    web.on("/end", b"there")
    elsewhere = web.url.replace("127.0.0.1", "localhost") + "/end"
    url = web.on("/start", lambda h: reply(h, 302, Location=elsewhere))
    fetch(url, tmp_path / "a", deadline, headers={"Authorization": "Bearer abcdefghijkl"})
    assert [("Authorization" in headers) for _, headers in web.seen] == [True, False]


def test_too_large_announced_or_not(web, tmp_path, deadline) -> None:
    small = http.Limits(size=10)
    with pytest.raises(errors.TooLarge, match="limit of 10 bytes"):
        fetch(web.on("/big", b"x" * 11), tmp_path / "a", deadline, limits=small)

    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(b"x" * 100)
        handler.close_connection = True

    with pytest.raises(errors.TooLarge):
        fetch(web.on("/endless", endless), tmp_path / "a", deadline, limits=small)
    assert not list(tmp_path.iterdir())


def cut_after(data: bytes, count: int, **headers: str):
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(data[:count])
        handler.wfile.flush()
        handler.close_connection = True

    return answer


def test_truncated(web, tmp_path, deadline) -> None:
    with pytest.raises(errors.Truncated):
        fetch(web.on("/cut", cut_after(b"0123456789", 4)), tmp_path / "a", deadline)
    assert len(web.seen) == QUICK.attempts
    assert not list(tmp_path.iterdir())


def ranged(data: bytes, etag: str):
    def answer(handler: BaseHTTPRequestHandler) -> None:
        asked = handler.headers.get("Range", "")
        if asked and handler.headers.get("If-Range") == etag:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            spec = f"bytes {start}-{len(data) - 1}/{len(data)}"
            return reply(handler, 206, data[start:], ETag=etag, Content_Range=spec)
        return reply(handler, 200, data, ETag=etag)

    return answer


def test_a_later_call_continues_what_an_earlier_one_left(web, tmp_path, deadline) -> None:
    data, target = b"0123456789" * 10, tmp_path / "disk"
    url = web.on("/disk", cut_after(data, 60, ETag='"v1"'))
    with pytest.raises(errors.Truncated):
        fetch(url, target, deadline, resume=True, limits=http.Limits(attempts=1))
    web.on("/disk", ranged(data, '"v1"'))
    done = fetch(url, target, deadline, resume=True, expected={"sha512": hashlib.sha512(data).hexdigest()})
    assert target.read_bytes() == data
    assert done.size == 100
    assert web.seen[-1][1]["Range"] == "bytes=60-"
    assert [p.name for p in tmp_path.iterdir()] == ["disk"]


def test_a_part_of_another_version_is_never_continued(web, tmp_path, deadline) -> None:
    old, new, target = b"a" * 100, b"b" * 90, tmp_path / "disk"
    url = web.on("/disk", cut_after(old, 60, ETag='"v1"'))
    with pytest.raises(errors.Truncated):
        fetch(url, target, deadline, resume=True, limits=http.Limits(attempts=1))
    web.on("/disk", ranged(new, '"v2"'))
    fetch(url, target, deadline, resume=True)
    assert target.read_bytes() == new


def test_wrong_checksum_publishes_nothing(web, tmp_path, deadline) -> None:
    with pytest.raises(errors.ChecksumMismatch) as caught:
        fetch(web.on("/a", b"other"), tmp_path / "a", deadline, expected={"sha256": "0" * 64})
    assert "0" * 64 in caught.value.message
    assert hashlib.sha256(b"other").hexdigest() in caught.value.message
    assert not list(tmp_path.iterdir())


def test_read_is_for_small_texts(web, deadline) -> None:
    url = web.on("/SHA256SUMS", b"abc  file\n")
    assert http.read(url, deadline=deadline, limits=QUICK) == b"abc  file\n"
    with pytest.raises(InputError):
        http.read(url, deadline=deadline, limits=http.Limits(size=3))


def test_no_secret_in_any_message(web, tmp_path, deadline) -> None:
    url = web.url.replace("http://", "http://user:hunter22@") + "/nothing?sv=2020&sig=SeCrEt%2Bvalue%3D&se=1"
    with pytest.raises(errors.NotFound) as caught:
        fetch(url, tmp_path / "a", deadline)
    text = str(caught.value) + caught.value.hint + caught.value.url
    assert "SeCrEt" not in text
    assert "hunter22" not in text
    assert "sig=<redacted>&se=1" in text


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("https://a/b?sig=x%3D&sp=r", "https://a/b?sig=<redacted>&sp=r"),
        ("http://me:pw@host/x", "http://<redacted>@host/x"),
        ("Authorization: Bearer eyJhbGciOi.x.y", "Authorization: Bearer <redacted>"),
        ("https://a/b?design=x", "https://a/b?design=x"),
    ],
)
def test_redact_url(text, clean) -> None:
    assert redact_url(text) == clean


def test_loopback_never_goes_through_a_proxy(web, tmp_path, deadline, monkeypatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert fetch(web.on("/a", b"x"), tmp_path / "a", deadline).size == 1


def test_a_proxy_of_the_environment_is_used(web, tmp_path, deadline, monkeypatch) -> None:
    monkeypatch.setenv("http_proxy", web.url)
    monkeypatch.setenv("no_proxy", "")
    web.answers["http://elsewhere.invalid/a"] = lambda h: reply(h, 200, b"proxied")
    assert fetch("http://elsewhere.invalid/a", tmp_path / "a", deadline).size == 7
