"""Reading `events.jsonl`: while a run writes it, after it was cut off, or years later by a newer or older aib."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from types import UnionType
from typing import Any, BinaryIO, Literal, get_args, get_origin, get_type_hints

from orchestrator.record import events
from orchestrator.record.events import Event, Output, RunFinished, Stamped, Unknown

POLL_SECONDS = 0.1
_CHUNK = 1 << 16
_TYPES: dict[str, type[Any]] = {kind.__name__: kind for kind in get_args(Event) if kind is not Unknown}
_HEAD = ("v", "seq", "time", "elapsed", "type")


def _never() -> bool:
    return False


def read_events(path: Path, *, follow: bool = False, stop: Callable[[], bool] = _never) -> Iterator[Stamped]:
    """The events of a run in order.

    A last line that was cut off and lines that are no events are passed over; unknown types come as `Unknown`.
    With `follow` it goes on waiting for more until `RunFinished` was read or `stop()` is true (asked at least every
    0.1 s; what was written before `stop` turned true is still read). A missing file is an empty run.
    """
    waiting = threading.Event()
    while follow and not path.exists():
        if stop():
            return
        waiting.wait(POLL_SECONDS)
    if not path.exists():
        return
    with path.open("rb") as file:
        rest = b""
        while True:
            ending = not follow or stop()
            for line in _lines(file, rest):
                if not line.endswith(b"\n"):
                    rest = line
                    break
                stamped = parse_line(line)
                if stamped is not None:
                    yield stamped
                    if follow and isinstance(stamped.event, RunFinished):
                        return
            else:
                rest = b""
            if ending:
                break
            waiting.wait(POLL_SECONDS)
        last = parse_line(rest) if rest else None
        if last is not None:
            yield last


def _lines(file: BinaryIO, rest: bytes) -> Iterator[bytes]:
    """Lines up to the end of the file as it is now; the last one may lack its newline."""
    while chunk := file.read(_CHUNK):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line + b"\n"
    if rest:
        yield rest


def parse_line(line: bytes) -> Stamped | None:
    """One line as an event; None when it is none."""
    try:
        data = json.loads(line)
    except ValueError:
        return None
    if not isinstance(data, dict):
        return None
    name, sequence, elapsed = data.get("type"), data.get("seq"), data.get("elapsed")
    if not isinstance(name, str) or not isinstance(sequence, int) or not isinstance(elapsed, int | float):
        return None
    body = {key: value for key, value in data.items() if key not in _HEAD}
    event, extra = _event(name, body)
    return Stamped(sequence, str(data.get("time", "")), float(elapsed), event, extra)


def read_output(run: Path, output: Output) -> bytes:
    """The bytes an `Output` event points at; fewer or none when the step's file is shorter or gone."""
    try:
        with (run / output_name(output.index)).open("rb") as file:
            file.seek(output.offset)
            return file.read(output.length)
    except FileNotFoundError:
        return b""


def output_name(index: int) -> str:
    """The file of a step's output, relative to the run folder."""
    return f"steps/{index:02d}.out"


def _event(name: str, body: dict[str, Any]) -> tuple[Event, dict[str, Any]]:
    kind = _TYPES.get(name)
    if kind is None:
        return Unknown(name, body), {}
    hints = _hints(kind)
    known: dict[str, Any] = {}
    for each in fields(kind):
        if each.name in body:
            value = body[each.name]
            known[each.name] = tuple(value) if isinstance(value, list) else value
            if not _fits(known[each.name], hints[each.name]):
                return Unknown(name, body), {}
        elif each.default is MISSING and each.default_factory is MISSING:
            return Unknown(name, body), {}
    extra = {key: value for key, value in body.items() if key not in known}
    event: Event = kind(**known)
    return event, extra


_HINTS: dict[type[Any], Mapping[str, Any]] = {}


def _hints(kind: type[Any]) -> Mapping[str, Any]:
    if kind not in _HINTS:
        _HINTS[kind] = get_type_hints(kind, vars(events))
    return _HINTS[kind]


def _fits(value: Any, hint: Any) -> bool:
    """Whether a JSON value may stand in a field; words that a newer aib adds to a `Literal` are let through."""
    origin = get_origin(hint)
    if origin is UnionType:
        return any(_fits(value, option) for option in get_args(hint))
    if origin is Literal:
        return isinstance(value, str)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    expected = origin or hint
    return isinstance(expected, type) and isinstance(value, expected)
