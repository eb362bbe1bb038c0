"""Evaluates parsed expressions and whole node trees within a context."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from orchestrator.template.arm import functions_azure, functions_data, functions_text
from orchestrator.template.arm.expression import (
    Access,
    Call,
    Expression,
    ExpressionError,
    Literal,
    is_expression,
    literal,
    parse,
)
from orchestrator.template.arm.functions_azure import ONLY_IN_AZURE, SCOPED, Scope, date_text
from orchestrator.template.arm.functions_data import lookup
from orchestrator.template.arm.functions_text import text_of, want, whole
from orchestrator.template.arm.values import Budget, Unresolved, check_size, text
from orchestrator.template.node import Node

MAX_LEVELS = 60  # nested evaluations: calls within variables within calls, up to nine Python frames each
MAX_COPIES = 800  # ARM's limit of a copy loop

Function = tuple[int, int, Callable[..., Any]]
PURE: Mapping[str, Function] = {**functions_text.FUNCTIONS, **functions_data.FUNCTIONS, **functions_azure.FUNCTIONS}
_STAND_INS = {
    "uniquestring": "uniqueString() has a local value here, not Azure's",
    "guid": "guid() may differ from Azure's value",
}


_NEEDS_STRUCTURE = frozenset({
    "length", "first", "last", "items", "objectkeys", "union", "int", "json", "split", "empty", "base64tostring",
})  # fmt: skip


class Reported(ExpressionError):
    """The cause was reported where it arose; whoever depends on it stays silent."""

    def __init__(self) -> None:
        super().__init__("reported elsewhere")


@dataclass(frozen=True, slots=True)
class Copies:
    """The copy loops around an expression: index by loop name, the innermost one's name last."""

    index: Mapping[str, int] = field(default_factory=dict)
    innermost: str = ""

    def inside(self, name: str, index: int) -> Copies:
        return Copies({**self.index, name.lower(): index}, name.lower())


@dataclass(slots=True)
class Context:
    """What an expression can see. `notes` collects what an expression's value rests on that is not Azure's."""

    scope: Scope
    parameter: Callable[[str], Any]
    variable: Callable[[str], Any]
    user_function: Callable[[str], tuple[tuple[str, ...], Node] | None]
    budget: Budget
    now: datetime
    copies: Copies = field(default_factory=Copies)
    lambdas: Mapping[str, Any] = field(default_factory=dict)
    notes: dict[str, None] = field(default_factory=dict)
    levels: int = 0

    def within(self, **changes: Any) -> Context:
        """The same context with some things changed; notes and budget stay shared."""
        return replace(self, **changes)


def evaluate_text(string: str, context: Context) -> Any:
    """The value of a string of the template: an expression's, or itself with `[[` unescaped."""
    return evaluate(parse(string), context) if is_expression(string) else literal(string)


def evaluate(tree: Expression, context: Context) -> Any:
    """The value of an expression. Errors carry the offset of the call that failed."""
    context.budget.spend()
    if isinstance(tree, Literal):
        return tree.value
    if context.levels >= MAX_LEVELS:
        raise ExpressionError("expressions are nested too deeply", tree.offset, "does a variable depend on itself?")
    context.levels += 1
    try:
        value = _call(tree, context) if isinstance(tree, Call) else _access(tree, context)
        return check_size(value)
    except ExpressionError as error:
        if error.offset == 0:
            error.offset = tree.offset
        raise
    finally:
        context.levels -= 1


def value_of(node: Node, context: Context) -> Any:
    """The plain value of a node with every expression in it evaluated."""
    if isinstance(node.value, str):
        return evaluate_text(node.value, context)
    context.budget.spend()
    if node.is_array:
        return [value_of(item, context) for item in node.items()]
    if not node.is_object:
        if not node.is_known:
            raise Reported
        return node.value
    out: dict[str, Any] = {}
    for key, child in node.members():
        if key == "copy" and child.is_array:
            for name, count, body in copy_loops(child, context):
                out[name] = [value_of(body, at(context, name, i)) for i in range(count)]
        else:
            out[text(evaluate_text(key, context))] = value_of(child, context)
    return out


def copy_loops(copies: Node, context: Context) -> list[tuple[str, int, Node]]:
    """(name, count, input) of each loop of a property or variable `copy`."""
    found = []
    for loop in copies.items():
        name, count, body = loop.get("name"), loop.get("count"), loop.get("input")
        if name is None or count is None or body is None:
            raise ExpressionError("a copy loop has name, count and input")
        found.append((text(value_of(name, context)), loop_count(count, context), body))
    return found


def loop_count(node: Node, context: Context) -> int:
    """The checked count of a copy loop."""
    count = whole(value_of(node, context), "the count of a copy loop")
    if not 0 <= count <= MAX_COPIES:
        raise ExpressionError(f"a copy loop of {count}; ARM allows 0 to {MAX_COPIES}")
    return count


def at(context: Context, name: str, index: int) -> Context:
    """The context of one turn of a loop."""
    return context.within(copies=context.copies.inside(name, index))


def _access(tree: Access, context: Context) -> Any:
    base, key = evaluate(tree.base, context), evaluate(tree.key, context)
    if base is None and tree.safe:
        return None
    found, value = lookup(base, key)
    if not found and not tree.safe:
        raise ExpressionError(f"there is no {key!r} in it", tree.offset, "check the name, or use .? or tryGet()")
    return value


def _call(call: Call, context: Context) -> Any:
    name = call.name.lower()
    special = _SPECIAL.get(name)
    if special is not None:
        return special(call, context)
    arguments = [evaluate(argument, context) for argument in call.arguments]
    known = PURE.get(name)
    if known is not None:
        _check_count(call, known, len(arguments))
        if name in _STAND_INS:
            context.notes[_STAND_INS[name]] = None
        if name in ("string", "concat", "format", "join", "equals", "contains", "union", "intersection", "indexof"):
            context.budget.measure(arguments)
        if name == "json":
            context.budget.spend(len(text(arguments[0])) // 8)
        if _lost(name, arguments):
            return Unresolved(f"<{call.name}({', '.join(text(a) for a in arguments)})>")
        return known[2](*arguments)
    scoped = SCOPED.get(name)
    if scoped is not None:
        _check_count(call, scoped, len(arguments))
        if name in ("resourcegroup", "subscription", "deployment") or name.endswith("resourceid"):
            context.notes[f"{call.name}() is the local scope ({context.scope.group_id})"] = None
        return scoped[2](context.scope, *arguments)
    if name in ONLY_IN_AZURE or name.startswith("list"):
        shown = ", ".join(repr(argument)[:80] if isinstance(argument, str) else "..." for argument in arguments)
        context.notes[f"{call.name}() is known only to a deployment in Azure"] = None
        return Unresolved(f"<{call.name}({shown})>")
    mine = context.user_function(name)
    if mine is not None:
        return _call_user_function(call, mine, arguments, context)
    raise ExpressionError(f"there is no function {call.name}()", call.offset, _suggest(call.name))


def _lost(name: str, arguments: list[Any]) -> bool:
    """Whether a function needs the structure of a value that only Azure knows."""
    needs = (
        "length",
        "first",
        "last",
        "items",
        "objectkeys",
        "union",
        "int",
        "json",
        "split",
        "empty",
        "base64tostring",
    )
    return name in needs and any(isinstance(argument, Unresolved) for argument in arguments)


def _check_count(call: Call, function: Function, given: int) -> None:
    low, high, _ = function
    if not low <= given <= high:
        span = f"{low}" if low == high else f"{low} to {high}" if high < 100 else f"at least {low}"
        raise ExpressionError(f"{call.name}() takes {span} arguments, not {given}", call.offset)


def _suggest(name: str) -> str:
    import difflib  # only misspelt functions pay for it

    known = [*PURE, *SCOPED, *_SPECIAL, *ONLY_IN_AZURE]
    near = difflib.get_close_matches(name.lower()[:40], known, n=1)
    return f"did you mean {near[0]}()?" if near else ""


def _call_user_function(call: Call, mine: tuple[tuple[str, ...], Node], arguments: list[Any], context: Context) -> Any:
    names, body = mine
    if len(names) != len(arguments):
        raise ExpressionError(f"{call.name}() takes {len(names)} arguments, not {len(arguments)}", call.offset)
    given = {name.lower(): value for name, value in zip(names, arguments, strict=True)}

    def own(name: str) -> Any:
        if name.lower() not in given:
            raise ExpressionError(f"the function has no parameter {name!r}")
        return given[name.lower()]

    def no_variables(name: str) -> Any:
        raise ExpressionError(f"a user's function cannot use variables('{name}')")

    inner = context.within(parameter=own, variable=no_variables, user_function=lambda _: None, copies=Copies())
    return value_of(body, inner)


# Functions that see the context, or do not evaluate all of their arguments.


def _one(call: Call, context: Context) -> str:
    _check_count(call, (1, 1, len), len(call.arguments))
    return text_of(evaluate(call.arguments[0], context), f"the argument of {call.name}()")


def _parameters(call: Call, context: Context) -> Any:
    return context.parameter(_one(call, context))


def _variables(call: Call, context: Context) -> Any:
    return context.variable(_one(call, context))


def _if(call: Call, context: Context) -> Any:
    _check_count(call, (3, 3, len), len(call.arguments))
    test = evaluate(call.arguments[0], context)
    if isinstance(test, Unresolved):
        return Unresolved(f"<if({test}, ...)>")
    return evaluate(call.arguments[1 if want(test, "bool", "the condition of if()") else 2], context)


def _logic(stop: bool) -> Callable[[Call, Context], Any]:
    def evaluated(call: Call, context: Context) -> Any:
        for argument in call.arguments:
            value = evaluate(argument, context)
            if isinstance(value, Unresolved):
                return value
            if want(value, "bool", f"an argument of {call.name}()") is stop:
                return stop
        return not stop

    return evaluated


def _coalesce(call: Call, context: Context) -> Any:
    for argument in call.arguments:
        value = evaluate(argument, context)
        if value is not None:
            return value
    return None


def _try_get(call: Call, context: Context) -> Any:
    if not call.arguments:
        raise ExpressionError("tryGet() takes an object or array and keys", call.offset)
    value = evaluate(call.arguments[0], context)
    for key in call.arguments[1:]:
        found, value = lookup(value, evaluate(key, context))
        if not found:
            return None
    return value


def _try_from_end(call: Call, context: Context) -> Any:
    _check_count(call, (2, 2, len), len(call.arguments))
    value, index = (evaluate(argument, context) for argument in call.arguments)
    items = want(value, "array", "the first argument")
    return items[-index] if isinstance(index, int) and 1 <= index <= len(items) else None


def _copy_index(call: Call, context: Context) -> Any:
    arguments = [evaluate(argument, context) for argument in call.arguments]
    name = arguments.pop(0).lower() if arguments and isinstance(arguments[0], str) else context.copies.innermost
    if name not in context.copies.index:
        raise ExpressionError(f"copyIndex({name!r}) stands outside such a loop" if name else "copyIndex() needs a loop")
    return context.copies.index[name] + (whole(arguments[0]) if arguments else 0)


def _utc_now(call: Call, context: Context) -> str:
    style = evaluate(call.arguments[0], context) if call.arguments else "yyyyMMddTHHmmssZ"
    context.notes["utcNow() is the time of this check"] = None
    return date_text(context.now, style)


def _new_guid(call: Call, context: Context) -> str:
    context.notes["newGuid() has a fixed local value here"] = None
    import uuid  # few expressions pay for it

    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"newGuid {call.offset}"))


def _fail(call: Call, context: Context) -> Any:
    raise ExpressionError(f"the template says fail: {_one(call, context)[:200]}", call.offset)


def _lambda(call: Call, context: Context) -> Any:
    raise ExpressionError("lambda() belongs into filter, map, reduce, sort, toObject, ...", call.offset)


def _lambda_variables(call: Call, context: Context) -> Any:
    name = _one(call, context).lower()
    if name not in context.lambdas:
        raise ExpressionError(f"there is no lambda variable {name!r}", call.offset)
    return context.lambdas[name]


def _applied(call: Call, position: int, context: Context) -> Callable[..., Any]:
    """The lambda at `position` of a call, as a Python function."""
    tree = call.arguments[position] if position < len(call.arguments) else None
    if not isinstance(tree, Call) or tree.name.lower() != "lambda" or not tree.arguments:
        raise ExpressionError(f"{call.name}() needs a lambda as argument {position + 1}", call.offset)
    names = [text_of(evaluate(argument, context), "a lambda variable").lower() for argument in tree.arguments[:-1]]
    body = tree.arguments[-1]

    def run(*values: Any) -> Any:
        # reduce, map and filter may offer an index that the lambda does not take
        inner = {**context.lambdas, **dict(zip(names, values, strict=False))}
        return evaluate(body, context.within(lambdas=inner))

    return run


def _items(call: Call, context: Context) -> list[Any]:
    if not call.arguments:
        raise ExpressionError(f"{call.name}() takes an array", call.offset)
    found = evaluate(call.arguments[0], context)
    if isinstance(found, Unresolved):
        raise ExpressionError(f"{call.name}() over {found}, which only Azure knows", call.offset)
    items: list[Any] = want(found, "array", f"the first argument of {call.name}()")
    return items


def _filter(call: Call, context: Context) -> list[Any]:
    keep = _applied(call, 1, context)
    return [item for i, item in enumerate(_items(call, context)) if want(keep(item, i), "bool", "the lambda's value")]


def _map(call: Call, context: Context) -> list[Any]:
    make = _applied(call, 1, context)
    return [make(item, i) for i, item in enumerate(_items(call, context))]


def _reduce(call: Call, context: Context) -> Any:
    step = _applied(call, 2, context)
    value = evaluate(call.arguments[1], context)
    for i, item in enumerate(_items(call, context)):
        value = step(value, item, i)
        context.budget.measure(value)
    return value


def _sort(call: Call, context: Context) -> list[Any]:
    """Insertion by the user's own order; it need not be consistent, so no library sort is trusted with it."""
    before = _applied(call, 1, context)
    out: list[Any] = []
    for item in _items(call, context):
        low, high = 0, len(out)
        while low < high:
            middle = (low + high) // 2
            if want(before(item, out[middle]), "bool", "the lambda's value"):
                high = middle
            else:
                low = middle + 1
        out.insert(low, item)
    return out


def _to_object(call: Call, context: Context) -> dict[str, Any]:
    key = _applied(call, 1, context)
    make = _applied(call, 2, context) if len(call.arguments) > 2 else None
    return {
        text_of(key(item), "the lambda's value"): make(item) if make is not None else item
        for item in _items(call, context)
    }


def _group_by(call: Call, context: Context) -> dict[str, list[Any]]:
    key = _applied(call, 1, context)
    out: dict[str, list[Any]] = {}
    for item in _items(call, context):
        out.setdefault(text_of(key(item), "the lambda's value"), []).append(item)
    return out


def _map_values(call: Call, context: Context) -> dict[str, Any]:
    make = _applied(call, 1, context)
    members = want(evaluate(call.arguments[0], context), "object", "the first argument of mapValues()")
    return {key: make(value) for key, value in members.items()}


_SPECIAL: Mapping[str, Callable[[Call, Context], Any]] = {
    "and": _logic(stop=False),
    "coalesce": _coalesce,
    "copyindex": _copy_index,
    "fail": _fail,
    "filter": _filter,
    "groupby": _group_by,
    "if": _if,
    "lambda": _lambda,
    "lambdavariables": _lambda_variables,
    "map": _map,
    "mapvalues": _map_values,
    "newguid": _new_guid,
    "or": _logic(stop=True),
    "parameters": _parameters,
    "reduce": _reduce,
    "sort": _sort,
    "toobject": _to_object,
    "tryget": _try_get,
    "tryindexfromend": _try_from_end,
    "utcnow": _utc_now,
    "variables": _variables,
}
