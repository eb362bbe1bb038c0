"""Which resource a path names: scope, provider, types and names, spelled as they are known."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest

from orchestrator.record.arm_ids import Scope
from orchestrator.service import azure
from orchestrator.service.context import Context
from orchestrator.service.envelope import ArmError


@dataclass(frozen=True, slots=True)
class Target:
    """A resource, or (one type more than names) a collection, or an action on a resource.

    `scope` is the id of what it lies in: a resource group, a subscription, "" for the tenant, or the resource that it
    extends (a role assignment on an image).
    """

    scope: str
    namespace: str
    types: tuple[str, ...]
    names: tuple[str, ...]

    @property
    def is_resource(self) -> bool:
        """Whether it names one resource."""
        return len(self.types) == len(self.names)

    @property
    def kind(self) -> str:
        """`Microsoft.Compute/galleries/images`."""
        return "/".join((self.namespace, *self.types))

    @property
    def id(self) -> str:
        """The id; of a collection the path."""
        pairs = zip_longest(self.types, self.names)
        return f"{self.scope}/providers/{self.namespace}" + "".join(f"/{t}/{n}" if n else f"/{t}" for t, n in pairs)

    @property
    def name(self) -> str:
        """The last name."""
        return self.names[-1]

    @property
    def path_name(self) -> str:
        """`gallery/image/1.0.0`, as errors spell it."""
        return "/".join(self.names)

    @property
    def owner(self) -> Target:
        """The resource that a collection, an action or a child belongs to."""
        names = self.names[:-1] if self.is_resource else self.names
        return Target(self.scope, self.namespace, self.types[:-1], names)

    @property
    def group(self) -> str:
        """The name of its resource group, or ""."""
        parts = self.scope.split("/")
        return parts[4] if len(parts) > 4 and parts[3].lower() == "resourcegroups" else ""

    @property
    def subscription(self) -> str:
        """Its subscription, or ""."""
        parts = self.scope.split("/")
        return parts[2] if len(parts) > 2 and parts[1].lower() == "subscriptions" else ""

    @property
    def extends(self) -> bool:
        """Whether its scope is another resource."""
        return "/providers/" in self.scope


def parse(context: Context, path: str) -> Target:
    """The target of a path; `ArmError` 404 where subscription or group are not there, or the path is none of ARM's."""
    parts = [part for part in path.split("/") if part]
    at = max((n for n, part in enumerate(parts[:-2]) if part.lower() == "providers"), default=-1)
    if at < 0:
        raise ArmError(404, "NotFound", "There is nothing at this path.")
    namespace, rest = azure.namespace_of(parts[at + 1]), parts[at + 2 :]
    scope = _scope(context, parts[:at])
    types, names = rest[0::2], rest[1::2]
    kind = azure.type_of("/".join((namespace, *types))).split("/")[1:]
    return Target(scope, namespace, tuple(kind), tuple(names))


def of_id(resource_id: str) -> Target:
    """The target of an id that is known to be one."""
    before, _, rest = resource_id.rpartition("/providers/")
    namespace, *pairs = rest.split("/")
    return Target(before, namespace, tuple(pairs[0::2]), tuple(pairs[1::2]))


def _scope(context: Context, parts: list[str]) -> str:
    if not parts:
        return ""
    if parts[0].lower() != "subscriptions" or len(parts) < 2:
        raise ArmError(404, "NotFound", "There is nothing at this path.")
    subscription = context.known_subscription(parts[1])
    if len(parts) == 2:
        return f"/subscriptions/{subscription}"
    if parts[2].lower() == "providers":
        return f"/subscriptions/{subscription}/{'/'.join(['providers', *parts[3:]])}"
    if parts[2].lower() != "resourcegroups" or len(parts) < 4:
        raise ArmError(404, "NotFound", "There is nothing at this path.")
    group = context.known_group(Scope(subscription, parts[3]))
    if len(parts) == 4:
        return str(group)
    base = _extended(parts[4:])
    return f"{group}/{base}"


def _extended(parts: list[str]) -> str:
    """The rest of the id of the resource that is extended."""
    if parts[0].lower() != "providers" or len(parts) < 4 or len(parts) % 2:
        raise ArmError(404, "NotFound", "There is nothing at this path.")
    return "/".join(["providers", *parts[1:]])
