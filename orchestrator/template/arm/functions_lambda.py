"""Lambda functions: map, filter, reduce and their kin."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from orchestrator.template.arm.context import Context, Evaluate, Special, one_text
from orchestrator.template.arm.expression import Call, ExpressionError
from orchestrator.template.arm.functions_text import text_of, want
from orchestrator.template.arm.values import Unresolved


def _lambda(call: Call, context: Context, evaluate: Evaluate) -> Any:
    raise ExpressionError("lambda() belongs into filter, map, reduce, sort, toObject, ...", call.offset)


def _lambda_variables(call: Call, context: Context, evaluate: Evaluate) -> Any:
    name = one_text(call, context, evaluate).lower()
    if name not in context.lambdas:
        raise ExpressionError(f"there is no lambda variable {name!r}", call.offset)
    return context.lambdas[name]


def _applied(call: Call, position: int, context: Context, evaluate: Evaluate) -> Callable[..., Any]:
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


def _items(call: Call, context: Context, evaluate: Evaluate) -> list[Any]:
    if not call.arguments:
        raise ExpressionError(f"{call.name}() takes an array", call.offset)
    found = evaluate(call.arguments[0], context)
    if isinstance(found, Unresolved):
        raise ExpressionError(f"{call.name}() over {found}, which only Azure knows", call.offset)
    items: list[Any] = want(found, "array", f"the first argument of {call.name}()")
    return items


def _filter(call: Call, context: Context, evaluate: Evaluate) -> list[Any]:
    keep = _applied(call, 1, context, evaluate)
    return [
        item
        for i, item in enumerate(_items(call, context, evaluate))
        if want(keep(item, i), "bool", "the lambda's value")
    ]


def _map(call: Call, context: Context, evaluate: Evaluate) -> list[Any]:
    make = _applied(call, 1, context, evaluate)
    return [make(item, i) for i, item in enumerate(_items(call, context, evaluate))]


def _reduce(call: Call, context: Context, evaluate: Evaluate) -> Any:
    step = _applied(call, 2, context, evaluate)
    value = evaluate(call.arguments[1], context)
    for i, item in enumerate(_items(call, context, evaluate)):
        value = step(value, item, i)
        context.budget.measure(value)
    return value


def _sort(call: Call, context: Context, evaluate: Evaluate) -> list[Any]:
    """Insertion by the user's own order; it need not be consistent, so no library sort is trusted with it."""
    before = _applied(call, 1, context, evaluate)
    out: list[Any] = []
    for item in _items(call, context, evaluate):
        low, high = 0, len(out)
        while low < high:
            middle = (low + high) // 2
            if want(before(item, out[middle]), "bool", "the lambda's value"):
                high = middle
            else:
                low = middle + 1
        out.insert(low, item)
    return out


def _to_object(call: Call, context: Context, evaluate: Evaluate) -> dict[str, Any]:
    key = _applied(call, 1, context, evaluate)
    make = _applied(call, 2, context, evaluate) if len(call.arguments) > 2 else None
    return {
        text_of(key(item), "the lambda's value"): make(item) if make is not None else item
        for item in _items(call, context, evaluate)
    }


def _group_by(call: Call, context: Context, evaluate: Evaluate) -> dict[str, list[Any]]:
    key = _applied(call, 1, context, evaluate)
    out: dict[str, list[Any]] = {}
    for item in _items(call, context, evaluate):
        out.setdefault(text_of(key(item), "the lambda's value"), []).append(item)
    return out


def _map_values(call: Call, context: Context, evaluate: Evaluate) -> dict[str, Any]:
    make = _applied(call, 1, context, evaluate)
    members = want(evaluate(call.arguments[0], context), "object", "the first argument of mapValues()")
    return {key: make(value) for key, value in members.items()}


FUNCTIONS: Mapping[str, Special] = {
    "filter": _filter,
    "groupby": _group_by,
    "lambda": _lambda,
    "lambdavariables": _lambda_variables,
    "map": _map,
    "mapvalues": _map_values,
    "reduce": _reduce,
    "sort": _sort,
    "toobject": _to_object,
}
