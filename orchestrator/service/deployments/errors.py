"""What is wrong with a deployment, in ARM's words: code, message, and the violation's place in the template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.template.node import Node

SYNTAX = "Please see https://aka.ms/arm-syntax for usage details."
RESOURCES = "Please see https://aka.ms/arm-syntax-resources for usage details."
FUNCTIONS = "Please see https://aka.ms/arm-functions for usage details."


class InvalidDeployment(Exception):
    """The request cannot be deployed: `code` and `message` as ARM has them, `info` where it knows the place."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        details: Sequence[Mapping[str, Any]] = (),
        info: Mapping[str, Any] | None = None,
        target: str = "",
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details
        self.info = info
        self.target = target


def place(node: Node | None, root: Node) -> tuple[int, int, str]:
    """Line and column (1-based) within the template that `root` is, and the path as ARM writes it."""
    if node is None:
        return 1, 1, ""
    start, here = root.position, node.position
    line = here.line - start.line + 1
    column = here.column - start.column + 1 if line == 1 else here.column
    pointer = node.pointer.removeprefix(root.pointer)
    return max(line, 1), max(column, 1), ".".join(part for part in pointer.split("/") if part)


def invalid_template(message: str, node: Node | None, root: Node) -> InvalidDeployment:
    """`InvalidTemplate` with the sentence that ARM puts around every cause."""
    line, column, path = place(node, root)
    info = {"lineNumber": line, "linePosition": column, "path": path}
    return InvalidDeployment("InvalidTemplate", f"Deployment template validation failed: '{message}'.", info=info)


def at_place(what: str, node: Node | None, root: Node) -> str:
    """`The template resource 'x' at line '1' and column '2'`."""
    line, column, _ = place(node, root)
    return f"{what} at line '{line}' and column '{column}'"
