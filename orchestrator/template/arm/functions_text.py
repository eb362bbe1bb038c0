"""String, number and date functions. Facts: ARM template functions reference, unless a comment says otherwise."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, unquote, urljoin

from orchestrator.template.arm.expression import ExpressionError
from orchestrator.template.arm.values import MAX_STRING, check_size, kind, text

_GUID_SPACE = "11fb06fb-712d-4ddd-98c7-e71bbd588830"
_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
_FLOAT = re.compile(r"[+-]?[0-9]{1,30}(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,2})?")
_HOLE = re.compile(r"\{\{|\}\}|\{(\d{1,4})(?:,(-?\d{1,4}))?(?::([^{}]*))?\}|[{}]")


def want(value: Any, wanted: str, what: str) -> Any:
    """`value` when it has the ARM type `wanted` (several separated by |)."""
    found = kind(value)
    if found != wanted and found not in wanted.split("|"):
        raise ExpressionError(f"{what} must be {wanted.replace('|', ' or ')}, not {kind(value)}")
    return value


def text_of(value: Any, what: str = "the argument") -> str:
    """`value` when it is a string."""
    found: str = want(value, "string", what)
    return found


def whole(value: Any, what: str = "the argument") -> int:
    """`value` when it is an integer that fits 64 bits."""
    found: int = want(value, "int", what)
    if abs(found) >= 2**63:
        raise ExpressionError(f"{what} does not fit 64 bits")
    return found


def unique_string(*parts: Any) -> str:
    """13 letters and digits that depend on the parts. Azure's own hash is not published: a documented stand-in."""
    import hashlib  # few expressions pay for it

    digest = hashlib.sha256("\0".join(text(part) for part in parts).encode()).digest()
    return "".join(_ALPHABET[byte % 32] for byte in digest[:13])


def guid(*parts: Any) -> str:
    """A version 5 UUID of the parts; Azure's namespace is not confirmed: a documented stand-in."""
    import uuid  # few expressions pay for it

    return str(uuid.uuid5(uuid.UUID(_GUID_SPACE), "-".join(text(part) for part in parts)))


def substring(value: Any, start: Any, length: Any = None) -> str:
    string, first = text_of(value), whole(start, "the start")
    end = len(string) if length is None else first + whole(length, "the length")
    if first < 0 or end < first or end > len(string):
        raise ExpressionError(f"substring {first}..{end} lies outside a string of {len(string)} characters")
    return string[first:end]


def split(value: Any, delimiters: Any) -> list[str]:
    marks = [text_of(mark) for mark in (delimiters if isinstance(delimiters, list) else [delimiters])]
    marks = [mark for mark in marks if mark]
    if not marks:
        return [text_of(value)]
    return re.split("|".join(re.escape(mark) for mark in marks), text_of(value))


def replace(value: Any, old: Any, new: Any) -> str:
    string, what, by = text_of(value), text_of(old), text_of(new)
    if not what:
        raise ExpressionError("replace needs something to look for")
    if string.count(what) * len(by) + len(string) > MAX_STRING:
        raise ExpressionError("replace would make a string beyond all reason")
    return string.replace(what, by)


def pad_left(value: Any, length: Any, character: Any = " ") -> str:
    string, width, pad = text(want(value, "string|int", "the value")), whole(length), text_of(character)
    if len(pad) != 1 or not 0 <= width <= 10_000:
        raise ExpressionError("padLeft takes one character and a width up to 10000")
    return string.rjust(width, pad)


def format_text(template: Any, *values: Any) -> str:
    """.NET composite formatting: `{0}`, `{0,8}`, `{0:D4}`, `{{`."""
    texts = [text(value) for value in values]
    pattern = text_of(template, "the format")
    longest = max((len(t) for t in texts), default=0)
    if pattern.count("{") * longest + len(pattern) > MAX_STRING:
        raise ExpressionError("format would make a string beyond all reason")

    def fill(hole: re.Match[str]) -> str:
        if hole[0] in ("{{", "}}"):
            return hole[0][0]
        if hole[1] is None:
            raise ExpressionError(f"a lone {hole[0]} in the format", hint="write it twice")
        number = int(hole[1])
        if number >= len(values):
            raise ExpressionError(f"the format names {{{number}}}, but there are {len(values)} values")
        done = _formatted(values[number], hole[3]) if hole[3] else texts[number]
        width = int(hole[2] or 0)
        return done.ljust(-width) if width < 0 else done.rjust(width)

    return _HOLE.sub(fill, pattern)


def _formatted(value: Any, style: str) -> str:
    """The standard numeric formats D, X, N, F with a precision; others are refused rather than guessed."""
    letter, digits = style[0], style[1:]
    if not isinstance(value, int) or isinstance(value, bool) or (digits and not digits.isdigit()) or len(digits) > 2:
        raise ExpressionError(f"the format {style!r} is not supported here")
    places = int(digits or 0)
    sign = "-" if value < 0 else ""
    if letter in "dD":
        return sign + str(abs(value)).rjust(places, "0")
    if letter in "xX":
        return f"{value % 2**32:{letter}}".rjust(places, "0")
    if letter in "nNfF":
        return f"{value:{',' if letter in 'nN' else ''}.{places if digits else 2}f}"
    raise ExpressionError(f"the format {style!r} is not supported here")


def from_json(value: Any) -> Any:
    try:
        return json.loads(text_of(value), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ExpressionError(f"json() got no JSON: {str(error)[:80]}") from None


def _no_constant(word: str) -> Any:
    raise ValueError(word)


def from_base64(value: Any) -> str:
    try:
        return base64.b64decode(text_of(value), validate=True).decode()
    except (binascii.Error, ValueError):
        raise ExpressionError("that is not base64 of UTF-8 text") from None


def to_base64(value: Any) -> str:
    return base64.b64encode(text_of(value).encode()).decode()


def from_data_uri(value: Any) -> str:
    head, mark, body = text_of(value).partition(",")
    if not head.startswith("data:") or not mark:
        raise ExpressionError("that is no data URI")
    return from_base64(body) if head.endswith(";base64") else unquote(body)


def to_int(value: Any) -> int:
    if isinstance(value, str):
        stripped = value.strip()
        if re.fullmatch(r"[+-]?[0-9]{1,19}", stripped):
            return int(stripped)
        raise ExpressionError(f"int() cannot read {value[:40]!r}")
    return int(want(value, "int|float", "the argument of int()"))


def to_float(value: Any) -> float:
    if isinstance(value, str) and not re.fullmatch(
        r"[+-]?[0-9]{1,30}(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,2})?", value.strip()
    ):
        raise ExpressionError(f"float() cannot read {value[:40]!r}")
    return float(want(value, "string|int|float", "the argument of float()"))


def to_bool(value: Any) -> bool:
    if isinstance(value, str):
        word = value.strip().lower()
        if word in ("true", "false", "1", "0"):
            return word in ("true", "1")
        raise ExpressionError(f"bool() cannot read {value[:40]!r}")
    return bool(want(value, "bool|int", "the argument of bool()"))


def divide(left: Any, right: Any) -> int:
    """Integer division that truncates toward zero, as .NET does."""
    a, b = whole(left), whole(right)
    if b == 0:
        raise ExpressionError("division by zero")
    return int(abs(a) // abs(b)) * (1 if (a < 0) == (b < 0) else -1)


def remainder(left: Any, right: Any) -> int:
    return whole(left) - divide(left, right) * whole(right)


def index_of(value: Any, item: Any) -> int:
    if isinstance(value, list):
        return value.index(item) if item in value else -1
    return text_of(value).lower().find(text_of(item).lower())


def last_index_of(value: Any, item: Any) -> int:
    if isinstance(value, list):
        return max((i for i, one in enumerate(value) if one == item), default=-1)
    return text_of(value).lower().rfind(text_of(item).lower())


def join(items: Any, mark: Any) -> str:
    parts = [text(item) for item in want(items, "array", "the first argument of join()")]
    if sum(map(len, parts)) + len(parts) * len(text_of(mark)) > MAX_STRING:
        raise ExpressionError("join would make a string beyond all reason")
    return text_of(mark).join(parts)


def string(value: Any) -> str:
    """`string()`; collections become JSON."""
    return str(check_size(text(value)))


FUNCTIONS: dict[str, tuple[int, int, Callable[..., Any]]] = {
    # name: (fewest arguments, most arguments, function)
    "add": (2, 2, lambda a, b: whole(whole(a) + whole(b))),
    "base64": (1, 1, to_base64),
    "base64tojson": (1, 1, lambda v: from_json(from_base64(v))),
    "base64tostring": (1, 1, from_base64),
    "bool": (1, 1, to_bool),
    "datauri": (1, 1, lambda v: f"data:text/plain;charset=utf8;base64,{to_base64(v)}"),
    "datauritostring": (1, 1, from_data_uri),
    "div": (2, 2, divide),
    "endswith": (2, 2, lambda s, e: text_of(s).lower().endswith(text_of(e).lower())),
    "float": (1, 1, to_float),
    "format": (1, 100, format_text),
    "guid": (1, 100, guid),
    "indexof": (2, 2, index_of),
    "int": (1, 1, to_int),
    "join": (2, 2, join),
    "json": (1, 1, from_json),
    "lastindexof": (2, 2, last_index_of),
    "mod": (2, 2, remainder),
    "mul": (2, 2, lambda a, b: whole(whole(a) * whole(b))),
    "padleft": (2, 3, pad_left),
    "replace": (3, 3, replace),
    "split": (2, 2, split),
    "startswith": (2, 2, lambda s, e: text_of(s).lower().startswith(text_of(e).lower())),
    "string": (1, 1, string),
    "sub": (2, 2, lambda a, b: whole(whole(a) - whole(b))),
    "substring": (2, 3, substring),
    "tolower": (1, 1, lambda s: text_of(s).lower()),
    "toupper": (1, 1, lambda s: text_of(s).upper()),
    "trim": (1, 1, lambda s: text_of(s).strip()),
    "uniquestring": (1, 100, unique_string),
    "uri": (2, 2, lambda base, rest: urljoin(text_of(base), text_of(rest))),
    "uricomponent": (1, 1, lambda s: quote(text_of(s), safe="-_.!~*'()")),
    "uricomponenttostring": (1, 1, lambda s: unquote(text_of(s))),
}
