"""From a deployment document to its imageTemplates resources with every expression evaluated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from orchestrator.template.arm.context import Context, Reported
from orchestrator.template.arm.deployment import Deployment, Shared, say_error
from orchestrator.template.arm.evaluate import at, copy_loops, evaluate_text, loop_count, value_of
from orchestrator.template.arm.expression import ExpressionError, is_expression
from orchestrator.template.arm.functions_azure import Scope
from orchestrator.template.arm.functions_text import want
from orchestrator.template.arm.values import Budget, Unresolved, text
from orchestrator.template.node import UNKNOWN, Node
from orchestrator.template.recognise import NO_RESOURCE, NO_RESOURCE_HINT, Found, check_type, looks_like_template
from orchestrator.template.report import Report

MAX_NESTED = 20
MAX_TEMPLATES = 800  # ARM's limit of resources in one deployment
NESTED_TYPE = "microsoft.resources/deployments"
_ONLY_ARM = frozenset({"copy", "condition", "dependsOn", "scope", "resources", "comments", "metadata"})


def resources(
    root: Node, parameters: Mapping[str, Any], report: Report, scope: Scope, target_version: str = ""
) -> Iterator[Found]:
    """Every imageTemplates resource that the deployment `root` would create, expanded.

    A resource whose condition is false is left out; a copy loop gives one for each turn. What fails is reported as
    AIB004 and leaves UNKNOWN in its place. `target_version` also stands in for an apiVersion nobody gave.
    """
    run = Shared(report, Budget(), datetime.now(UTC), target_version)
    deployment = Deployment(root, parameters, scope, run)
    yield from _of_list(root, deployment.context, run, 0)
    if not run.seen:
        report.error("AIB005", root, NO_RESOURCE, hint=NO_RESOURCE_HINT, source="SEED S1")
    deployment.missing()
    for note in deployment.context.notes:  # of variables and defaults, which belong to no single place
        report.info("AIB004", root, note)


def _of_list(owner: Node, context: Context, run: Shared, depth: int) -> Iterator[Found]:
    """The resources of a template, of a nested template, or the children of a resource."""
    listed = owner.get("resources")
    if listed is None:
        return
    for resource in listed.items() or [child for _, child in listed.members()]:
        if resource.is_object and not is_existing(resource):
            try:
                yield from _of_resource(resource, context, run, depth)
            except RecursionError:
                too_deep = ExpressionError("the resource is nested too deeply to be expanded")
                say_error(run.report, resource, too_deep)


def _of_resource(resource: Node, context: Context, run: Shared, depth: int) -> Iterator[Found]:
    run.seen += looks_like_template(resource)
    loop = resource.get("copy")
    repeated: list[Context] = [context]
    if loop is not None and loop.is_object:
        counted = _try(loop, lambda: turns(loop, context), run)
        repeated = counted if isinstance(counted, list) else []
    for turn in repeated:
        if run.made > MAX_TEMPLATES:
            return
        if not _wanted(resource, turn, run):
            continue
        if resource.string("type").lower() == NESTED_TYPE:
            yield from _of_nested(resource, turn, run, depth + 1)
        elif looks_like_template(resource):
            run.made += 1
            if run.made > MAX_TEMPLATES:
                if run.made == MAX_TEMPLATES + 1:
                    say_error(run.report, resource, ExpressionError(f"more than {MAX_TEMPLATES} resources are made"))
                return
            check_type(resource, run.report)
            yield Found(expand_node(resource, turn, run, top=True), in_deployment=True)
        else:
            yield from _of_list(resource, turn, run, depth)


def turns(loop: Node, context: Context) -> list[Context]:
    """The context of each turn of a resource's copy loop."""
    name, count = loop.get("name"), loop.get("count")
    if name is None or count is None:
        raise ExpressionError("a copy loop has a name and a count")
    label = text(value_of(name, context))
    return [at(context, label, i) for i in range(loop_count(count, context))]


def _wanted(resource: Node, context: Context, run: Shared) -> bool:
    condition = resource.get("condition")
    if condition is None:
        return True
    value = _try(condition, lambda: value_of(condition, context), run)
    if value is False:
        run.report.info("AIB004", condition, "the condition is false: this resource is not deployed")
    return value is not False


def _of_nested(resource: Node, context: Context, run: Shared, depth: int) -> Iterator[Found]:
    """The template of a nested deployment: with its own names (inner scope), or with those around it (outer)."""
    template = resource.get("properties", "template")
    if template is None or not template.is_object:
        if resource.get("properties", "templateLink") is not None:
            run.report.info("AIB004", resource, "a linked template is not fetched: check it by itself")
        return
    if depth > MAX_NESTED:
        say_error(run.report, resource, ExpressionError(f"deployments nested deeper than {MAX_NESTED}"))
        return
    scope = context.scope.inside(
        _text_at(resource, "subscriptionId", context, run), _text_at(resource, "resourceGroup", context, run)
    )
    inner = resource.string("properties", "expressionEvaluationOptions", "scope").lower() == "inner"
    if not inner:
        yield from _of_list(template, context.within(scope=scope), run, depth)
        return
    given = {
        name: value
        for name, node in _pairs(resource.get("properties", "parameters"))
        if (value := _try(node, lambda node=node: parameter_value(node, context), run)) is not UNKNOWN
    }
    deployment = Deployment(template, given, scope, run)
    yield from _of_list(template, deployment.context, run, depth)
    deployment.missing()


def parameter_value(node: Node, context: Context | None) -> Any:
    """The value of `{"value": ...}` or of a Key Vault `{"reference": ...}`, which only Azure can read."""
    value = node.get("value")
    if value is not None:
        return value.plain() if context is None else value_of(value, context)
    if node.get("reference") is not None:
        return Unresolved(f"<secret {node.string('reference', 'secretName')}>")
    return None


def expand_node(node: Node, context: Context, run: Shared, *, top: bool = False) -> Node:
    """The node with every expression in it evaluated; each new value keeps the place of its expression."""
    if isinstance(node.value, str):
        return _expand_string(node, context, run)
    size = len(node.value) if isinstance(node.value, list | dict) else 0
    if _try(node, lambda: run.budget.make(1 + size), run) is UNKNOWN:
        return node.derive(UNKNOWN)
    if node.is_array:
        return node.derive([expand_node(item, context, run) for item in node.items()])
    if not node.is_object:
        return node
    members: dict[str, Node] = {}
    keys: dict[str, int] = {}
    for key, child in node.members():
        if top and key in _ONLY_ARM:
            continue
        if top and key == "apiVersion" and run.target_version and is_expression(str(child.value)):
            members[key] = child.derive(run.target_version)
        elif key == "copy" and child.is_array and not top:
            members.update(_looped(child, context, run))
        else:
            name = _try(child, lambda key=key: text(evaluate_text(key, context)), run)
            name = key if name is UNKNOWN else name
            members[name] = expand_node(child, context, run)
            keys[name] = node.keys.get(key, child.start)
    return node.derive(members, keys)


def _looped(loops: Node, context: Context, run: Shared) -> dict[str, Node]:
    """The arrays that a property `copy` makes."""
    made = _try(loops, lambda: copy_loops(loops, context), run)
    if made is UNKNOWN or _try(loops, lambda: run.budget.make(sum(each[1] for each in made)), run) is UNKNOWN:
        return {}
    return {
        name: body.derive([expand_node(body, at(context, name, i), run) for i in range(count)])
        for name, count, body in made
    }


def _expand_string(node: Node, context: Context, run: Shared) -> Node:
    if not node.value.startswith("["):
        return node
    own = context.within(notes={})
    value = _try(node, lambda: evaluate_text(node.value, own), run)
    if value is UNKNOWN:
        return node.derive(UNKNOWN)
    for note in own.notes:
        run.report.info("AIB004", node, f"{note}: {text(value)[:120]}")
    made = _try(node, lambda: to_node(value, node, run.budget), run)
    return made if isinstance(made, Node) else node.derive(UNKNOWN)


def to_node(value: Any, place: Node, budget: Budget) -> Node:
    """A tree of nodes for a plain value, all at the place of `place`; sizes are charged to the budget first."""
    before = budget.left
    budget.measure(value)
    budget.make(before - budget.left)
    root = place.derive(value)
    work = [root]
    while work:
        node = work.pop()
        if isinstance(node.value, dict):
            children = {key: _child(node, key, child) for key, child in node.value.items()}
            node.keys = dict.fromkeys(children, place.start)
            work.extend(children.values())
            node.value = children
        elif isinstance(node.value, list):
            node.value = [_child(node, index, child) for index, child in enumerate(node.value)]
            work.extend(node.value)
    return root


def _child(parent: Node, key: str | int, value: Any) -> Node:
    return Node(value, parent.source, parent.start, parent.end, parent=parent, key=key)


def _try(node: Node | None, make: Any, run: Shared) -> Any:
    """The made value, or UNKNOWN after reporting at `node` why there is none."""
    try:
        return make()
    except Reported:
        return UNKNOWN
    except ExpressionError as error:
        if node is not None:
            say_error(run.report, node, error)
        return UNKNOWN


def _text_at(resource: Node, key: str, context: Context, run: Shared) -> str:
    node = resource.get(key)
    if node is None:
        return ""
    value = _try(node, lambda: text(want(value_of(node, context), "string", key)), run)
    return value if isinstance(value, str) else ""


def _pairs(node: Node | None) -> list[tuple[str, Node]]:
    return list(node.members()) if node is not None else []


def is_existing(resource: Node) -> bool:
    """Whether a resource of a template is only read, not deployed."""
    existing = resource.get("existing")
    return existing is not None and existing.value is True
