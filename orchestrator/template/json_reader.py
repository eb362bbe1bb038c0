"""Reads JSON as people really write it into a tree of nodes.

Every value keeps its place. Comments, trailing commas, byte order marks, control characters, duplicate keys, missing
commas and unclosed brackets are diagnostics (AIB001, AIB002), never exceptions, and reading goes on behind them so
that one run shows them all. The parser keeps its own stack: deep nesting ends in a diagnostic, not in a crash.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.template.diagnostics import Edit, Severity
from orchestrator.template.json_strict import TooManyValues, read_strict
from orchestrator.template.json_tokens import Token, tokens
from orchestrator.template.node import UNKNOWN, Node
from orchestrator.template.report import Report
from orchestrator.template.source_text import SourceText

MAX_DEPTH = 200
MAX_VALUES = 100_000
"""In one file; ARM refuses templates beyond 4 MB, and who writes them by hand or by Bicep stays far below."""
MAX_SYNTAX_ERRORS = 50
MAX_SYNTAX_WARNINGS = 50

_CLOSES = {"}": "{", "]": "["}
_VALUES = ("string", "value", "placeholder", "{", "[")


class _GiveUp(Exception):
    """Reading on makes no sense (too deep, too many errors)."""


@dataclass(slots=True)
class _Frame:
    """An open object or array. `key` is the member being read; `state` says what may come next."""

    node: Node
    opener: str  # { or [
    state: str = "first"  # first, key, colon, value, after
    key: Token | None = None


def read(source: SourceText, report: Report) -> Node:
    """The root value of `source`; UNKNOWN where there is none. What is wrong with the text goes to `report`."""
    try:
        return read_strict(source, MAX_DEPTH, MAX_VALUES) or _Reader(source, report).read()
    except TooManyValues as error:
        message = f"more than {MAX_VALUES:,} values: the file was not checked"
        hint = "no template is that large; ARM refuses more than 4 MB"
        report.at_position(Severity.ERROR, "AIB001", source.position(error.offset), message, hint=hint)
        return Node(UNKNOWN, source, 0, 0)


class _Reader:
    def __init__(self, source: SourceText, report: Report) -> None:
        self.source = source
        self.report = report
        self.stack: list[_Frame] = []
        self.root: Node | None = None
        self.counts = {Severity.ERROR: 0, Severity.WARNING: 0}
        self.values = 0
        self.implicit = False  # the text is a fragment: members without the braces around them

    def say(
        self, is_error: bool, rule: str, offset: int, message: str, hint: str = "", *, fix: tuple[Edit, ...] = ()
    ) -> None:
        severity = Severity.ERROR if is_error else Severity.WARNING
        self.counts[severity] += 1
        if not is_error and self.counts[severity] > MAX_SYNTAX_WARNINGS + 1:
            return
        position = self.source.position(offset)
        if not is_error and self.counts[severity] == MAX_SYNTAX_WARNINGS + 1:
            note = f"more than {MAX_SYNTAX_WARNINGS} warnings of JSON syntax: those from here on are not shown"
            self.report.at_position(severity, rule, position, note)
            return
        self.report.at_position(severity, rule, position, message, hint=hint, source="RFC 8259", fix=fix)
        if is_error and self.counts[severity] >= MAX_SYNTAX_ERRORS:
            note = f"more than {MAX_SYNTAX_ERRORS} syntax errors: the rest of the file was not read"
            self.report.at_position(severity, rule, position, note)
            raise _GiveUp

    def read(self) -> Node:
        try:
            for token in tokens(self.source.text, self.say):
                self._take(token)
        except _GiveUp:
            pass
        if self.root is None:
            return Node(UNKNOWN, self.source, 0, 0)
        return self.root

    def _take(self, token: Token) -> None:
        if token.kind == "end":
            self._finish(token)
        elif not self.stack:
            self._take_root(token)
        elif self.stack[-1].opener == "{":
            self._take_in_object(self.stack[-1], token)
        else:
            self._take_in_array(self.stack[-1], token)

    def _take_root(self, token: Token) -> None:
        if self.root is not None and token.kind == ":" and isinstance(self.root.value, str):
            self.say(True, "AIB001", self.root.start, "the text is a fragment", "put { } around it")
            key = Token("string", self.root.value, self.root.start, self.root.end)
            self.root = Node({}, self.source, key.start, token.end)
            self.stack.append(_Frame(self.root, "{", "value", key))
            self.implicit = True
        elif self.root is not None:
            self.say(
                True,
                "AIB001",
                token.start,
                "text after the end of the JSON value",
                "delete it, or check the brackets before it",
            )
            raise _GiveUp
        elif token.kind in _VALUES:
            self.root = self._open_or_scalar(token, None, "")
        else:
            self.say(True, "AIB001", token.start, f"unexpected {token.kind!r}", "a template is one JSON object")

    def _take_in_object(self, frame: _Frame, token: Token) -> None:  # noqa: PLR0912 - the grammar's own cases
        kind = token.kind
        if frame.state in ("first", "key"):
            if kind == "string" or (kind in ("value", "placeholder") and not frame.key):
                self._key(frame, token)
            elif kind == "}":
                if frame.state == "key":
                    self._trailing_comma(frame)
                self._close(token)
            elif kind == ",":
                self.say(True, "AIB001", token.start, "a comma with nothing before it", "delete it")
            else:
                self._wrong(token, "a member's name in double quotes")
        elif frame.state == "colon":
            if kind == ":":
                frame.state = "value"
            elif kind in _VALUES:
                self.say(True, "AIB001", token.start, "a colon is missing before the value", "write name: value")
                self._member(frame, token)
            else:
                self.say(True, "AIB001", token.start, "the member has no value", "write a value after its name")
                self._lost_value(frame, token)
        elif frame.state == "value":
            if kind in _VALUES:
                self._member(frame, token)
            elif kind == ":":
                self.say(True, "AIB001", token.start, "a second colon", "delete it")
            else:
                self.say(True, "AIB001", token.start, "the member has no value", "write a value after the colon")
                self._lost_value(frame, token)
        else:
            self._take_after(frame, token)

    def _take_in_array(self, frame: _Frame, token: Token) -> None:
        kind = token.kind
        if frame.state == "after":
            self._take_after(frame, token)
        elif kind in _VALUES:
            frame.state = "after"
            self._append(frame, token)
        elif kind == "]":
            if frame.state == "key":
                self._trailing_comma(frame)
            self._close(token)
        elif kind == ",":
            self.say(True, "AIB001", token.start, "a comma with nothing before it", "delete it")
        else:
            self._wrong(token, "a value")

    def _take_after(self, frame: _Frame, token: Token) -> None:
        """After a member or element: a comma or the closing bracket."""
        kind = token.kind
        if kind == ",":
            frame.state = "key"
            frame.key = Token(",", None, token.start, token.end) if frame.opener == "[" else frame.key
            frame.node.end = token.start  # where a trailing comma would stand
        elif kind in _CLOSES:
            self._close(token)
        elif kind in _VALUES:
            self.say(
                True, "AIB001", token.start, "a comma is missing before this", "put a comma behind the value before it"
            )
            frame.state = "key"
            self._take(token)
        else:
            self._wrong(token, "a comma or the closing bracket")

    def _key(self, frame: _Frame, token: Token) -> None:
        if token.kind != "string":
            text = self.source.text[token.start : token.end]
            if token.kind == "placeholder" or token.value in (True, False, None):
                self.say(True, "AIB001", token.start, f"the name {text} is not quoted", f'write "{text}"')
            token = Token("string", text, token.start, token.end)
        frame.key = token
        frame.state = "colon"

    def _member(self, frame: _Frame, token: Token) -> None:
        key, members = frame.key, frame.node.value
        assert key is not None  # the states before this one always set it
        name = key.value if isinstance(key.value, str) else f"<unreadable name at {key.start}>"
        frame.state = "after"
        if name in members:
            first = self.source.position(frame.node.keys[name])
            self.say(
                True, "AIB001", key.start, f'the name "{name}" stands twice in this object',
                f"the other one is on line {first.line}; JSON readers silently keep only one of them",
            )  # fmt: skip
            self._open_or_scalar(token, frame.node, name)  # read for its own errors, dropped from the tree
            return
        frame.node.keys[name] = key.start
        members[name] = self._open_or_scalar(token, frame.node, name)

    def _append(self, frame: _Frame, token: Token) -> None:
        elements: list[Node] = frame.node.value
        elements.append(self._open_or_scalar(token, frame.node, len(elements)))

    def _lost_value(self, frame: _Frame, token: Token) -> None:
        self._member(frame, Token("value", UNKNOWN, token.start, token.start))
        self._take_after(frame, token)

    def _open_or_scalar(self, token: Token, parent: Node | None, key: str | int) -> Node:
        self.values += 1
        if self.values > MAX_VALUES:
            raise TooManyValues(token.start)
        if token.kind in ("{", "["):
            if len(self.stack) >= MAX_DEPTH:
                self.say(
                    True,
                    "AIB001",
                    token.start,
                    f"nested deeper than {MAX_DEPTH} levels: the rest was not read",
                    "no template is that deep",
                )
                raise _GiveUp
            node = Node({} if token.kind == "{" else [], self.source, token.start, token.end, parent=parent, key=key)
            self.stack.append(_Frame(node, token.kind))
            return node
        if token.kind == "placeholder":
            value: object = token.value
            return BarePlaceholder(value, self.source, token.start, token.end, parent=parent, key=key)
        return Node(token.value, self.source, token.start, token.end, parent=parent, key=key)

    def _close(self, token: Token) -> None:
        """A closing bracket: closes the innermost frame, or the nearest that fits."""
        wanted = _CLOSES[token.kind]
        if self.stack[-1].opener != wanted:
            opened = self.stack[-1].node
            line = self.source.position(opened.start).line
            shut = "}" if self.stack[-1].opener == "{" else "]"
            self.say(
                True,
                "AIB001",
                token.start,
                f"{token.kind!r} closes nothing here",
                f"the bracket of line {line} wants {shut!r}",
            )
            if not any(frame.opener == wanted for frame in self.stack):
                return
            while self.stack[-1].opener != wanted:
                self.stack.pop().node.end = token.start
        if self.implicit and len(self.stack) == 1:
            return
        self.stack.pop().node.end = token.end

    def _trailing_comma(self, frame: _Frame) -> None:
        at = frame.node.end
        fix = (Edit(at, at + 1, ""),)
        self.say(True, "AIB001", at, "a comma before the closing bracket", "delete the comma", fix=fix)

    def _wrong(self, token: Token, expected: str) -> None:
        if token.kind in _CLOSES:
            self._close(token)
            return
        shown = self.source.text[token.start : token.end][:40]
        self.say(True, "AIB001", token.start, f"unexpected {shown}", f"here stands {expected}")

    def _finish(self, token: Token) -> None:
        if self.root is None:
            self.say(True, "AIB001", 0, "there is no JSON value in it", "a template is one JSON object")
        open_frames = self.stack[1:] if self.implicit else self.stack
        if open_frames:
            innermost = open_frames[-1]
            shut = "}" if innermost.opener == "{" else "]"
            many = f"{len(open_frames)} brackets are" if len(open_frames) > 1 else "a bracket is"
            start = self.source.position(innermost.node.start)
            self.say(
                True,
                "AIB001",
                token.start,
                f"the text ends where {many} still open",
                f"the innermost was opened on line {start.line}: {shut!r} is missing",
            )
        for frame in self.stack:
            frame.node.end = token.end


class BarePlaceholder(Node):
    """`<minutes>` outside quotes: becomes any JSON value when a setting fills it."""

    __slots__ = ()
