"""What a rule looks at: one imageTemplates resource in its canonical form, valid or not."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from orchestrator.template.node import UNKNOWN, Node
from orchestrator.template.schema.tables import is_strict

LINUX_TYPES = frozenset({"Shell"})
WINDOWS_TYPES = frozenset({"PowerShell", "WindowsRestart", "WindowsUpdate"})

_WINDOWS_OFFERS = ("windows", "microsoftsqlserver", "microsoftvisualstudio", "office-365", "microsoftsharepoint")
_LINUX_OFFERS = (
    "canonical", "ubuntu", "debian", "redhat", "rhel", "centos", "openlogic", "suse", "almalinux", "rocky",
    "oracle-linux", "mariner", "azure-linux", "azurelinux", "kali", "flatcar", "cbl-",
)  # fmt: skip


@dataclass(frozen=True)  # no slots: cached properties
class Subject:
    """`written` is the resource as the user wrote it (expanded), `node` its canonical form.

    `version` is the api-version it is judged by, `api_version` what the template says (may be empty).
    """

    written: Node
    node: Node
    name: str
    version: str
    api_version: str
    in_deployment: bool
    memo: dict[Any, Any] = field(default_factory=dict)
    """What rules share, so that each script is taken apart once."""

    @property
    def strict(self) -> bool:
        return is_strict(self.version)

    @cached_property
    def properties(self) -> Node:
        """`properties`, or an empty object in its place."""
        found = self.node.get("properties")
        return found if found is not None and found.is_object else self.node.derive({})

    @cached_property
    def source(self) -> Node | None:
        """The source when it is an object of a known type."""
        found = self.properties.get("source")
        return found if found is not None and found.is_object else None

    @cached_property
    def customizers(self) -> tuple[Node, ...]:
        """The customizers of known types, in order."""
        return _objects(self.properties.get("customize"))

    @cached_property
    def validators(self) -> tuple[Node, ...]:
        return _objects(self.properties.get("validate", "inVMValidations"))

    @property
    def steps(self) -> tuple[Node, ...]:
        """Customizers, then validators."""
        return self.customizers + self.validators

    @cached_property
    def distributors(self) -> tuple[Node, ...]:
        return _objects(self.properties.get("distribute"))

    @cached_property
    def os(self) -> Literal["linux", "windows", ""]:
        """The guest's system as its source names it, else as its customizers tell; empty when neither does."""
        return os_of_source(self.source) or _os_of_steps(self.steps)


def _objects(array: Node | None) -> tuple[Node, ...]:
    return tuple(item for item in array.items() if item.is_object) if array is not None else ()


def os_of_source(source: Node | None) -> Literal["linux", "windows", ""]:
    """The system that a marketplace source's publisher and offer name; empty when they do not tell."""
    if source is None or source.string("type") != "PlatformImage":
        return ""
    offer = f"{source.string('publisher')} {source.string('offer')}".lower()
    if not offer.strip() or source.value.get("offer", source).value is UNKNOWN:
        return ""
    if any(word in offer for word in _WINDOWS_OFFERS):
        return "windows" if "linux" not in offer and "ubuntu" not in offer else "linux"
    return "linux" if any(word in offer for word in _LINUX_OFFERS) else ""


def _os_of_steps(steps: tuple[Node, ...]) -> Literal["linux", "windows", ""]:
    types = {step.string("type") for step in steps}
    if types & WINDOWS_TYPES and not types & LINUX_TYPES:
        return "windows"
    return "linux" if types & LINUX_TYPES and not types & WINDOWS_TYPES else ""
