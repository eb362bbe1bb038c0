"""Evaluates parsed expressions and whole node trees within a context."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from orchestrator.template.arm import (
    functions_azure,
    functions_data,
    functions_lambda,
    functions_special,
    functions_text,
)
from orchestrator.template.arm.context import Context, Copies, Function, Reported, Special, check_count
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
from orchestrator.template.arm.functions_azure import ONLY_IN_AZURE, SCOPED
from orchestrator.template.arm.functions_data import lookup
from orchestrator.template.arm.functions_text import whole
from orchestrator.template.arm.values import Unresolved, check_size, text
from orchestrator.template.node import Node

MAX_LEVELS = 75  # nested evaluations: calls within variables within calls, up to nine Python frames each
MAX_COPIES = 800  # ARM's limit of a copy loop

_SPECIAL: Mapping[str, Special] = {**functions_special.FUNCTIONS, **functions_lambda.FUNCTIONS}
PURE: Mapping[str, Function] = {**functions_text.FUNCTIONS, **functions_data.FUNCTIONS, **functions_azure.FUNCTIONS}
_STAND_INS = {
    "uniquestring": "uniqueString() has a local value here, not Azure's",
    "guid": "guid() may differ from Azure's value",
}


_NEEDS_STRUCTURE = frozenset({
    "length", "first", "last", "items", "objectkeys", "union", "int", "json", "split", "empty", "base64tostring",
})  # fmt: skip


def evaluate_text(string: str, context: Context) -> Any:
    """The value of a string of the template: an expression's, or itself with `[[` unescaped."""
    return evaluate(parse(string), context) if is_expression(string) else literal(string)


def evaluate(tree: Expression, context: Context) -> Any:
    """The value of an expression. Errors carry the offset of the call that failed."""
    context.budget.spend()
    if isinstance(tree, Literal):
        return tree.value
    if context.budget.levels >= MAX_LEVELS:
        raise ExpressionError("expressions are nested too deeply", tree.offset, "does a variable depend on itself?")
    context.budget.levels += 1
    try:
        value = _call(tree, context) if isinstance(tree, Call) else _access(tree, context)
        return check_size(value)
    except ExpressionError as error:
        if error.offset == 0:
            error.offset = tree.offset
        raise
    finally:
        context.budget.levels -= 1


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
    """The checked count of a copy loop; its turns are charged, since what they repeat may cost nothing itself."""
    count = whole(value_of(node, context), "the count of a copy loop")
    if not 0 <= count <= MAX_COPIES:
        raise ExpressionError(f"a copy loop of {count}; ARM allows 0 to {MAX_COPIES}")
    context.budget.spend(count)
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
    if context.live is not None and context.live.knows(name):
        return context.live.call(call, [evaluate(argument, context) for argument in call.arguments], context)
    special = _SPECIAL.get(name)
    if special is not None:
        return special(call, context, evaluate)
    arguments = [evaluate(argument, context) for argument in call.arguments]
    known = PURE.get(name)
    if known is not None:
        check_count(call, known, len(arguments))
        context.budget.spend(_cost(name, arguments))
        if name in _STAND_INS:
            context.notes[_STAND_INS[name]] = None
        if name in ("string", "concat", "format", "join", "equals", "contains", "union", "intersection", "indexof"):
            context.budget.measure(arguments)
        if name == "json":
            context.budget.spend(len(text(arguments[0])) // 8)
        if _lost(name, arguments):
            return Unresolved(f"<{call.name}({', '.join(text(a) for a in arguments)})>")
        made = known[2](*arguments)
        context.budget.spend(
            len(made) if isinstance(made, list | dict) else len(made) // 64 if isinstance(made, str) else 0
        )
        return made
    scoped = SCOPED.get(name)
    if scoped is not None:
        check_count(call, scoped, len(arguments))
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


def _cost(name: str, arguments: list[Any]) -> int:
    """What reading the arguments costs: they may be large, and the same ones again and again."""
    items = sum(len(argument) for argument in arguments if isinstance(argument, list | dict))
    letters = sum(len(argument) for argument in arguments if isinstance(argument, str))
    searched = items * items if name in ("union", "intersection") else 0
    return items // 16 + (letters + searched) // 64


def _lost(name: str, arguments: list[Any]) -> bool:
    """Whether a function needs the structure of a value that only Azure knows."""
    return name in _NEEDS_STRUCTURE and any(isinstance(argument, Unresolved) for argument in arguments)


@lru_cache(maxsize=256)  # the same slip is often made everywhere
def _suggest(name: str) -> str:
    import difflib  # only misspelt functions pay for it

    known = [*PURE, *SCOPED, *_SPECIAL, *ONLY_IN_AZURE]
    word = name.lower()[:40]
    alike = [each for each in known if each[:1] == word[:1] and abs(len(each) - len(word)) <= 3]
    near = difflib.get_close_matches(word, alike, n=1)
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
