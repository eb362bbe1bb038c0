"""A RunPlan as JSON and back: what `plan.json` holds and the worker process reads.

Signatures of SAS tokens are not written, wherever they stand: payloads are found by their digest, never fetched again.
An inline line that held one is therefore not complete in the file; the digests still tell that it is another line.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

from hypervisor.errors import HostError
from orchestrator.plan.model import RunPlan
from orchestrator.record.redact import Redactor
from orchestrator.template.model import ManagedImageTarget, SharedImageTarget, VhdTarget

VERSION = 1
_CLEAN = Redactor()
_TARGETS: dict[str, type] = {"ManagedImage": ManagedImageTarget, "SharedImage": SharedImageTarget, "VHD": VhdTarget}
_TARGET_NAMES = {cls: name for name, cls in _TARGETS.items()}


def to_json(plan: RunPlan) -> dict[str, Any]:
    """The plan as plain JSON data, without secrets."""
    return {"version": VERSION, **plain(plan)}


def from_json(data: Mapping[str, Any]) -> RunPlan:
    """The plan that `to_json` wrote; raises `HostError` for anything else."""
    if data.get("version") != VERSION:
        raise HostError(
            f"plan.json has version {data.get('version')!r}, this aib reads {VERSION}",
            hint="It was written by another version of aib.",
        )
    try:
        plan = _typed(RunPlan, {key: value for key, value in data.items() if key != "version"})
    except (KeyError, TypeError, ValueError) as error:
        raise HostError(f"plan.json is damaged: {error}", hint="Plan the template again.") from error
    assert isinstance(plan, RunPlan)
    return plan


def plain(value: Any) -> Any:
    """Dataclasses to dictionaries, tuples to lists, paths to text; distributors say their `type`; no SAS signature."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        kind = _TARGET_NAMES.get(type(value))
        return {"type": kind, **fields} if kind else fields
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return _CLEAN.text(str(value)) if isinstance(value, str | Path) else value


def _typed(kind: Any, value: Any) -> Any:
    """Build a value of the annotated type `kind` from JSON data; raises TypeError, ValueError or KeyError."""
    if kind is Any or kind is object:
        return value
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _dataclass(kind, value)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is typing.Literal:
        if value not in arguments:
            raise ValueError(f"{value!r} is none of {', '.join(map(str, arguments))}")
        return value
    if origin in (typing.Union, types.UnionType):
        return _union(arguments, value)
    if origin is tuple:
        _expect(isinstance(value, list), kind, value)
        items = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
        return tuple(_typed(item, each) for item, each in zip(items, value, strict=True))
    if origin is not None and issubclass(origin, Mapping):
        _expect(isinstance(value, Mapping), kind, value)
        return {key: _typed(arguments[1], item) for key, item in value.items()}
    if kind is Path:
        return Path(value)
    if kind is float:
        return float(value)
    _expect(isinstance(value, kind) and not (kind is int and isinstance(value, bool)), kind, value)
    return value


def _dataclass(kind: type, value: Any) -> Any:
    _expect(isinstance(value, Mapping), kind, value)
    hints = typing.get_type_hints(kind)
    given = {name: item for name, item in value.items() if name != "type" or kind not in _TARGET_NAMES}
    if unknown := set(given) - set(hints):
        raise ValueError(f"unknown fields of {kind.__name__}: {', '.join(sorted(unknown))}")
    return kind(**{name: _typed(hints[name], item) for name, item in given.items()})


def _union(arguments: tuple[Any, ...], value: Any) -> Any:
    if value is None and type(None) in arguments:
        return None
    kinds = [kind for kind in arguments if kind is not type(None)]
    if all(kind in _TARGET_NAMES for kind in kinds):
        return _typed(_TARGETS[value["type"]], value)
    if len(kinds) == 1:
        return _typed(kinds[0], value)
    raise TypeError(f"cannot tell which of {kinds} {value!r} is")


def _expect(right: bool, kind: Any, value: Any) -> None:
    if not right:
        raise TypeError(f"expected {getattr(kind, '__name__', kind)}, found {type(value).__name__}")
