"""Array, object, comparison and logical functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from orchestrator.template.arm.expression import ExpressionError
from orchestrator.template.arm.functions_text import text_of, want, whole
from orchestrator.template.arm.values import MAX_ITEMS, MAX_STRING, Unresolved, kind, text

if TYPE_CHECKING:
    import ipaddress


def concat(*values: Any) -> Any:
    """Strings (and numbers, as text) or arrays, never mixed."""
    if values and all(isinstance(value, list) for value in values):
        if sum(len(value) for value in values) > MAX_ITEMS:
            raise ExpressionError("concat would make an array beyond all reason")
        return [item for value in values for item in value]
    parts = [text(want(value, "string|int|bool|float", "an argument of concat()")) for value in values]
    if sum(map(len, parts)) > MAX_STRING:
        raise ExpressionError("concat would make a string beyond all reason")
    return "".join(parts)


def lookup(container: Any, key: Any) -> tuple[bool, Any]:
    """(found, value) of `container[key]`; names of objects compare without regard to case, as in ARM."""
    if isinstance(container, Unresolved):
        return True, container.member(key)
    if isinstance(container, list) and isinstance(key, int) and not isinstance(key, bool):
        return (True, container[key]) if 0 <= key < len(container) else (False, None)
    if isinstance(container, dict) and isinstance(key, str):
        if key in container:
            return True, container[key]
        folded = key.lower()
        for name, value in container.items():
            if name.lower() == folded:
                return True, value
    return False, None


def contains(container: Any, item: Any) -> bool:
    if isinstance(container, dict):
        return lookup(container, text(item))[0]
    if isinstance(container, list):
        return item in container
    return text(item) in text_of(container, "the container")


def empty(value: Any) -> bool:
    return value is None or len(want(value, "string|array|object", "the argument of empty()")) == 0


def length(value: Any) -> int:
    return len(want(value, "string|array|object", "the argument of length()"))


def first(value: Any) -> Any:
    items = want(value, "string|array", "the argument of first()")
    return items[0] if items else ("" if isinstance(items, str) else None)


def last(value: Any) -> Any:
    items = want(value, "string|array", "the argument of last()")
    return items[-1] if items else ("" if isinstance(items, str) else None)


def from_end(value: Any, index: Any) -> Any:
    """`indexFromEnd`: 1 is the last."""
    items, at = want(value, "array", "the first argument"), whole(index)
    if not 1 <= at <= len(items):
        raise ExpressionError(f"there is no element {at} from the end of {len(items)}")
    return items[-at]


def skip(value: Any, count: Any) -> Any:
    return want(value, "string|array", "the first argument of skip()")[max(0, whole(count)) :]


def take(value: Any, count: Any) -> Any:
    return want(value, "string|array", "the first argument of take()")[: max(0, whole(count))]


def span(start: Any, count: Any) -> list[int]:
    """`range`: ARM allows 10000 elements."""
    begin, many = whole(start), whole(count)
    if not 0 <= many <= 10_000:
        raise ExpressionError(f"range() of {many} elements; 0 to 10000 are allowed")
    return list(range(begin, begin + many))


def union(*values: Any) -> Any:
    if all(isinstance(value, dict) for value in values):
        merged: dict[str, Any] = {}
        for value in values:
            merged = _merged(merged, value, 0)
        return merged
    out: list[Any] = []
    for value in values:
        out.extend(item for item in want(value, "array", "an argument of union()") if item not in out)
        if len(out) > 2_000:  # membership is a linear search
            raise ExpressionError("union of more than 2000 elements is not supported here")
    return out


def _merged(left: dict[str, Any], right: dict[str, Any], depth: int) -> dict[str, Any]:
    """Objects merge recursively; everything else of the later one wins."""
    out = dict(left)
    for key, value in right.items():
        both = isinstance(value, dict) and isinstance(out.get(key), dict)
        if both and depth > 50:
            raise ExpressionError("objects nested too deeply for union()")
        out[key] = _merged(out[key], value, depth + 1) if both else value
    return out


def intersection(*values: Any) -> Any:
    if all(isinstance(value, dict) for value in values):
        return {k: v for k, v in values[0].items() if all(k in other and other[k] == v for other in values[1:])}
    lists = [want(value, "array", "an argument of intersection()") for value in values]
    if max(map(len, lists)) > 2_000:
        raise ExpressionError("intersection of more than 2000 elements is not supported here")
    return [item for item in lists[0] if all(item in other for other in lists[1:])]


def create_object(*pairs: Any) -> dict[str, Any]:
    if len(pairs) % 2:
        raise ExpressionError("createObject() takes names and values in turn")
    return {text_of(pairs[i], "a name"): pairs[i + 1] for i in range(0, len(pairs), 2)}


def items(value: Any) -> list[dict[str, Any]]:
    members = want(value, "object", "the argument of items()")
    return [{"key": key, "value": members[key]} for key in sorted(members)]


def shallow_merge(objects: Any) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for one in want(objects, "array", "the argument of shallowMerge()"):
        out.update(want(one, "object", "each element"))
    return out


def extreme(pick: Callable[[list[int]], int]) -> Callable[..., int]:
    """`min` or `max` of numbers or of one array of numbers."""

    def chosen(*values: Any) -> int:
        numbers = values[0] if len(values) == 1 and isinstance(values[0], list) else list(values)
        if not numbers:
            raise ExpressionError("there is nothing to choose from")
        return pick([whole(number) for number in numbers])

    return chosen


def compare(test: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    """A comparison of two integers or two strings."""

    def compared(left: Any, right: Any) -> bool:
        if kind(left) != kind(right) or kind(left) not in ("int", "string"):
            raise ExpressionError(f"cannot compare {kind(left)} with {kind(right)}")
        return test(left, right)

    return compared


def equals(left: Any, right: Any) -> bool:
    return kind(left) == kind(right) and bool(left == right)


def negate(value: Any) -> bool:
    return not want(value, "bool", "the argument of not()")


def parse_cidr(value: Any) -> dict[str, Any]:
    net = _network(value)
    return {
        "network": str(net.network_address),
        "netmask": str(net.netmask),
        "broadcast": str(net.broadcast_address),
        "firstUsable": str(net[1] if net.num_addresses > 2 else net[0]),
        "lastUsable": str(net[-2] if net.num_addresses > 2 else net[-1]),
        "cidr": net.prefixlen,
    }


def cidr_subnet(value: Any, prefix: Any, index: Any) -> str:
    net, new, at = _network(value), whole(prefix), whole(index)
    if not net.prefixlen <= new <= net.max_prefixlen or not 0 <= at < 2 ** (new - net.prefixlen):
        raise ExpressionError(f"there is no subnet {at} of size /{new} in {net}")
    address = net.network_address + at * 2 ** (net.max_prefixlen - new)
    return f"{address}/{new}"


def cidr_host(value: Any, index: Any) -> str:
    net, at = _network(value), whole(index)
    if not 0 <= at < net.num_addresses - 1:
        raise ExpressionError(f"there is no host {at} in {net}")
    return str(net[at + 1])


def _network(value: Any) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    import ipaddress  # few expressions pay for it

    try:
        return ipaddress.ip_network(text_of(value), strict=False)
    except ValueError as error:
        raise ExpressionError(str(error)) from None


FUNCTIONS: dict[str, tuple[int, int, Callable[..., Any]]] = {
    "array": (1, 1, lambda value: value if isinstance(value, list) else [value]),
    "cidrhost": (2, 2, cidr_host),
    "cidrsubnet": (3, 3, cidr_subnet),
    "concat": (1, 1000, concat),
    "contains": (2, 2, contains),
    "createarray": (0, 1000, lambda *values: list(values)),
    "createobject": (0, 1000, create_object),
    "empty": (1, 1, empty),
    "equals": (2, 2, equals),
    "false": (0, 0, lambda: False),
    "first": (1, 1, first),
    "greater": (2, 2, compare(lambda a, b: a > b)),
    "greaterorequals": (2, 2, compare(lambda a, b: a >= b)),
    "indexfromend": (2, 2, from_end),
    "intersection": (2, 100, intersection),
    "items": (1, 1, items),
    "last": (1, 1, last),
    "length": (1, 1, length),
    "less": (2, 2, compare(lambda a, b: a < b)),
    "lessorequals": (2, 2, compare(lambda a, b: a <= b)),
    "max": (1, 100, extreme(max)),
    "min": (1, 100, extreme(min)),
    "not": (1, 1, negate),
    "null": (0, 0, lambda: None),
    "objectkeys": (1, 1, lambda value: sorted(want(value, "object", "the argument of objectKeys()"))),
    "parsecidr": (1, 1, parse_cidr),
    "range": (2, 2, span),
    "shallowmerge": (1, 1, shallow_merge),
    "skip": (2, 2, skip),
    "take": (2, 2, take),
    "true": (0, 0, lambda: True),
    "union": (1, 100, union),
}
