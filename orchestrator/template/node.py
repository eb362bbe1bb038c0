"""A JSON value that knows where it was written.

The reader makes a tree of nodes; filling placeholders and expanding expressions make new nodes that keep the place of
what they came from, so that a diagnostic on an expanded value points at what the user typed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from orchestrator.template.diagnostics import Position
from orchestrator.template.source_text import SourceText


class Unknown:
    """A value that could not be known (a syntax error, an open placeholder, a failed expression).

    It was reported where it arose; every later check passes over it instead of complaining again.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN: Final = Unknown()

Value = Any
"""str, int, float, bool, None, UNKNOWN, `list[Node]` or `dict[str, Node]`."""


class Node:
    """One value: `start`/`end` are offsets into `source`; `parent` and `key` give its JSON pointer in the file.

    For an object, `keys` holds the offset of each member's key.
    """

    __slots__ = ("end", "key", "keys", "parent", "source", "start", "value")

    def __init__(
        self,
        value: Value,
        source: SourceText,
        start: int,
        end: int,
        *,
        parent: Node | None = None,
        key: str | int = "",
        keys: dict[str, int] | None = None,
    ) -> None:
        self.value = value
        self.source = source
        self.start = start
        self.end = end
        self.parent = parent
        self.key = key
        self.keys = keys if keys is not None else {}

    def derive(self, value: Value, keys: dict[str, int] | None = None) -> Node:
        """A node with another value at the same place."""
        return Node(value, self.source, self.start, self.end, parent=self.parent, key=self.key, keys=keys)

    @property
    def pointer(self) -> str:
        """The JSON pointer (RFC 6901) of this value in its file."""
        parts: list[str] = []
        node: Node = self
        while node.parent is not None:
            parts.append(escape_pointer(str(node.key)))
            node = node.parent
        return "".join(f"/{part}" for part in reversed(parts))

    @property
    def position(self) -> Position:
        """Where the value starts."""
        return self.source.position(self.start)

    def key_position(self, key: str) -> Position:
        """Where the key of a member starts (the value's place when the key is not known)."""
        offset = self.keys.get(key)
        return self.source.position(offset) if offset is not None else self.position

    @property
    def is_object(self) -> bool:
        return isinstance(self.value, dict)

    @property
    def is_array(self) -> bool:
        return isinstance(self.value, list)

    @property
    def is_known(self) -> bool:
        return self.value is not UNKNOWN

    def get(self, *path: str) -> Node | None:
        """The member at `path`; None where an object or a member is missing or the member is null."""
        node: Node = self
        for key in path:
            found = node.value.get(key) if isinstance(node.value, dict) else None
            if found is None:
                return None
            node = found
        return None if node.value is None else node

    def members(self) -> Iterator[tuple[str, Node]]:
        """The members of an object (nothing for other values)."""
        if isinstance(self.value, dict):
            yield from self.value.items()

    def items(self) -> list[Node]:
        """The elements of an array (nothing for other values)."""
        return self.value if isinstance(self.value, list) else []

    def string(self, *path: str) -> str:
        """The string at `path`, empty when there is none."""
        node = self.get(*path) if path else self
        return node.value if node is not None and isinstance(node.value, str) else ""

    def plain(self) -> Any:
        """The value as ordinary Python data; UNKNOWN becomes None. Iterative on purpose: depth is the user's."""
        box: list[Any] = [None]
        work: list[tuple[Node, Any, Any]] = [(self, box, 0)]
        while work:
            node, target, slot = work.pop()
            if isinstance(node.value, dict):
                fresh: dict[str, Any] = dict.fromkeys(node.value)
                target[slot] = fresh
                work.extend((child, fresh, key) for key, child in node.value.items())
            elif isinstance(node.value, list):
                filled: list[Any] = [None] * len(node.value)
                target[slot] = filled
                work.extend((child, filled, index) for index, child in enumerate(node.value))
            else:
                target[slot] = None if node.value is UNKNOWN else node.value
        return box[0]

    def walk(self) -> Iterator[Node]:
        """This node and everything below it, parents first, in file order."""
        work = [self]
        while work:
            node = work.pop()
            yield node
            if isinstance(node.value, dict):
                work.extend(reversed(node.value.values()))
            elif isinstance(node.value, list):
                work.extend(reversed(node.value))


def escape_pointer(part: str) -> str:
    """One reference token of a JSON pointer."""
    return part.replace("~", "~0").replace("/", "~1")


def kind_of(node: Node) -> str:
    """The JSON word for what a value is, with its article."""
    value = node.value
    if isinstance(value, bool):
        return "a boolean"
    words = {str: "a string", int: "an integer", float: "a number", dict: "an object", list: "an array"}
    return words.get(type(value), "null")
