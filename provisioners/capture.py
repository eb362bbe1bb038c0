"""Keeping the end of what a guest prints without keeping all of it."""

from __future__ import annotations

from provisioners.communicators.base import OutputCallback, Stream


class Capture:
    """An output callback that keeps the last `limit` bytes of each stream and passes everything on."""

    def __init__(self, limit: int, forward: OutputCallback | None = None) -> None:
        self._limit = limit
        self._forward = forward
        self._kept: dict[Stream, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}

    def __call__(self, stream: Stream, data: bytes) -> None:
        """Take `data` as it comes."""
        kept = self._kept[stream]
        kept += data[-self._limit :]
        if len(kept) > self._limit:
            del kept[: len(kept) - self._limit]
        if self._forward is not None:
            self._forward(stream, data)

    @property
    def text(self) -> str:
        """The end of stdout; undecodable bytes are replaced."""
        return self._kept["stdout"].decode(errors="replace")

    @property
    def error_text(self) -> str:
        """The end of stderr."""
        return self._kept["stderr"].decode(errors="replace")

    @property
    def raw(self) -> bytes:
        """The end of stdout as it came."""
        return bytes(self._kept["stdout"])
