"""A small HTTP load generator: many clients at once that each ask the same thing again and again."""

from __future__ import annotations

import asyncio
import ssl
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Load:
    """Seconds of each answer, and answers a second in all."""

    seconds: tuple[float, ...]
    rate: float

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def p95(self) -> float:
        return statistics.quantiles(self.seconds, n=20)[18]


@dataclass(frozen=True)
class Asked:
    """One request. `keep`: over one connection for each client, else over a new one each time."""

    url: str
    headers: Mapping[str, str]
    method: str = "GET"
    body: bytes = b""
    keep: bool = True
    trust: str = ""

    def to_bytes(self) -> bytes:
        parts = urlsplit(self.url)
        head = {
            "Host": parts.netloc,
            "Connection": "keep-alive" if self.keep else "close",
            **({"Content-Length": str(len(self.body))} if self.body else {}),
            **self.headers,
        }
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        lines = [f"{self.method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in head.items())]
        return "\r\n".join([*lines, "", ""]).encode() + self.body


def load(asked: Asked, clients: int, seconds: float) -> Load:
    """Ask for so long; every answer must be 200."""
    return asyncio.run(_load(asked, clients, seconds))


async def _load(asked: Asked, clients: int, seconds: float) -> Load:
    begun = time.monotonic()
    end = begun + seconds
    taken: list[float] = []
    await asyncio.gather(*(_client(asked, end, taken) for _ in range(clients)))
    return Load(tuple(taken), len(taken) / (time.monotonic() - begun))


async def _client(asked: Asked, end: float, taken: list[float]) -> None:
    parts = urlsplit(asked.url)
    secure = ssl.create_default_context(cafile=asked.trust) if parts.scheme == "https" else None
    request = asked.to_bytes()
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
    while time.monotonic() < end:
        started = time.perf_counter()
        if connection is None:
            connection = await asyncio.open_connection(parts.hostname, parts.port, ssl=secure)
        reader, writer = connection
        writer.write(request)
        stays = await _answer(reader)
        taken.append(time.perf_counter() - started)
        if not (stays and asked.keep):
            writer.close()
            connection = None
    if connection is not None:
        connection[1].close()


async def _answer(reader: asyncio.StreamReader) -> bool:
    """Read one answer whole; whether the connection stays open."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    status, *lines = head.split("\r\n")
    if " 200 " not in status + " ":
        raise ValueError(f"{head}{await reader.read(2000)!r}")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines) if name}
    if "content-length" in headers:
        await reader.readexactly(int(headers["content-length"]))
    else:
        await reader.read()
        return False
    closes = headers.get("connection", "").lower() == "close"
    return status.startswith("HTTP/1.1") and not closes
