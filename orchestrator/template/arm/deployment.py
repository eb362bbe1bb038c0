"""One deployment template: its parameters, variables and functions, each evaluated when first asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from orchestrator.template.arm.context import Context, Live, Reported
from orchestrator.template.arm.evaluate import at, copy_loops, value_of
from orchestrator.template.arm.expression import ExpressionError
from orchestrator.template.arm.functions_azure import Scope
from orchestrator.template.arm.values import Budget, Unresolved, kind
from orchestrator.template.diagnostics import Severity
from orchestrator.template.node import Node
from orchestrator.template.report import Report

_TYPES = {
    "string": "string", "securestring": "string", "int": "int", "bool": "bool", "array": "array", "object": "object",
    "secureobject": "object",
}  # fmt: skip
_BUSY = object()
MAX_SUGGESTED_FROM = 500  # names


@dataclass(slots=True)
class Shared:
    """What all deployments of one file share.

    `target_version` stands in for an apiVersion nobody gave; `seen` counts imageTemplates resources as written,
    `made` those that would be deployed. `live` answers what only a deployment knows.
    """

    report: Report
    budget: Budget
    now: datetime
    target_version: str = ""
    seen: int = 0
    made: int = 0
    live: Live | None = None


class Deployment:
    """Resolves names of one template. `given` are the parameter values from outside (any case)."""

    def __init__(self, root: Node, given: Mapping[str, Any], scope: Scope, shared: Shared) -> None:
        self.root = root
        self.given = {name.lower(): value for name, value in given.items()}
        self.report = shared.report
        self.parameters = {name.lower(): node for name, node in _members(root.get("parameters"))}
        self.variables, self.looped = _variables(root.get("variables"))
        self.functions = _functions(root.get("functions"))
        self.values: dict[str, Any] = {}
        self.context = Context(
            scope,
            self.parameter,
            self.variable,
            self.functions.get,
            shared.budget,
            shared.now,
            live=shared.live,
        )
        for name in given:
            if name.lower() not in self.parameters:
                self.report.warning("AIB004", root, f"the template declares no parameter {name!r}")

    def parameter(self, name: str) -> Any:
        """The value from outside, else the default. The first use of a missing one is the place of its diagnostic."""
        declared = self.parameters.get(name.lower())
        if declared is None:
            raise ExpressionError(f"the template declares no parameter {name!r}", hint=_near(name, self.parameters))
        return self._once(f"parameter {name.lower()}", name, lambda: self._parameter(name, declared))

    def variable(self, name: str) -> Any:
        folded = name.lower()
        if folded not in self.variables and self.looped is not None:
            self._run_loops()
        declared = self.variables.get(folded)
        if declared is None:
            raise ExpressionError(f"the template has no variable {name!r}", hint=_near(name, self.variables))
        if not isinstance(declared, Node):
            return declared[0]
        return self._once(f"variable {folded}", name, lambda: self._reported(declared))

    def missing(self) -> None:
        """Reports the parameters that nothing uses and nothing gives: a deployment refuses them as well."""
        for name, declared in self.parameters.items():
            needed = name not in self.given and declared.get("defaultValue") is None
            if needed and f"parameter {name}" not in self.values and not _has_default(declared):
                self.report.error(
                    "AIB004", declared, f"the parameter {declared.key!r} has no value", hint=_give(declared)
                )

    def _once(self, slot: str, name: str, make: Any) -> Any:
        found = self.values.get(slot)
        if slot in self.values:
            if found is _BUSY:
                raise ExpressionError(f"{name!r} depends on itself")
            if isinstance(found, ExpressionError):
                raise Reported
            return found
        self.values[slot] = _BUSY
        try:
            self.values[slot] = make()
        except ExpressionError as error:
            self.values[slot] = error
            raise
        return self.values[slot]

    def _parameter(self, name: str, declared: Node) -> Any:
        if name.lower() in self.given:
            value = self._coerced(name, declared, self.given[name.lower()])
        elif _has_default(declared):
            value = self._reported(declared.value["defaultValue"])
        elif declared.value.get("nullable") is not None:
            return None
        else:
            raise ExpressionError(f"the parameter {name!r} has no value", hint=_give(declared))
        if not isinstance(value, Unresolved):
            _check_declared(name, declared, value)
        return value

    def _coerced(self, name: str, declared: Node, value: Any) -> Any:
        """A value from outside as its declared type; text from the command line is read as that type."""
        wanted = _TYPES.get(declared.string("type").lower(), "")
        if isinstance(value, str) and wanted not in ("string", "") and not isinstance(value, Unresolved):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                raise ExpressionError(f"the parameter {name!r} must be {wanted}, not {value[:40]!r}") from None
        if wanted and kind(value) != wanted and not isinstance(value, Unresolved):
            raise ExpressionError(f"the parameter {name!r} must be {wanted}, not {kind(value)}")
        return value

    def _reported(self, node: Node) -> Any:
        """Evaluates a definition; what fails in it is reported at the definition, once."""
        try:
            return value_of(node, self.context.within(copies=type(self.context.copies)()))
        except Reported:
            raise
        except ExpressionError as error:
            say_error(self.report, node, error)
            raise Reported from None

    def _run_loops(self) -> None:
        looped, self.looped = self.looped, None
        if looped is None:
            return
        try:
            for name, count, body in copy_loops(looped, self.context):
                made = [value_of(body, at(self.context, name, i)) for i in range(count)]
                self.variables[name.lower()] = (made,)
        except Reported:
            raise
        except ExpressionError as error:
            say_error(self.report, looped, error)
            raise Reported from None


def _check_declared(name: str, declared: Node, value: Any) -> None:
    """allowedValues, minValue, maxValue, minLength, maxLength of a parameter."""
    allowed = declared.get("allowedValues")
    if allowed is not None and value not in allowed.plain():
        shown = ", ".join(str(item) for item in allowed.plain()[:8])
        raise ExpressionError(f"{value!r} is not allowed for the parameter {name!r}", hint=f"allowed: {shown}")
    size = value if kind(value) == "int" else len(value) if kind(value) in ("string", "array") else None
    word = "Value" if kind(value) == "int" else "Length"
    low, high = declared.get(f"min{word}"), declared.get(f"max{word}")
    too_low = low is not None and isinstance(low.value, int) and size is not None and size < low.value
    too_high = high is not None and isinstance(high.value, int) and size is not None and size > high.value
    if too_low or too_high:
        raise ExpressionError(f"the parameter {name!r} is outside its declared min{word}..max{word}")


def say_error(report: Report, node: Node, error: ExpressionError) -> None:
    """AIB004 at the place inside the expression's string, where that can be told."""
    place = node
    if isinstance(node.value, str):
        written = node.source.text[node.start : node.end]
        if "\\" not in written and error.offset:  # an escape shifts what follows
            place = Node(None, node.source, node.start + 1 + error.offset, node.end, parent=node.parent, key=node.key)
    report.add(Severity.ERROR, "AIB004", place, error.message, hint=error.hint, source="ARM template functions")


def _members(node: Node | None) -> list[tuple[str, Node]]:
    return [(name, child) for name, child in node.members() if child.is_object] if node is not None else []


def _variables(node: Node | None) -> tuple[dict[str, Any], Node | None]:
    """Variables by lower-case name, and the array of copy loops that make further ones."""
    found: dict[str, Any] = {}
    looped = None
    for name, child in node.members() if node is not None else ():
        if name.lower() == "copy" and child.is_array:
            looped = child
        else:
            found[name.lower()] = child
    return found, looped


def _functions(node: Node | None) -> dict[str, tuple[tuple[str, ...], Node]]:
    """User-defined functions by `namespace.name` in lower case: parameter names and the output's value."""
    found: dict[str, tuple[tuple[str, ...], Node]] = {}
    for group in node.items() if node is not None else ():
        namespace = group.string("namespace").lower()
        for name, function in _members(group.get("members")):
            value = function.get("output", "value")
            declared = function.get("parameters")
            names = tuple(p.string("name") for p in declared.items()) if declared is not None else ()
            if value is not None:
                found[f"{namespace}.{name.lower()}"] = (names, value)
    return found


def _has_default(declared: Node) -> bool:
    return isinstance(declared.value, dict) and "defaultValue" in declared.value


def _give(declared: Node) -> str:
    return f"give it with --param '{declared.key}=VALUE' or in a file with --parameters"


def _near(name: str, known: Mapping[str, Any]) -> str:
    import difflib  # only misspelt names pay for it

    word = name.lower()[:80]
    if len(known) > MAX_SUGGESTED_FROM:
        return ""  # nobody wrote that by hand, and every wrong name would be compared with all of them
    alike = [each for each in known if each[:1] == word[:1] and abs(len(each) - len(word)) <= 3]
    near = difflib.get_close_matches(word, alike, n=1)
    return f"did you mean {near[0]}?" if near else ""
