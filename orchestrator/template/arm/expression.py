"""Parses ARM template expressions, `[concat(parameters('a'), '-x')]`, into a small tree.

    expression = primary { "." name | ".?" name | "[" expression "]" | "[?" expression "]" }
    primary    = string | integer | name [ "." name ] "(" [ expression { "," expression } ] ")"

Strings stand in single quotes, doubled inside. Offsets count from the opening bracket, so that a diagnostic can point
into the string of the template.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import NoReturn

MAX_DEPTH = 60
MAX_LENGTH = 24_576  # characters; ARM's own limit for one expression


class ExpressionError(Exception):
    """An expression that cannot be read or evaluated; `offset` is where in it, `hint` what to do."""

    def __init__(self, message: str, offset: int = 0, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.offset = offset
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Literal:
    value: str | int
    offset: int


@dataclass(frozen=True, slots=True)
class Call:
    """A function call; `name` as written, with the namespace of a user's function before a dot."""

    name: str
    arguments: tuple[Expression, ...]
    offset: int


@dataclass(frozen=True, slots=True)
class Access:
    """`base.key` or `base[key]`; `safe` (`.?`, `[?`) gives null where there is no such key."""

    base: Expression
    key: Expression
    safe: bool
    offset: int


Expression = Literal | Call | Access

_TOKEN = re.compile(
    r"(?P<space>\s+)|(?P<string>'(?:[^']++|'')*+')|(?P<number>-?[0-9]++)|(?P<name>[A-Za-z_][A-Za-z0-9_]*+)"
    r"|(?P<mark>\.\?|\[\?|[().,\[\]])"
)


def is_expression(text: str) -> bool:
    """Whether ARM would evaluate this string: it stands in brackets, and not in doubled ones."""
    return text.startswith("[") and text.endswith("]") and not text.startswith("[[")


def literal(text: str) -> str:
    """The string meant by one that is no expression: `[[x]` is the escape for `[x]`."""
    return text[1:] if text.startswith("[[") and text.endswith("]") else text


def parse(text: str) -> Expression:
    """The tree of an expression with its brackets. Raises ExpressionError."""
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"the expression has {len(text)} characters, ARM allows {MAX_LENGTH}")
    return _parse_short(text) if len(text) < 400 else _parse(text)


@lru_cache(maxsize=1024)  # templates repeat their expressions, and many templates are checked in one call
def _parse_short(text: str) -> Expression:
    return _parse(text)


def _parse(text: str) -> Expression:
    parser = _Parser(text, _tokens(text))
    tree = parser.expression(0)
    parser.expect_end()
    return tree


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    offset: int


def _tokens(text: str) -> list[_Token]:
    found: list[_Token] = []
    at, end = 1, len(text) - 1
    while at < end:
        match = _TOKEN.match(text, at, end)
        if match is None:
            what = "the string is not closed" if text[at] == "'" else f"unexpected {text[at]!r}"
            raise ExpressionError(what, at, "a literal that begins with [ is written [[")
        if match.lastgroup != "space":
            kind = match[0] if match.lastgroup == "mark" else str(match.lastgroup)
            found.append(_Token(kind, match[0], at))
        at = match.end()
    found.append(_Token("end", "", end))
    return found


class _Parser:
    def __init__(self, text: str, tokens: list[_Token]) -> None:
        self.text = text
        self.tokens = tokens
        self.at = 0

    def peek(self) -> _Token:
        return self.tokens[self.at]

    def take(self, kind: str, what: str) -> _Token:
        token = self.peek()
        if token.kind != kind:
            self.fail(token, what)
        self.at += 1
        return token

    def fail(self, token: _Token, wanted: str) -> NoReturn:
        shown = repr(token.text) if token.text else "the end"
        hint = "a literal that begins with [ is written [["
        raise ExpressionError(f"expected {wanted} instead of {shown}", token.offset, hint)

    def expect_end(self) -> None:
        if self.peek().kind != "end":
            self.fail(self.peek(), "the end of the expression")

    def expression(self, depth: int) -> Expression:
        if depth > MAX_DEPTH:
            raise ExpressionError(f"nested deeper than {MAX_DEPTH} calls", self.peek().offset)
        tree = self.primary(depth)
        while self.peek().kind in (".", ".?", "[", "[?"):
            mark = self.tokens[self.at]
            self.at += 1
            safe = mark.kind.endswith("?")
            if mark.kind.startswith("."):
                name = self.take("name", "a property's name")
                tree = Access(tree, Literal(name.text, name.offset), safe, mark.offset)
            else:
                key = self.expression(depth + 1)
                self.take("]", "']'")
                tree = Access(tree, key, safe, mark.offset)
        return tree

    def primary(self, depth: int) -> Expression:
        token = self.peek()
        self.at += 1
        if token.kind == "string":
            return Literal(token.text[1:-1].replace("''", "'"), token.offset)
        if token.kind == "number":
            if len(token.text) > 20:
                raise ExpressionError("the number is too large", token.offset)
            return Literal(int(token.text), token.offset)
        if token.kind != "name":
            self.at -= 1
            self.fail(token, "a function, a string in single quotes, or a number")
        name = token.text
        if self.peek().kind == "." and self.tokens[self.at + 1].kind == "name":
            name = f"{name}.{self.tokens[self.at + 1].text}"
            self.at += 2
        self.take("(", f"'(' after {name}")
        return Call(name, tuple(self.arguments(depth)), token.offset)

    def arguments(self, depth: int) -> list[Expression]:
        found: list[Expression] = []
        if self.peek().kind == ")":
            self.at += 1
            return found
        while True:
            found.append(self.expression(depth + 1))
            if self.peek().kind == ")":
                self.at += 1
                return found
            self.take(",", "',' or ')'")
