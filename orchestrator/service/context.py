"""What all areas of the server share, and the questions that each asks first: is the subscription there, the group?"""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request

from orchestrator.record.arm_ids import DEFAULT_SCOPE, Scope
from orchestrator.record.store import Store
from orchestrator.service.entra import Entra
from orchestrator.service.envelope import group_not_found, subscription_not_found
from orchestrator.service.operations import Operations
from orchestrator.service.runs.runs import Runs
from orchestrator.service.settings import Settings

GROUP = "Microsoft.Resources/resourceGroups"


@dataclass(frozen=True, slots=True)
class Context:
    """One server: its settings, the store it shares with the command line, sign-in, operations, and runs."""

    settings: Settings
    store: Store
    entra: Entra
    operations: Operations
    runs: Runs

    def subscription(self, request: Request) -> str:
        """The subscription of the path (parameter `subscription`), spelled as it is known; `ArmError` 404."""
        return self.known_subscription(request.path_params["subscription"])

    def known_subscription(self, given: str) -> str:
        """The subscription, spelled as it is known; `ArmError` 404 for one that nobody has."""
        for known in self.settings.subscriptions:
            if known.lower() == given.lower():
                return known
        if self.store.list(under=f"/subscriptions/{given}"):
            return given.lower()
        raise subscription_not_found(given)

    def scope(self, request: Request) -> Scope:
        """Subscription and group of the path (parameters `subscription` and `group`); `ArmError` 404 without them."""
        scope = Scope(self.subscription(request), request.path_params["group"])
        return self.known_group(scope)

    def known_group(self, scope: Scope) -> Scope:
        """The same with the group spelled as it was made; `ArmError` 404 when there is none.

        A group that the command line put something into is there without ever having been made, and so is its default.
        """
        made = self.store.get(str(scope))
        if made is not None:
            return Scope(scope.subscription, made.name)
        default = DEFAULT_SCOPE.resource_group
        if scope.resource_group.lower() == default:
            return Scope(scope.subscription, default)
        if self.store.list(under=str(scope)):
            return scope
        raise group_not_found(scope.resource_group)
