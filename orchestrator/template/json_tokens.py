"""Splits JSON text into tokens, dirty JSON included: nothing is skipped without being reported."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from orchestrator.template.node import UNKNOWN

MAX_NUMBER_LENGTH = 400  # longer than any double or int64 needs; int() of a megabyte of digits takes quadratic time

# Possessive and atomic groups keep every alternative linear in the input.
_TOKEN = re.compile(
    r"""
    [ \t\r\n]*+
    (?:
      (?P<clean>"[^"\\\x00-\x1f]*+")
    | (?P<string>"(?:[^"\\\x00-\x1f]++|\\[^\x00-\x1f])*+")
    | (?P<punctuation>[{}\[\]:,])
    | (?P<number>-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?(?![\w.+-]))
    | (?P<comment>//[^\n\r]*+|/\*(?s:.*?)\*/)
    | (?P<open_comment>/\*)
    | (?P<placeholder><[A-Za-z][^<>"\r\n]{0,80}>)
    | (?P<word>[\w.+-]++)
    )
    """,
    re.VERBOSE,
)
_SPACE = re.compile(r"[ \t\r\n]*+")
_MULTILINE_STRING = re.compile(r'"(?:[^"\\]++|\\(?s:.))*+"')
_REST_OF_LINE = re.compile(r"[^\r\n]*")
_AFTER_STRING = re.compile(r"\s*(?:[,:\]}]|//|/\*|\Z)")
_SAME = re.compile(r"(.)\1*+", re.DOTALL)  # a run of one character
_CONTROL = re.compile(r"[\x00-\x1f]")
_ESCAPE = re.compile(r'\\(?:u([0-9a-fA-F]{4})|(["\\/bfnrt])|(?s:(.))|\Z)')
_SURROGATES = re.compile("[\ud800-\udfff]")
_PLAIN_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_WORDS = {"true": True, "false": False, "null": None}
_QUOTES = "'‘’“”`"

Say = Callable[[bool, str, int, str, str], None]
"""(is it an error, rule, offset, message, hint)"""


class Token(NamedTuple):
    """`kind` is one of `{ } [ ] : ,`, `string`, `value`, `placeholder` or `end`; `value` is already decoded."""

    kind: str
    value: object
    start: int
    end: int


def tokens(text: str, say: Say) -> Iterator[Token]:
    """The tokens of `text`, the last one of kind `end`. What is not JSON goes to `say`."""
    at, size = 0, len(text)
    match = _TOKEN.match
    while at < size:
        found = match(text, at)
        kind = found.lastgroup if found is not None else None
        if found is None or kind is None:
            space = _SPACE.match(text, at)
            at = space.end() if space else at
            if at == size:
                break
            token, at = _odd(text, at, say)
            if token is not None:
                yield token
            continue
        start, at = found.span(kind)
        if kind == "punctuation":
            yield Token(text[start], None, start, at)
        elif kind == "clean":
            yield Token("string", text[start + 1 : at - 1], start, at)
        elif kind == "string":
            yield Token("string", _decode(text, start, at, say), start, at)
        elif kind == "number":
            yield Token("value", _number(found[kind], start, say), start, at)
        elif kind == "placeholder":
            yield Token("placeholder", found[kind], start, at)
        elif kind == "word":
            yield Token("value", _word(found[kind], start, say), start, at)
        elif kind == "comment":
            say(
                False,
                "AIB001",
                start,
                "JSON has no comments",
                "aib and `az deployment` accept them; other tools do not",
            )
        else:
            say(True, "AIB001", start, "the comment is not closed", "close it with */")
            at = size
    yield Token("end", None, size, size)


def _odd(text: str, start: int, say: Say) -> tuple[Token | None, int]:
    """A string that is not well formed, or a character that has no place outside strings."""
    character = text[start]
    if character == '"':
        return _rough_string(text, start, say)
    if character in _QUOTES:
        return _quoted_otherwise(text, start, say)
    run = _SAME.match(text, start)
    end = run.end() if run else start + 1
    name = "the byte order mark" if character == "\ufeff" else f"the character U+{ord(character):04X}"
    if character == "\ufeff" or character.isspace() or not character.isprintable():
        times = f", {end - start:,} times" if end > start + 1 else ""
        say(False, "AIB002", start, f"{name} does not belong between JSON values{times}", "delete it")
        return None, end
    say(True, "AIB001", start, f"unexpected {character!r}", "a value is a string in double quotes, a number, ...")
    return None, start + 1


def _rough_string(text: str, start: int, say: Say) -> tuple[Token, int]:
    """A string that holds raw control characters, or is not closed on its line."""
    found = _MULTILINE_STRING.match(text, start)
    line_end = _REST_OF_LINE.match(text, start)
    end_of_line = line_end.end() if line_end else len(text)
    crosses_line = found is None or found.end() > end_of_line
    if found is None or (crosses_line and not _AFTER_STRING.match(text, found.end())):
        say(True, "AIB001", start, "the string is not closed on its line", 'close it with "')
        return Token("string", UNKNOWN, start, end_of_line), end_of_line
    control = _CONTROL.search(text, start, found.end())
    if control is not None:
        code = ord(control[0])
        say(
            False, "AIB002", control.start(), f"raw control character U+{code:04X} in a string",
            "write a line break as \\n, a tab as \\t; strict JSON tools refuse it",
        )  # fmt: skip
    return Token("string", _decode(text, start, found.end(), say), start, found.end()), found.end()


def _quoted_otherwise(text: str, start: int, say: Say) -> tuple[Token, int]:
    """'single' or typographic quotes: read to the closing one on the line, as a string."""
    closing = {"‘": "’", "“": "”"}.get(text[start], text[start])
    say(True, "AIB001", start, f"strings stand in double quotes, not in {text[start]}", 'use "')
    rest = _REST_OF_LINE.match(text, start)
    end_of_line = rest.end() if rest else len(text)
    end = text.find(closing, start + 1, end_of_line)
    if end < 0:
        return Token("string", UNKNOWN, start, end_of_line), end_of_line
    return Token("string", text[start + 1 : end], start, end + 1), end + 1


def _decode(text: str, start: int, end: int, say: Say) -> str:
    """The string between the quotes at `start` and `end`, escapes resolved."""
    raw = text[start + 1 : end - 1]
    if "\\" not in raw:
        return raw
    try:
        value: str = json.loads(text[start:end], strict=False)
    except ValueError:
        value = _decode_tolerantly(raw, start + 1, say)
    if _SURROGATES.search(value):
        say(
            True,
            "AIB001",
            start,
            "the string holds half of a surrogate pair, which is no character",
            "\\uD83D needs its second half",
        )
        value = _SURROGATES.sub("\ufffd", value)
    return value


def _decode_tolerantly(raw: str, offset: int, say: Say) -> str:
    def one(found: re.Match[str]) -> str:
        if found[1]:
            return chr(int(found[1], 16))
        if found[2]:
            return _PLAIN_ESCAPES[found[2]]
        say(True, "AIB001", offset + found.start(), f"{found[0]} is no JSON escape", "write a backslash as \\\\")
        return found[0]

    return _ESCAPE.sub(one, raw)


def _number(literal: str, start: int, say: Say) -> object:
    if len(literal) > MAX_NUMBER_LENGTH:
        say(True, "AIB001", start, f"a number of {len(literal)} characters", "no field takes such a number")
        return UNKNOWN
    if literal.lstrip("-").isdigit():
        return int(literal)
    value = float(literal)
    if value in (float("inf"), float("-inf")):
        say(True, "AIB001", start, f"{literal} is too large for a number", "no field takes such a number")
        return UNKNOWN
    return value


def _word(word: str, start: int, say: Say) -> object:
    if word in _WORDS:
        return _WORDS[word]
    shown = word if len(word) <= 40 else f"{word[:40]}..."
    if word.lower() in _WORDS:
        say(True, "AIB001", start, f"{shown} is not JSON", f"write {word.lower()}")
        return _WORDS[word.lower()]
    say(True, "AIB001", start, f"{shown} is not a JSON value", f'write "{shown}" for a string')
    return UNKNOWN
