"""From a template to what its deployment does: conditions, loops, names, ids and the order, before anything is made.

The bodies are evaluated once to find what is wrong with them and which resources they refer to; stand-ins take the
place of what the deployment has not made yet. The engine's budget bounds what a template can make us do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from orchestrator.service.deployments import ids, parameters
from orchestrator.service.deployments.body import check_template
from orchestrator.service.deployments.errors import (
    FUNCTIONS,
    RESOURCES,
    InvalidDeployment,
    at_place,
    invalid_template,
    place,
)
from orchestrator.service.deployments.facts import Facts, Noting, refuse
from orchestrator.service.deployments.order import ordered
from orchestrator.service.deployments.planned import NESTED, Plan, Planned
from orchestrator.template.arm import expand
from orchestrator.template.arm.context import Context, Reported
from orchestrator.template.arm.deployment import Deployment, Shared
from orchestrator.template.arm.evaluate import value_of
from orchestrator.template.arm.expression import ExpressionError
from orchestrator.template.arm.functions_azure import Scope
from orchestrator.template.arm.values import Budget
from orchestrator.template.diagnostics import Severity
from orchestrator.template.node import Node
from orchestrator.template.report import EnoughFound, Report

MOST_RESOURCES = 800
"""ARM's limit for one deployment; here for all nested ones together."""
MOST_PARAMETERS = 256
MOST_OUTPUTS = 64


def plan(
    template: Node,
    given: Mapping[str, Any],
    scope: Scope,
    facts: Facts,
    *,
    previews: Callable[[str], bool] = lambda _: False,
) -> Plan:
    """What deploying `template` to `scope` means. Raises InvalidDeployment with the first thing that is wrong.

    `previews` says of which types of resources the bodies are kept.
    """
    shared = Shared(Report(), Budget(), datetime.now(UTC), live=facts.referring(refuse))
    planner = Planner(shared, facts, previews)
    try:
        return planner.plan(template, given, scope)
    except EnoughFound:
        planner.say_reported(template)
        raise
    except RecursionError:
        raise invalid_template("The template is nested too deeply", template, template) from None


@dataclass(slots=True)
class Planner:
    """Plans one deployment and all nested in it, which share limits and budget."""

    shared: Shared
    facts: Facts
    previews: Callable[[str], bool] = lambda _: False
    """For which types the bodies are kept, stand-ins and all."""

    def plan(self, template: Node, given: Mapping[str, Any], scope: Scope) -> Plan:
        """A template with names of its own."""
        self._count(template, "parameters", MOST_PARAMETERS)
        self._count(template, "outputs", MOST_OUTPUTS)
        parameters.check(template, given)
        deployment = Deployment(template, given, scope, self.shared)
        made = Plan(template, deployment, deployment.context, scope)
        for name in deployment.parameters:
            made.parameters[name] = self._value_of_parameter(template, deployment, name)
        self._fill(made, 0)
        self._check_outputs(made)
        return made

    def say_reported(self, template: Node) -> None:
        """Raise the first error that evaluation reported."""
        for item in self.shared.report.sorted():
            if item.severity is Severity.ERROR:
                parts = item.pointer.removeprefix(template.pointer).strip("/").split("/")
                line = (item.position.line if item.position else 1) - template.position.line + 1
                kind = {"parameters": "parameter", "variables": "variable", "outputs": "output"}.get(parts[0], "")
                name = parts[1] if kind and len(parts) > 1 else ""
                what = f"The template {kind} '{name}'" if name else "The template"
                raise invalid_template(
                    f"{what} is not valid: {item.message} (line {line}). {FUNCTIONS}", None, template
                )

    def _fill(self, made: Plan, depth: int) -> None:
        found: list[Planned] = []
        for count, written in enumerate(_written(made.template)):
            if count >= MOST_RESOURCES:
                raise self._too_many(written.node, made)
            found.extend(self._resource(written, made, depth))
        made.keep(found)
        _no_doubles(made)
        made.resources = ordered(made)

    def _resource(self, written: Written, made: Plan, depth: int) -> Iterator[Planned]:
        node = written.node
        loop = node.get("copy")
        turns, label = [made.context], ""
        if loop is not None and loop.is_object:
            turns = self._try(loop, made, lambda: expand.turns(loop, made.context))
            label = loop.string("name") if not turns else turns[0].copies.innermost
        for turn in turns:
            self.shared.made += 1
            if self.shared.made > MOST_RESOURCES:
                raise self._too_many(node, made)
            planned = self._turn(written, turn, made)
            planned.loop = label
            if planned.deployed:
                self._look_inside(planned, made, depth)
            yield planned

    @staticmethod
    def _too_many(node: Node, made: Plan) -> InvalidDeployment:
        message = f"The number of template resources exceeds the limit of '{MOST_RESOURCES}'. {RESOURCES}"
        return invalid_template(message, node, made.template)

    def _turn(self, written: Written, context: Context, made: Plan) -> Planned:
        node, parent = written.node, written.parent
        kind, name = self._text(node, "type", context, made), self._text(node, "name", context, made)
        if parent is not None:  # a child's type and name go on from its parent's
            kind = f"{self._text(parent, 'type', context, made)}/{kind}"
            name = f"{self._text(parent, 'name', context, made)}/{name}"
        existing = expand.is_existing(node)
        version = self._text(node, "apiVersion", context, made, needed=made.template.get("apiProfile") is None)
        planned = Planned(
            node,
            context,
            kind,
            name,
            self._id(node, kind, name, context, made),
            version,
            symbol=str(node.key) if isinstance(node.key, str) else "",
            existing=existing,
        )
        condition = node.get("condition")
        if condition is not None:
            planned.skipped = self._try(condition, made, lambda: value_of(condition, context)) is False
        return planned

    def _look_inside(self, planned: Planned, made: Plan, depth: int) -> None:
        noting = Noting()
        inside = planned.context.within(live=self.facts.referring(noting), notes={})
        if planned.is_nested:
            self._nested(planned, inside, made, depth + 1)
        else:
            body = expand.expand_node(planned.node, inside, self.shared, top=True)
            self._raise_reported(planned, made)
            if self.previews(planned.kind):
                planned.preview = body.plain()
        planned.asked += noting.asked

    def _nested(self, planned: Planned, inside: Context, made: Plan, depth: int) -> None:
        node = planned.node
        template = node.get("properties", "template")
        if template is None:
            raise InvalidDeployment(
                "InvalidContentLink",
                f"The nested deployment '{planned.name}' links to its template: this server fetches none. "
                "Put the template into the deployment.",
                target=planned.id,
            )
        if depth > expand.MAX_NESTED:
            raise invalid_template(f"Deployments are nested deeper than {expand.MAX_NESTED}", node, made.template)
        check_template(template)
        scope = self.nested_scope(node, planned.context, made)
        if is_inner(node):
            given = self.given(node, inside, made)
            planned.nested = self._inner(template, given, scope, depth)
            return
        nested = Plan(template, made.deployment, planned.context.within(scope=scope), scope, outer=made)
        self._fill(nested, depth)
        planned.nested = nested
        for child in nested.resources:
            planned.asked += child.asked

    def again(self, template: Node, given: Mapping[str, Any], scope: Scope) -> Plan:
        """A nested deployment once more, now that its parameters are known."""
        return self._inner(template, given, scope, 1)

    def _inner(self, template: Node, given: Mapping[str, Any], scope: Scope, depth: int) -> Plan:
        parameters.check(template, given)
        deployment = Deployment(template, given, scope, self.shared)
        nested = Plan(template, deployment, deployment.context, scope)
        for name in deployment.parameters:
            nested.parameters[name] = self._value_of_parameter(template, deployment, name)
        self._fill(nested, depth)
        self._check_outputs(nested)
        return nested

    def nested_scope(self, node: Node, context: Context, made: Plan) -> Scope:
        """Where a nested deployment is deployed to: the same place, or the subscription and group it names."""
        subscription = self._text(node, "subscriptionId", context, made, needed=False)
        group = self._text(node, "resourceGroup", context, made, needed=False)
        if subscription and not group:  # a deployment to the subscription itself
            return replace(context.scope, subscription=subscription, resource_group="")
        return context.scope.inside(subscription, group)

    def given(self, node: Node, inside: Context, made: Plan) -> dict[str, Any]:
        """The parameters that a nested deployment with inner scope is given."""
        section = node.get("properties", "parameters")
        found: dict[str, Any] = {}
        for name, member in section.members() if section is not None else ():
            found[name] = self._try(member, made, lambda member=member: expand.parameter_value(member, inside))
        return found

    def _check_outputs(self, made: Plan) -> None:
        """Evaluated once with stand-ins: what is wrong for certain is said before anything is made."""
        inside = made.context.within(live=self.facts.referring(Noting()), notes={})
        section = made.template.get("outputs")
        for name, node in section.members() if section is not None else ():
            value = node.get("value")
            if value is None:
                continue
            try:
                value_of(value, inside)
            except Reported:
                self.say_reported(made.template)
            except ExpressionError as error:
                message = f"The template output '{name}' is not valid: {error.message}. {FUNCTIONS}"
                raise invalid_template(message, node, made.template) from None

    def _id(self, node: Node, kind: str, name: str, context: Context, made: Plan) -> str:
        extends = self._text(node, "scope", context, made, needed=False)
        label = at_place(f"The template resource '{name[:120]}' for type '{kind[:120]}'", node, made.template)
        try:
            ids.check_type(kind)
            if kind.lower() == NESTED:
                return ids.resource_id(self.nested_scope(node, context, made), kind, name)
            base = ids.extended(context.scope, extends) if extends else ""
            return ids.resource_id(context.scope, kind, name, base)
        except ids.BadId as error:
            text = str(error)
            sentence = f"{label} {text}" if text.startswith("has ") else f"{label} is not valid. {text}"
            raise invalid_template(f"{sentence}. {RESOURCES}", node, made.template) from None

    def _text(self, node: Node, key: str, context: Context, made: Plan, *, needed: bool = True) -> str:
        member = node.get(key)
        if member is None:
            if needed:
                line, column, _ = place(node, made.template)
                raise invalid_template(
                    f"The template resource at line '{line}' and column '{column}' is missing the required property "
                    f"'{key}'. {RESOURCES}",
                    node,
                    made.template,
                )
            return ""
        value = self._try(member, made, lambda: value_of(member, context))
        if not isinstance(value, str):
            label = at_place("The template resource", node, made.template)
            raise invalid_template(
                f"{label} is not valid: its '{key}' must be a string. {RESOURCES}", node, made.template
            )
        return value

    def _value_of_parameter(self, template: Node, deployment: Deployment, name: str) -> Any:
        try:
            return deployment.parameter(name)
        except Reported:
            self.say_reported(template)
            raise
        except ExpressionError as error:
            node = deployment.parameters[name]
            message = f"The template parameter '{node.key}' is not valid: {error.message}. {FUNCTIONS}"
            raise invalid_template(message, node, template) from None

    def _try(self, node: Node, made: Plan, make: Any) -> Any:
        """What `make` makes; what is wrong with the expression at `node` becomes ARM's InvalidTemplate."""
        try:
            return make()
        except Reported:
            self.say_reported(made.template)
            raise
        except ExpressionError as error:
            label = at_place("The template resource", node, made.template)
            raise invalid_template(f"{label} is not valid: {error.message}. {FUNCTIONS}", node, made.template) from None

    def _raise_reported(self, planned: Planned, made: Plan) -> None:
        for item in self.shared.report.items:
            if item.severity is Severity.ERROR:
                label = at_place(f"The template resource '{planned.name[:120]}'", planned.node, made.template)
                raise invalid_template(
                    f"{label} is not valid: {item.message}. {FUNCTIONS}", planned.node, made.template
                )

    @staticmethod
    def _count(template: Node, section: str, most: int) -> None:
        node = template.get(section)
        if node is not None and isinstance(node.value, dict) and len(node.value) > most:
            raise invalid_template(
                f"The number of template {section} limit exceeded. Limit: '{most}' and actual: '{len(node.value)}'",
                node,
                template,
            )


def is_inner(node: Node) -> bool:
    """Whether a nested deployment has names of its own."""
    return node.string("properties", "expressionEvaluationOptions", "scope").lower() == "inner"


def expanded(planned: Planned, facts: Facts, shared: Shared) -> dict[str, Any]:
    """The body of a resource with every expression evaluated, when its turn has come. Raises InvalidDeployment."""
    context = planned.context.within(live=facts, notes={}, budget=shared.budget)
    before = len(shared.report.items)
    node = expand.expand_node(planned.node, context, shared, top=True)
    for item in shared.report.items[before:]:
        if item.severity is Severity.ERROR:
            raise InvalidDeployment(
                "InvalidTemplate",
                f"Unable to process template language expressions for resource '{planned.id}' at line "
                f"'{item.position.line if item.position else 1}' and column "
                f"'{item.position.column if item.position else 1}'. '{item.message}'",
            )
    if not all(each.is_known for each in node.walk()):
        raise InvalidDeployment("InvalidTemplate", f"'{planned.id}' depends on something that is not valid.")
    body: dict[str, Any] = node.plain()
    return body


@dataclass(frozen=True, slots=True)
class Written:
    """A resource as it stands in a template; a child with its parent."""

    node: Node
    parent: Node | None = None


def _written(template: Node) -> Iterator[Written]:
    """The resources of a template, children behind their parents."""
    listed = template.get("resources")
    if listed is None:
        return
    for node in listed.items() or [child for _, child in listed.members()]:
        if not node.is_object:
            raise invalid_template(f"A template resource is not an object. {RESOURCES}", node, template)
        yield Written(node)
        inside = node.get("resources")
        for child in inside.items() if inside is not None else ():
            if not child.is_object:
                raise invalid_template(f"A template resource is not an object. {RESOURCES}", child, template)
            yield Written(child, node)


def _no_doubles(made: Plan) -> None:
    seen: set[str] = set()
    for resource in made.resources:
        if resource.existing or resource.skipped or ids.UNKNOWN_MARK in resource.id:
            continue
        if resource.id.lower() in seen:
            label = at_place(f"The resource '{resource.name}'", resource.node, made.template)
            raise invalid_template(
                f"{label} is defined multiple times in a template. {RESOURCES}", resource.node, made.template
            )
        seen.add(resource.id.lower())
