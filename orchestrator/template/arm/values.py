"""The values of expressions: plain JSON data, marked stand-ins for what only Azure knows, and the work budget."""

from __future__ import annotations

import json
from typing import Any

from orchestrator.template.arm.expression import ExpressionError

MAX_STRING = 1_048_576  # characters of one value
MAX_ITEMS = 100_000  # elements of one array or members of one object
MAX_WORK = 400_000  # calls plus values made, for one file: about half a second
MAX_MADE = 100_000  # values of all resources of one file together: each of them is checked afterwards


class Unresolved(str):
    """The text of a value that only a deployment in Azure can give, such as `<reference('x').outputs>`.

    It passes through string functions; field checks leave it alone.
    """

    __slots__ = ()

    def member(self, key: object) -> Unresolved:
        """The stand-in for a property of it."""
        inner = self[1:-1]
        return Unresolved(f"<{inner}[{key}]>" if isinstance(key, int) else f"<{inner}.{key}>")


class Budget:
    """Bounds what one file may make us do; a hostile copy loop runs into it instead of into memory.

    `levels` counts the evaluations that are under way inside one another, through variables and parameters too.
    """

    __slots__ = ("left", "levels", "to_make")

    def __init__(self, work: int = MAX_WORK) -> None:
        self.left = work
        self.levels = 0
        self.to_make = MAX_MADE

    def make(self, values: int) -> None:
        """Charges `values` that become part of a resource. Raises ExpressionError when there are too many."""
        self.to_make -= values
        if self.to_make < 0:
            raise ExpressionError(f"the resources hold more than {MAX_MADE:,} values", hint="is there a loop in loops?")

    def spend(self, amount: int = 1) -> None:
        """Raises ExpressionError when there is none left."""
        self.left -= amount
        if self.left < 0:
            raise ExpressionError("expanding this file takes too much work", hint="is there a loop in loops?")

    def measure(self, value: Any) -> None:
        """Spends the size of `value` as a tree: shared parts count as often as they would be written."""
        work = [value]
        while work:
            item = work.pop()
            self.spend(1 + (len(item) // 64 if isinstance(item, str) else 0))
            if isinstance(item, list):
                work.extend(item)
            elif isinstance(item, dict):
                work.extend(item.values())


def check_size(value: Any) -> Any:
    """`value`, or ExpressionError when it is a string or collection beyond all reason."""
    if isinstance(value, str) and len(value) > MAX_STRING:
        raise ExpressionError(f"a string of {len(value)} characters", hint=f"at most {MAX_STRING} are made")
    if isinstance(value, list | dict) and len(value) > MAX_ITEMS:
        raise ExpressionError(f"a collection of {len(value)} items", hint=f"at most {MAX_ITEMS} are made")
    return value


_KINDS = {
    str: "string", Unresolved: "string", bool: "bool", int: "int", float: "float", list: "array", dict: "object",
}  # fmt: skip


def kind(value: Any) -> str:
    """The ARM word for the type of a value."""
    return _KINDS.get(type(value), "null")


def text(value: Any) -> str:
    """What string(), concat() and format() make of a value: JSON for collections, .NET words for booleans."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "True" if value else "False"
    if value is None:
        return ""
    if isinstance(value, list | dict):
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return str(value)
