"""Storage accounts, as far as scripts around images make them. Blobs are read from the server's own endpoint."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from typing import Any

from orchestrator.record.resources import Resource
from orchestrator.service.context import Context
from orchestrator.service.resources.kind import Kind, Put, bad_request, member, shown

_NAME = re.compile(r"[a-z0-9]{3,24}")


class StorageAccount(Kind):
    """Microsoft.Storage/storageAccounts."""

    tracked = True
    always_ok = True

    def own_properties(self, put: Put) -> dict[str, Any]:
        """What was sent, with the service's defaults. `sku` is required, `kind` is StorageV2 when not given."""
        check_name(put.target.name)
        if not isinstance(member(put.body, "sku", "name"), str) and put.existing is None:
            raise bad_request(
                "InvalidRequestContent", "The storage account's 'sku' with its 'name' is required.", "sku"
            )
        return {
            "accessTier": "Hot",
            "supportsHttpsTrafficOnly": True,
            "minimumTlsVersion": "TLS1_2",
            "allowBlobPublicAccess": False,
            **put.properties,
            "primaryLocation": put.body.get("location") or (put.existing.location if put.existing else ""),
            "statusOfPrimary": "available",
        }

    def make(self, put: Put) -> Resource:
        """As any other; `kind` and `sku` have defaults."""
        body = {"kind": "StorageV2", **put.body}
        return super().make(Put(put.context, put.target, body, put.existing, put.api_version))

    def shown(self, context: Context, resource: Resource, origin: str, expand: str = "") -> dict[str, Any]:
        """With its endpoints, which depend on how the client reaches the server."""
        form = shown(resource)
        form["properties"]["primaryEndpoints"] = {"blob": f"{origin}/blob/{resource.name}/"}
        return form

    def action(self, context: Context, resource: Resource, name: str, origin: str) -> dict[str, Any] | None:
        """`listKeys` and `regenerateKey`: keys that are made from the account's id and are good for nothing else."""
        if name not in ("listkeys", "regeneratekey"):
            return None
        secret = context.entra.derived("storage keys")
        keys = []
        for key in ("key1", "key2"):
            digest = hmac.new(secret, f"{resource.id.lower()} {key}".encode(), hashlib.sha512).digest()
            keys.append({"keyName": key, "value": base64.b64encode(digest).decode(), "permissions": "FULL"})
        return {"keys": keys}


def check_name(name: str) -> None:
    """3 to 24 lower-case letters and digits; raises `ArmError`."""
    if not _NAME.fullmatch(name):
        raise bad_request(
            "AccountNameInvalid",
            f"{name[:60]} is not a valid storage account name. Storage account name must be between 3 and 24 "
            "characters in length and use numbers and lower-case letters only.",
        )
