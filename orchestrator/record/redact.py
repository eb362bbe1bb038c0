"""Secrets out of everything that is kept: values given by name, and the `sig=` of every SAS URL.

Works on bytes, because what a guest prints is bytes; text takes the same way. A stream is redacted across the borders
of its chunks: only the few bytes that could be the beginning of a secret are held back, never a whole line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar
from urllib.parse import quote

REDACTED = b"<redacted>"
SHORTEST_SECRET = 4
"""Shorter values are not redacted: they would blank out half of a log and guard nothing."""
SHORTEST_LINE = 16
"""Lines of a secret of several lines (a private key) that are long enough to be told from ordinary text."""

_SIG_VALUE = rb"[A-Za-z0-9%+/=_.~-]"
_SIG = rb"(?i:sig(?:=|%3d))" + _SIG_VALUE + rb"+"
_SIG_BEGUN = re.compile(rb"(?i:s(?:i(?:g(?:=|%(?:3d?)?)?)?)?)\Z")
_SIG_VALUES = re.compile(_SIG_VALUE + rb"*")
_SIG_NAME = re.compile(rb"(?i:sig(?:=|%3d))")

T = TypeVar("T")


class Redactor:
    """The secrets of one run. Adding a value later works from then on, for streams under way too."""

    def __init__(self, values: Iterable[bytes | str] = ()) -> None:
        self._secrets: tuple[bytes, ...] = ()
        self._pattern = re.compile(_SIG)
        self.add(values)

    def add(self, values: Iterable[bytes | str]) -> None:
        """From now on none of `values` gets through; each also in its percent-encoded and JSON-escaped spelling."""
        known = set(self._secrets)
        for value in values:
            known |= _spellings(value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value)
        # The longest first: a secret that begins with another one must win over it.
        self._secrets = tuple(sorted(known, key=lambda secret: (-len(secret), secret)))
        self._pattern = re.compile(b"|".join([*map(re.escape, self._secrets), _SIG]))

    def clean(self, data: bytes) -> bytes:
        """`data` without its secrets."""
        return self._pattern.sub(_replacement, data) if self.touches(data) else data

    def text(self, text: str) -> str:
        """`text` without its secrets."""
        data = text.encode("utf-8", "surrogatepass")
        return self.clean(data).decode("utf-8", "surrogatepass") if self.touches(data) else text

    def event(self, event: T) -> T:
        """The same dataclass with every string in it cleaned."""
        if not is_dataclass(event) or isinstance(event, type):
            return event
        changed = {}
        for each in fields(event):
            value = getattr(event, each.name)
            cleaned = self._value(value)
            if cleaned != value:
                changed[each.name] = cleaned
        return replace(event, **changed) if changed else event

    def touches(self, data: bytes) -> bool:
        """Whether a secret may be in `data`; plain searches, so that 200 MB of output cost no regular expression."""
        if any(secret in data for secret in self._secrets):
            return True
        lowered = data.lower()
        return b"sig=" in lowered or b"sig%3d" in lowered

    def search(self, data: bytes, start: int) -> re.Match[bytes] | None:
        """The first secret at or after `start`."""
        return self._pattern.search(data, start)

    def begun_at(self, data: bytes, start: int) -> int:
        """Where, at or after `start`, a secret begins that the end of `data` cuts off; `len(data)` when none does."""
        begun = _SIG_BEGUN.search(data, max(start, len(data) - 6))
        first = begun.start() if begun else len(data)
        for secret in self._secrets:
            at = data.find(secret[:1], max(start, len(data) - len(secret) + 1))
            while 0 <= at < first:
                if secret.startswith(data[at:]):
                    first = at
                    break
                at = data.find(secret[:1], at + 1)
        return first

    def _value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {key: self._value(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self._value(item) for item in value)
        return value


class StreamRedactor:
    """One stream of bytes, cleaned chunk by chunk. What it holds back is shorter than the longest secret."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._held = b""
        self._in_signature = False

    def feed(self, data: bytes) -> bytes:
        """What may be shown of everything fed so far and not yet given back."""
        buffer = self._held + data
        self._held = b""
        position = self._skip_signature(buffer)
        begun = self._redactor.begun_at(buffer, position)
        if position == 0 and not self._redactor.touches(buffer):
            self._held = buffer[begun:]
            return buffer[:begun]
        shown: list[bytes] = []
        while match := self._redactor.search(buffer, position):
            if match.start() >= begun:
                break
            shown += [buffer[position : match.start()], _replacement(match)]
            position = match.end()
            # A signature that ends with the chunk goes on in the next one.
            self._in_signature = position == len(buffer) and _SIG_NAME.match(match.group()) is not None
            if position > begun:
                begun = self._redactor.begun_at(buffer, position)
        begun = max(begun, position)
        shown.append(buffer[position:begun])
        self._held = buffer[begun:]
        return b"".join(shown)

    def finish(self) -> bytes:
        """What was held back, now that nothing follows."""
        rest, self._held, self._in_signature = self._held, b"", False
        return self._redactor.clean(rest)

    def _skip_signature(self, buffer: bytes) -> int:
        if not self._in_signature:
            return 0
        match = _SIG_VALUES.match(buffer)
        end = match.end() if match else 0
        self._in_signature = end == len(buffer)
        return end


def _replacement(match: re.Match[bytes]) -> bytes:
    name = _SIG_NAME.match(match.group())
    return (name.group() if name else b"") + REDACTED


def _spellings(secret: bytes) -> set[bytes]:
    lines = [secret.strip()]
    if b"\n" in lines[0]:
        # A key is printed with other line ends, indented or in part: each of its lines is a secret of its own.
        lines = [line.strip() for line in lines[0].splitlines()]
        lines = [line for line in lines if len(line) >= SHORTEST_LINE and not line.startswith(b"-----")]
    spellings = set[bytes]()
    for line in lines:
        if len(line) >= SHORTEST_SECRET:
            escaped = json.dumps(line.decode("utf-8", "replace"))[1:-1]
            spellings |= {line, quote(line, safe="").encode(), escaped.encode()}
    return spellings
