"""Role definitions and assignments: kept and shown, never asked. Nothing on this machine is guarded by them."""

from __future__ import annotations

import uuid
from typing import Any

from orchestrator.record.resources import Resource
from orchestrator.service import azure
from orchestrator.service.context import Context
from orchestrator.service.envelope import ArmError
from orchestrator.service.resources.kind import Kind, Put, bad_request, build, member, shown

DEFINITION = "Microsoft.Authorization/roleDefinitions"
ASSIGNMENT = "Microsoft.Authorization/roleAssignments"


class RoleDefinition(Kind):
    """Microsoft.Authorization/roleDefinitions."""

    always_created = True
    deleted_body = True

    def make(self, put: Put) -> Resource:
        """A custom role: `roleName`, `permissions` and `assignableScopes` are required; the name is unique."""
        _guid(put)
        asked = put.properties
        name = asked.get("roleName")
        if not isinstance(name, str) or not name:
            raise bad_request("RoleDefinitionNameNullOrEmpty", "The role definition name cannot be null or empty.")
        if put.target.name in azure.roles():
            raise ArmError(403, "CannotModifySystemRole", f"The built-in role '{name}' cannot be changed.")
        for key in ("permissions", "assignableScopes"):
            if not isinstance(asked.get(key), list) or not asked[key]:
                raise bad_request("InvalidRoleDefinition", f"The role definition needs '{key}', with one at least.")
        for other in put.context.store.list(DEFINITION):
            if other.name != put.target.name and other.properties.get("roleName") == name:
                raise ArmError(
                    409,
                    "RoleDefinitionWithSameNameExists",
                    f"A custom role with the same name already exists in this directory. ('{name[:60]}')",
                )
        return build(put, {"type": "CustomRole", "description": "", **asked})


class RoleAssignment(Kind):
    """Microsoft.Authorization/roleAssignments."""

    always_created = True
    deleted_body = True

    def make(self, put: Put) -> Resource:
        """`roleDefinitionId` (that is there) and `principalId` are required; the same twice is refused."""
        _guid(put)
        asked = put.properties
        role, principal = asked.get("roleDefinitionId"), asked.get("principalId")
        if not isinstance(role, str) or not isinstance(principal, str) or not _is_guid(principal):
            raise bad_request(
                "InvalidPrincipalId", "A role assignment needs 'roleDefinitionId' and a GUID as 'principalId'."
            )
        guid = role.rstrip("/").rpartition("/")[2].lower()
        if guid not in azure.roles() and not any(
            each.name.lower() == guid for each in put.context.store.list(DEFINITION)
        ):
            raise ArmError(
                404,
                "RoleDefinitionDoesNotExist",
                f"The specified role definition with ID '{guid[:60]}' does not exist.",
            )
        for other in put.context.store.list(ASSIGNMENT):
            same = (
                other.id.rpartition("/providers/")[0].lower() == put.target.scope.lower()
                and other.properties.get("principalId") == principal
                and str(other.properties.get("roleDefinitionId", "")).lower().endswith(guid)
            )
            if same and other.name.lower() != put.target.name.lower():
                raise ArmError(
                    409, "RoleAssignmentExists", f"The role assignment already exists. The ID of the conflicting role "
                    f"assignment is {other.name.replace('-', '')}.",
                )  # fmt: skip
        more = {"scope": put.target.scope or "/", "principalType": "ServicePrincipal"}
        return build(put, {**more, **asked})


def built_in(guid: str, scope: str) -> Resource:
    """A built-in role as a resource, its id as seen from `scope` (a subscription, or "")."""
    name, what = azure.roles()[guid]
    permissions = {"actions": ["*/read"] if name == "Reader" else ["*"], "notActions": [], "dataActions": []}
    properties = {
        "roleName": name,
        "type": "BuiltInRole",
        "description": what,
        "assignableScopes": ["/"],
        "permissions": [{**permissions, "notDataActions": []}],
    }
    return Resource(f"{scope}/providers/{DEFINITION}/{guid}", DEFINITION, guid, properties=properties)


def listed(context: Context, kind: str, scope: str, query: str) -> list[dict[str, Any]]:
    """Roles or assignments seen from a scope, as `$filter` asks: roleName, principalId, type, atScope()."""
    base = "/".join(scope.split("/")[:3])
    found = [each for each in context.store.list(kind) if _seen(each, scope, at_scope="atscope()" in query.lower())]
    if kind == DEFINITION:
        found = [*(built_in(guid, base) for guid in azure.roles()), *found]
    for key in ("roleName", "principalId", "type"):
        wanted = _equals(query, key)
        if wanted:
            found = [each for each in found if str(member(each.properties, key) or "").lower() == wanted.lower()]
    if "assignedto(" in query.lower():
        wanted = query.lower().partition("assignedto('")[2].partition("'")[0]
        found = [each for each in found if str(each.properties.get("principalId", "")).lower() == wanted]
    return [shown(each) for each in found]


def _seen(resource: Resource, scope: str, *, at_scope: bool) -> bool:
    if resource.type == DEFINITION:
        return True
    own = resource.id.rpartition("/providers/")[0].lower()
    wanted = scope.lower()
    above = wanted == own or wanted.startswith(f"{own}/")
    return above or (not at_scope and own.startswith(f"{wanted}/"))


def _equals(query: str, key: str) -> str:
    """The value of `key eq 'value'` in a filter."""
    at = query.lower().find(f"{key.lower()} eq '")
    return query[at:].split("'")[1] if at >= 0 and query[at:].count("'") >= 2 else ""


def _guid(put: Put) -> None:
    if not _is_guid(put.target.name):
        raise bad_request("InvalidRoleAssignmentId", f"The name '{put.target.name[:60]}' must be a GUID.")


def _is_guid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False
