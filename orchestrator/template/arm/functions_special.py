"""Functions that see the context, or do not evaluate all of their arguments."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from orchestrator.template.arm.context import Context, Evaluate, Special, check_count, one_text
from orchestrator.template.arm.expression import Call, ExpressionError
from orchestrator.template.arm.functions_azure import date_text
from orchestrator.template.arm.functions_data import lookup
from orchestrator.template.arm.functions_text import want, whole
from orchestrator.template.arm.values import Unresolved


def _parameters(call: Call, context: Context, evaluate: Evaluate) -> Any:
    return context.parameter(one_text(call, context, evaluate))


def _variables(call: Call, context: Context, evaluate: Evaluate) -> Any:
    return context.variable(one_text(call, context, evaluate))


def _if(call: Call, context: Context, evaluate: Evaluate) -> Any:
    check_count(call, (3, 3, len), len(call.arguments))
    test = evaluate(call.arguments[0], context)
    if isinstance(test, Unresolved):
        return Unresolved(f"<if({test}, ...)>")
    return evaluate(call.arguments[1 if want(test, "bool", "the condition of if()") else 2], context)


def _logic(stop: bool) -> Special:
    def evaluated(call: Call, context: Context, evaluate: Evaluate) -> Any:
        for argument in call.arguments:
            value = evaluate(argument, context)
            if isinstance(value, Unresolved):
                return value
            if want(value, "bool", f"an argument of {call.name}()") is stop:
                return stop
        return not stop

    return evaluated


def _coalesce(call: Call, context: Context, evaluate: Evaluate) -> Any:
    for argument in call.arguments:
        value = evaluate(argument, context)
        if value is not None:
            return value
    return None


def _try_get(call: Call, context: Context, evaluate: Evaluate) -> Any:
    if not call.arguments:
        raise ExpressionError("tryGet() takes an object or array and keys", call.offset)
    value = evaluate(call.arguments[0], context)
    for key in call.arguments[1:]:
        found, value = lookup(value, evaluate(key, context))
        if not found:
            return None
    return value


def _try_from_end(call: Call, context: Context, evaluate: Evaluate) -> Any:
    check_count(call, (2, 2, len), len(call.arguments))
    value, index = (evaluate(argument, context) for argument in call.arguments)
    items = want(value, "array", "the first argument")
    return items[-index] if isinstance(index, int) and 1 <= index <= len(items) else None


def _copy_index(call: Call, context: Context, evaluate: Evaluate) -> Any:
    arguments = [evaluate(argument, context) for argument in call.arguments]
    name = arguments.pop(0).lower() if arguments and isinstance(arguments[0], str) else context.copies.innermost
    if name not in context.copies.index:
        raise ExpressionError(f"copyIndex({name!r}) stands outside such a loop" if name else "copyIndex() needs a loop")
    return context.copies.index[name] + (whole(arguments[0]) if arguments else 0)


def _utc_now(call: Call, context: Context, evaluate: Evaluate) -> str:
    style = evaluate(call.arguments[0], context) if call.arguments else "yyyyMMddTHHmmssZ"
    context.notes["utcNow() is the time of this check"] = None
    return date_text(context.now, style)


def _new_guid(call: Call, context: Context, evaluate: Evaluate) -> str:
    context.notes["newGuid() has a fixed local value here"] = None

    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"newGuid {call.offset}"))


def _fail(call: Call, context: Context, evaluate: Evaluate) -> Any:
    raise ExpressionError(f"the template says fail: {one_text(call, context, evaluate)[:200]}", call.offset)


FUNCTIONS: Mapping[str, Special] = {
    "and": _logic(stop=False),
    "coalesce": _coalesce,
    "copyindex": _copy_index,
    "fail": _fail,
    "if": _if,
    "newguid": _new_guid,
    "or": _logic(stop=True),
    "parameters": _parameters,
    "tryget": _try_get,
    "tryindexfromend": _try_from_end,
    "utcnow": _utc_now,
    "variables": _variables,
}
