"""The order of a template's resources: what is depended on comes first, else as written."""

from __future__ import annotations

from collections import deque

from orchestrator.service.deployments.errors import SYNTAX, InvalidDeployment, at_place, invalid_template
from orchestrator.service.deployments.ids import UNKNOWN_MARK
from orchestrator.service.deployments.planned import Plan, Planned
from orchestrator.template.arm.context import Reported
from orchestrator.template.arm.evaluate import value_of
from orchestrator.template.arm.expression import ExpressionError
from orchestrator.template.node import Node


def ordered(made: Plan) -> list[Planned]:
    """The resources in the order of their deployment. Raises InvalidDeployment for a circle or an unknown name."""
    waiting: dict[Planned, int] = {}
    followers: dict[Planned, list[Planned]] = {each: [] for each in made.resources}
    for resource in made.resources:
        before = _before(resource, made)
        resource.before = list(before)
        waiting[resource] = len(before)
        for each in before:
            followers[each].append(resource)
    ready = deque(each for each in made.resources if not waiting[each])
    done: list[Planned] = []
    while ready:
        resource = ready.popleft()
        done.append(resource)
        for follower in followers[resource]:
            waiting[follower] -= 1
            if not waiting[follower]:
                ready.append(follower)
    if len(done) < len(made.resources):
        raise _circle(next(each for each in made.resources if waiting[each]), made)
    return done


def _before(resource: Planned, made: Plan) -> dict[Planned, None]:
    """What must be there first: what it says, what it refers to, its parent. Charged to the budget."""
    found = dict.fromkeys(_depends_on(resource, made))
    for name in resource.asked:
        if (own := made.own(name)) is not None:
            found[own] = None
    parent = made.own(resource.id.rsplit("/", 2)[0])
    if parent is not None:
        found[parent] = None
    if resource in found:
        raise _circle(resource, made)
    return found


def _circle(resource: Planned, made: Plan) -> InvalidDeployment:
    message = f"Circular dependency detected on resource: '{resource.id}'. {SYNTAX}"
    return invalid_template(message, resource.node, made.template)


def _depends_on(resource: Planned, made: Plan) -> list[Planned]:
    listed = resource.node.get("dependsOn")
    found: list[Planned] = []
    for node in listed.items() if listed is not None else ():
        name = _name(node, resource, made)
        if UNKNOWN_MARK in name:
            continue
        own = made.loops.get(name.lower()) or [each for each in [made.own(name)] if each is not None]
        if not own:
            raise invalid_template(
                f"The resource '{name[:200]}' is not defined in the template. {SYNTAX}", node, made.template
            )
        _spend(len(own), node, made)
        found += own
    return found


def _spend(work: int, node: Node, made: Plan) -> None:
    try:
        made.context.budget.spend(work)
    except ExpressionError as error:
        raise invalid_template(f"{error.message}. {SYNTAX}", node, made.template) from None


def _name(node: Node, resource: Planned, made: Plan) -> str:
    try:
        value = value_of(node, resource.context)
    except (ExpressionError, Reported) as error:
        why = error.message if not isinstance(error, Reported) else "it depends on something that is not valid"
        label = at_place(f"The template resource '{resource.name[:120]}'", node, made.template)
        raise invalid_template(
            f"{label} has a dependency that is not valid: {why}. {SYNTAX}", node, made.template
        ) from None
    if not isinstance(value, str):
        raise invalid_template(
            f"A dependency of '{resource.name[:120]}' is not a string. {SYNTAX}", node, made.template
        )
    return value
