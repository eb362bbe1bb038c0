"""User-assigned identities: the principals that templates name and scripts give roles to."""

from __future__ import annotations

import re
from typing import Any

from orchestrator.record.resources import Resource
from orchestrator.service.entra import TENANT
from orchestrator.service.resources.kind import Kind, Put, bad_request, build, principal

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{2,127}")


class UserAssignedIdentity(Kind):
    """Microsoft.ManagedIdentity/userAssignedIdentities."""

    tracked = True

    def make(self, put: Put) -> Resource:
        """The service gives these no provisioningState."""
        return build(put, self.own_properties(put), tracked=True)

    def own_properties(self, put: Put) -> dict[str, Any]:
        """`tenantId`, `principalId` and `clientId`, the same whenever an identity of this id is made."""
        if not _NAME.fullmatch(put.target.name):
            raise bad_request(
                "InvalidResourceName",
                f"The identity name '{put.target.name[:80]}' must have 3 to 128 letters, digits, '-' or '_'.",
            )
        return {
            "tenantId": TENANT,
            "principalId": principal(put.target.id, "principal"),
            "clientId": principal(put.target.id, "client"),
        }
