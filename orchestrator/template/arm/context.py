"""What an expression can see, and the shapes of functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Protocol

from orchestrator.template.arm.expression import Call, Expression, ExpressionError
from orchestrator.template.arm.functions_azure import Scope
from orchestrator.template.arm.functions_text import text_of
from orchestrator.template.arm.values import Budget
from orchestrator.template.node import Node

Function = tuple[int, int, Callable[..., Any]]
"""Fewest arguments, most arguments, what it does with their values."""


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


class Live(Protocol):
    """What a deployment that really runs knows and a check does not: `reference()`, `resourceGroup()` and their kin."""

    def knows(self, name: str) -> bool:
        """Whether the function `name` (lower case) is answered here."""

    def call(self, call: Call, arguments: list[Any], context: Context) -> Any:
        """The value; raises ExpressionError."""


@dataclass(slots=True)
class Context:
    """What an expression can see. `notes` collects what an expression's value rests on that is not Azure's.

    `live` answers what only a deployment knows; without it such values are marked stand-ins.
    """

    scope: Scope
    parameter: Callable[[str], Any]
    variable: Callable[[str], Any]
    user_function: Callable[[str], tuple[tuple[str, ...], Node] | None]
    budget: Budget
    now: datetime
    copies: Copies = field(default_factory=Copies)
    lambdas: Mapping[str, Any] = field(default_factory=dict)
    notes: dict[str, None] = field(default_factory=dict)
    live: Live | None = None

    def within(self, **changes: Any) -> Context:
        """The same context with some things changed; notes and budget stay shared."""
        return replace(self, **changes)


Evaluate = Callable[[Expression, Context], Any]
Special = Callable[[Call, Context, Evaluate], Any]
"""A function that gets its arguments unevaluated."""


def check_count(call: Call, function: Function, given: int) -> None:
    low, high, _ = function
    if not low <= given <= high:
        span = f"{low}" if low == high else f"{low} to {high}" if high < 100 else f"at least {low}"
        raise ExpressionError(f"{call.name}() takes {span} arguments, not {given}", call.offset)


def one_text(call: Call, context: Context, evaluate: Evaluate) -> str:
    check_count(call, (1, 1, len), len(call.arguments))
    return text_of(evaluate(call.arguments[0], context), f"the argument of {call.name}()")
