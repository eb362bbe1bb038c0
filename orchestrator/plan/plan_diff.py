"""What differs between two plans (documents of `aib plan --json`): one list of changes. Pure.

`varies` is not compared. Steps are matched by what they do, not by their number or name, so that an inserted step is
one addition; what merely follows a change is said once (`firstRerun`).
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

_NOT_COMPARED = {"kind", "version", "varies", "steps", "downloads"}
_OWN = ("phase", "kind", "settings")
_SHOWN = ("name", "phase", "kind", "settings", "download", "script", "command")

Kind = Literal["added", "removed", "changed", "moved"]
Json = Any


@dataclass(frozen=True, slots=True)
class Change:
    """`where` is a path in the document (`machine.given.vcpus`, `steps[2] install`); `lines` a diff of inline text."""

    kind: Kind
    where: str
    old: Json = None
    new: Json = None
    lines: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Json]:
        """The change as `aib plan --diff --json` prints it."""
        found: dict[str, Json] = {"kind": self.kind, "where": self.where, "old": self.old, "new": self.new}
        return {**found, "lines": list(self.lines)} if self.lines else found


@dataclass(frozen=True, slots=True)
class PlanDiff:
    """All changes, and the index (in the new plan) of the first step that finds another guest than before.

    `first_rerun` is None when no step does: then the two plans make the same image.
    """

    changes: tuple[Change, ...]
    first_rerun: int | None

    def to_json(self) -> dict[str, Json]:
        """What `aib plan --diff --json` prints."""
        return {
            "kind": "RunPlanDiff",
            "version": 1,
            "same": not self.changes,
            "firstRerun": self.first_rerun,
            "changes": [change.to_json() for change in self.changes],
        }


def diff(old: Mapping[str, Json], new: Mapping[str, Json]) -> PlanDiff:
    """The changes from `old` to `new`."""
    changes = list(_values("", _rest(old), _rest(new)))
    changes += _steps(old["steps"], new["steps"])
    return PlanDiff(tuple(changes), _first_rerun(old["steps"], new["steps"]))


def _rest(document: Mapping[str, Json]) -> dict[str, Json]:
    return {key: value for key, value in document.items() if key not in _NOT_COMPARED}


def _values(where: str, old: Json, new: Json) -> Iterator[Change]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in dict.fromkeys((*old, *new)):
            path = f"{where}.{key}" if where else str(key)
            if key not in old:
                yield Change("added", path, new=new[key])
            elif key not in new:
                yield Change("removed", path, old=old[key])
            else:
                yield from _values(path, old[key], new[key])
    elif isinstance(old, list) and isinstance(new, list):
        yield from (Change("removed", where, old=item) for item in old if item not in new)
        yield from (Change("added", where, new=item) for item in new if item not in old)
        if old != new and sorted(map(_key, old)) == sorted(map(_key, new)):
            yield Change("moved", where, old, new)
    elif old != new:
        yield Change("changed", where, old, new)


def _steps(old: Sequence[Mapping[str, Json]], new: Sequence[Mapping[str, Json]]) -> list[Change]:
    before, after = [_own(step) for step in old], [_own(step) for step in new]
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    gone, come = _Pool(), []
    found: list[tuple[int, Change]] = []
    for tag, i, j, k, m in matcher.get_opcodes():
        if tag == "equal":
            pairs = zip(old[i:j], new[k:m], strict=True)
            found += [(b["index"], change) for a, b in pairs for change in _changed(a, b)]
        else:
            gone.add(old[i:j], before[i:j])
            come += list(zip(new[k:m], after[k:m], strict=True))
    for step, own in come:
        other, moved = gone.partner(step, own)
        if other is None:
            found.append((step["index"], Change("added", _name(step), new=_brief(step))))
            continue
        if moved:
            found.append((step["index"], Change("moved", _name(step), other["index"], step["index"])))
        found += [(step["index"], change) for change in _changed(other, step)]
    found += [(step["index"], Change("removed", _name(step), old=_brief(step))) for step in gone.left()]
    return [change for _, change in sorted(found, key=lambda item: item[0])]


class _Pool:
    """Steps of the old plan that are not where they were: each becomes the partner of one new step, or is gone."""

    def __init__(self) -> None:
        self._by_deed: dict[str, list[Mapping[str, Json]]] = {}
        self._by_name: dict[tuple[str, str], list[Mapping[str, Json]]] = {}
        self._left: dict[int, Mapping[str, Json]] = {}

    def add(self, steps: Sequence[Mapping[str, Json]], owns: Sequence[str]) -> None:
        for step, own in zip(steps, owns, strict=True):
            self._by_deed.setdefault(own, []).append(step)
            self._by_name.setdefault((step["name"], step["kind"]), []).append(step)
            self._left[id(step)] = step

    def partner(self, step: Mapping[str, Json], own: str) -> tuple[Mapping[str, Json] | None, bool]:
        """The step that this one was, and whether it moved: the same deed elsewhere, else the same name and kind."""
        for shelf, moved in ((self._by_deed.get(own), True), (self._by_name.get((step["name"], step["kind"])), False)):
            while shelf:
                if (found := self._left.pop(id(shelf.pop(0)), None)) is not None:
                    return found, moved
        return None, False

    def left(self) -> list[Mapping[str, Json]]:
        return list(self._left.values())


def _changed(old: Mapping[str, Json], new: Mapping[str, Json]) -> Iterator[Change]:
    where = _name(new)
    for field in _SHOWN:
        if old[field] == new[field]:
            continue
        before, after = old[field], new[field]
        if field == "settings":
            lines = _line_diff(before.get("inline"), after.get("inline"))
            if lines:
                yield Change("changed", f"{where}: inline", lines=lines)
            yield from _values(f"{where}: settings", _without(before, "inline"), _without(after, "inline"))
        elif field == "script" and old["settings"].get("inline") != new["settings"].get("inline"):
            continue  # said by its lines
        else:
            yield from _values(f"{where}: {field}", before, after)


def _line_diff(old: list[str] | None, new: list[str] | None) -> tuple[str, ...]:
    if old == new:
        return ()
    before, after = "\n".join(old or ()).splitlines(), "\n".join(new or ()).splitlines()
    return tuple(line for line in difflib.unified_diff(before, after, lineterm="", n=1) if line[:3] not in _HEADS)


_HEADS = {"---", "+++"}


def _first_rerun(old: Sequence[Mapping[str, Json]], new: Sequence[Mapping[str, Json]]) -> int | None:
    """The chain's digests are alike up to the first difference, of whatever kind it is."""
    for index, step in enumerate(new):
        if index >= len(old) or old[index]["digest"] != step["digest"]:
            return index
    return None


def _own(step: Mapping[str, Json]) -> str:
    """What the step does, whatever came before it."""
    script = step["script"] or {}
    return _key([*(step[field] for field in _OWN), script.get("sha256", step["download"])])


def _key(value: Json) -> str:
    return json.dumps(value, sort_keys=True)


def _name(step: Mapping[str, Json]) -> str:
    return f"steps[{step['index']}] {step['name']}"


def _brief(step: Mapping[str, Json]) -> dict[str, Json]:
    return {field: step[field] for field in ("kind", "phase", "settings", "download", "command") if step[field]}


def _without(settings: Mapping[str, Json], key: str) -> dict[str, Json]:
    return {name: value for name, value in settings.items() if name != key}
