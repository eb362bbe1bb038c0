"""Fixtures that several unit test files share."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.disks import small_disk_in


@pytest.fixture(autouse=True)
def _own_store(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test looks into the store of whoever runs it."""
    monkeypatch.setenv("AIB_HOME", str(tmp_path_factory.getbasetemp() / "no-store"))


Answer = Callable[[BaseHTTPRequestHandler], None]


class WebServer:
    """A web server on a free loopback port; `on` says what a path answers, `seen` what was asked (path, headers)."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.seen: list[tuple[str, dict[str, str]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                outer.seen.append((self.path, dict(self.headers)))
                answer = outer.answers.get(path)
                if answer is None:
                    self.send_error(404)
                else:
                    answer(self)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64  # that many may ask at the same moment

        self.server = Server(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=lambda: self.server.serve_forever(poll_interval=0.02), daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        """`http://127.0.0.1:PORT`."""
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def on(self, path: str, answer: Answer | bytes, **headers: str) -> str:
        """Answer `path` with bytes, or as the function does; returns its URL."""
        if isinstance(answer, bytes):
            body = answer

            def answer(handler: BaseHTTPRequestHandler) -> None:
                handler.send_response(200)
                handler.send_header("Content-Length", str(len(body)))
                for name, value in headers.items():
                    handler.send_header(name.replace("_", "-"), value)
                handler.end_headers()
                handler.wfile.write(body)

        self.answers[path] = answer
        return self.url + path

    def paths(self) -> list[str]:
        """The paths that were asked for, in order."""
        return [path for path, _ in self.seen]


@pytest.fixture
def web() -> Iterator[WebServer]:
    """A `WebServer` that ends with the test."""
    server = WebServer()
    yield server
    server.server.shutdown()
    server.server.server_close()
    server.thread.join()


@pytest.fixture(scope="session")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw disk of 16 MiB as Azure's Debian images are laid out: BIOS boot code, ESP, ext4 root. Not to be changed."""
    return small_disk_in(tmp_path_factory.mktemp("disk"))
