"""The parameters of a deployment, checked as ARM checks them before anything else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.service.deployments.errors import InvalidDeployment, invalid_template, place
from orchestrator.template.arm.values import Unresolved, kind
from orchestrator.template.node import Node

_KINDS = {
    "string": ("string", "String, Uri"),
    "securestring": ("string", "String, Uri"),
    "int": ("int", "Integer"),
    "bool": ("bool", "Boolean"),
    "array": ("array", "Array"),
    "object": ("object", "Object"),
    "secureobject": ("object", "Object"),
}
_ACTUAL = {"string": "String", "int": "Integer", "bool": "Boolean", "array": "Array", "object": "Object"}
_SEE = "Please see https://aka.ms/arm-create-parameter-file for usage details."
_VALUES_HELP = "Please see https://aka.ms/arm-pass-parameter-values for usage details."


def check(template: Node, given: Mapping[str, Any]) -> None:
    """Every given value is declared and fits; every declared parameter has one. Raises InvalidDeployment."""
    section = template.get("parameters")
    declared = dict(section.members()) if section is not None else {}
    known = {name.lower(): node for name, node in declared.items()}
    unknown = [name for name in given if name.lower() not in known]
    if unknown:
        raise InvalidDeployment(
            "InvalidTemplate",
            f"Deployment template validation failed: 'The template parameters '{', '.join(unknown)[:400]}' in the "
            "parameters file are not valid; they are not present in the original template and can therefore not be "
            f"provided at deployment time. The only supported parameters for this template are "
            f"'{', '.join(declared)[:400]}'. {_VALUES_HELP}'.",
        )
    values = {name.lower(): value for name, value in given.items()}
    for name, node in declared.items():
        _check_type(name, node, template)
        if name.lower() in values:
            _check_value(name, node, values[name.lower()], template)
        elif not _has_default(node) and node.get("nullable") is None:
            line, column, _ = place(node, template)
            raise invalid_template(
                f"The value for the template parameter '{name}' at line '{line}' and column '{column}' is not "
                f"provided. {_SEE}",
                node,
                template,
            )


def is_secret(declared: Node | None) -> bool:
    """Whether the values of a parameter (or an output) are never shown."""
    return declared is not None and declared.string("type").lower().startswith("secure")


def _check_type(name: str, node: Node, template: Node) -> None:
    word = node.string("type")
    if node.get("$ref") is None and word.lower() not in _KINDS:
        line, column, _ = place(node, template)
        raise invalid_template(
            f"Template parameter '{name}' at line '{line}' and column '{column}' is not valid. The type '{word[:40]}' "
            f"is not supported. {_SEE}",
            node,
            template,
        )


def _check_value(name: str, node: Node, value: Any, template: Node) -> None:
    if isinstance(value, Unresolved):
        return
    wanted, words = _KINDS.get(node.string("type").lower(), ("", ""))
    if value is None and node.get("nullable") is not None:
        return
    actual = kind(value)
    if wanted and actual != wanted:
        raise invalid_template(
            f"Template parameter JToken type is not valid. Expected '{words}'. Actual "
            f"'{_ACTUAL.get(actual, 'Null' if value is None else 'Float')}'. Please see "
            f"https://aka.ms/resource-manager-parameter-files for usage details. (parameter '{name}')",
            node,
            template,
        )
    allowed = node.get("allowedValues")
    if allowed is not None and value not in allowed.plain():
        shown = ",".join(str(each) for each in allowed.plain()[:20])
        raise invalid_template(
            f"The provided value for the template parameter '{name}' is not valid. The value '{str(value)[:80]}' is "
            f"not part of the allowed value(s): '{shown}'.",
            node,
            template,
        )


def _has_default(node: Node) -> bool:
    return isinstance(node.value, dict) and "defaultValue" in node.value


def shown(template: Node, values: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters as a deployment shows them: type and value, of secrets the type alone."""
    section = template.get("parameters")
    found: dict[str, Any] = {}
    for name, node in section.members() if section is not None else ():
        word = {"securestring": "SecureString", "secureobject": "SecureObject"}.get(node.string("type").lower())
        found[name] = {"type": word} if word else {"type": node.string("type").capitalize()}
        if word is None and name.lower() in values:
            found[name]["value"] = values[name.lower()]
    return found
