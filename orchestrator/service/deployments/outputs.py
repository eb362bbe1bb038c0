"""The outputs of a deployment: evaluated when everything is there, and held against their declared types."""

from __future__ import annotations

from typing import Any

from orchestrator.service.deployments.errors import InvalidDeployment
from orchestrator.template.arm.context import Context, Reported
from orchestrator.template.arm.evaluate import at, loop_count, value_of
from orchestrator.template.arm.expression import ExpressionError
from orchestrator.template.arm.values import kind
from orchestrator.template.node import Node

_KINDS = {
    "string": ("String", "string"),
    "securestring": ("SecureString", "string"),
    "int": ("Int", "int"),
    "bool": ("Bool", "bool"),
    "array": ("Array", "array"),
    "object": ("Object", "object"),
    "secureobject": ("SecureObject", "object"),
}
_HELP = (
    "Please see error details and deployment operations. Please see https://aka.ms/arm-common-errors for usage details."
)


def evaluate(template: Node, context: Context) -> dict[str, Any]:
    """`{name: {type, value}}`; of secrets the type alone. Raises InvalidDeployment that names every failed one."""
    section = template.get("outputs")
    found: dict[str, Any] = {}
    wrong: dict[str, str] = {}
    for name, node in section.members() if section is not None else ():
        try:
            made = _one(node, context)
        except ExpressionError as error:
            wrong[name] = "it depends on something that is not valid" if isinstance(error, Reported) else error.message
            continue
        if made is not None:
            found[name] = made
    if wrong:
        names = ",".join(wrong)
        details = [
            {
                "code": "DeploymentOutputEvaluationFailed",
                "target": name,
                "message": f"The template output '{name}' is not valid: {why}.",
            }
            for name, why in wrong.items()
        ]
        raise InvalidDeployment(
            "DeploymentOutputEvaluationFailed",
            f"Unable to evaluate template outputs: '{names}'. {_HELP}",
            details=details,
        )
    return found


def _one(node: Node, context: Context) -> dict[str, Any] | None:
    condition = node.get("condition")
    if condition is not None and value_of(condition, context) is False:
        return None
    shown, wanted = _KINDS.get(node.string("type").lower(), ("String", ""))
    loop, written = node.get("copy"), node.get("value")
    if loop is not None and loop.is_object:
        value: Any = _looped(loop, context)
    elif written is None:
        raise ExpressionError("it has no value")
    else:
        value = value_of(written, context)
    if wanted and kind(value) != wanted and not (value is None and node.get("nullable") is not None):
        raise ExpressionError(f"Template output JToken type is not valid. Expected '{shown}'. Actual '{kind(value)}'")
    return {"type": shown} if shown.startswith("Secure") else {"type": shown, "value": value}


def _looped(loop: Node, context: Context) -> list[Any]:
    count, body = loop.get("count"), loop.get("input")
    if count is None or body is None:
        raise ExpressionError("a copy loop of an output has count and input")
    return [value_of(body, at(context, "", index)) for index in range(loop_count(count, context))]
