"""Functions about the deployment, its scope and its resources, and dates."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from orchestrator.template.arm.expression import ExpressionError
from orchestrator.template.arm.functions_text import text_of, whole
from orchestrator.template.arm.values import Unresolved

NO_SUBSCRIPTION = "00000000-0000-0000-0000-000000000000"
_DURATION = re.compile(
    r"(-?)P(?:(\d{1,4})Y)?(?:(\d{1,5})M)?(?:(\d{1,5})W)?(?:(\d{1,6})D)?(?:T(?:(\d{1,7})H)?(?:(\d{1,8})M)?(?:(\d{1,9})S)?)?"
)


@dataclass(frozen=True, slots=True)
class Scope:
    """Where the template counts as deployed to. The defaults are this machine's own names, not Azure's."""

    subscription: str = NO_SUBSCRIPTION
    resource_group: str = "aib"
    location: str = "eastus"
    deployment: str = "aib"
    tenant: str = NO_SUBSCRIPTION

    @property
    def subscription_id(self) -> str:
        return f"/subscriptions/{self.subscription}"

    @property
    def group_id(self) -> str:
        return f"{self.subscription_id}/resourceGroups/{self.resource_group}"

    def inside(self, subscription: str, resource_group: str) -> Scope:
        """The scope of a nested deployment."""
        return replace(
            self,
            subscription=subscription or self.subscription,
            resource_group=resource_group or self.resource_group,
        )


def resource_group(scope: Scope) -> dict[str, Any]:
    return {
        "id": scope.group_id,
        "name": scope.resource_group,
        "type": "Microsoft.Resources/resourceGroups",
        "location": scope.location,
        "tags": {},
        "properties": {"provisioningState": "Succeeded"},
    }


def subscription(scope: Scope) -> dict[str, Any]:
    return {
        "id": scope.subscription_id,
        "subscriptionId": scope.subscription,
        "tenantId": scope.tenant,
        "displayName": "local",
    }


def deployment(scope: Scope) -> dict[str, Any]:
    return {
        "name": scope.deployment,
        "location": scope.location,
        "properties": {"mode": "Incremental", "provisioningState": "Accepted", "template": {}, "parameters": {}},
    }


def environment() -> dict[str, Any]:
    """The public cloud's well-known suffixes."""
    return {
        "name": "AzureCloud",
        "resourceManager": "https://management.azure.com/",
        "authentication": {"loginEndpoint": "https://login.microsoftonline.com/", "tenant": "common"},
        "suffixes": {"storage": "core.windows.net", "keyvaultDns": ".vault.azure.net"},
    }


def resource_id(scope: Scope, *arguments: Any) -> str:
    """`resourceId([subscription], [group], type, names...)`."""
    before, kind, names = _split(arguments)
    if len(before) > 2:
        raise ExpressionError("resourceId() takes at most a subscription and a group before the type")
    group = before[-1] if before else scope.resource_group
    subscription_id = before[0] if len(before) == 2 else scope.subscription
    if not group:  # a deployment to a subscription has none
        return subscription_resource_id(scope, *arguments)
    return f"/subscriptions/{subscription_id}/resourceGroups/{group}/providers/{_path(kind, names)}"


def subscription_resource_id(scope: Scope, *arguments: Any) -> str:
    before, kind, names = _split(arguments)
    return f"/subscriptions/{before[0] if before else scope.subscription}/providers/{_path(kind, names)}"


def tenant_resource_id(*arguments: Any) -> str:
    _, kind, names = _split(arguments)
    return f"/providers/{_path(kind, names)}"


def management_group_resource_id(*arguments: Any) -> str:
    before, kind, names = _split(arguments)
    group = before[0] if before else "aib"
    return f"/providers/Microsoft.Management/managementGroups/{group}/providers/{_path(kind, names)}"


def extension_resource_id(base: Any, kind: Any, *names: Any) -> str:
    return f"{text_of(base)}/providers/{_path(text_of(kind), [text_of(name) for name in names])}"


def _split(arguments: tuple[Any, ...]) -> tuple[list[str], str, list[str]]:
    """What stands before the resource type, the type (the first argument with a slash), the names."""
    texts = [text_of(argument, "an argument of resourceId()") for argument in arguments]
    at = next((i for i, part in enumerate(texts) if "/" in part and not part.startswith(("/", "<"))), None)
    if at is None:
        raise ExpressionError("there is no resource type such as Microsoft.Compute/images among the arguments")
    return texts[:at], texts[at], texts[at + 1 :]


def _path(kind: str, names: list[str]) -> str:
    """`Provider/a/b` with names n1, n2 is `Provider/a/n1/b/n2`; a name may hold several segments."""
    provider, _, rest = kind.partition("/")
    types = rest.split("/")
    parts = [part for name in names for part in (name.split("/") if not isinstance(name, Unresolved) else [name])]
    if len(types) != len(parts):
        raise ExpressionError(f"{kind} needs {len(types)} names, not {len(parts)}")
    return "/".join([provider, *(f"{t}/{n}" for t, n in zip(types, parts, strict=True))])


def moment(value: Any) -> datetime:
    """A date and time in ISO 8601."""
    try:
        found = datetime.fromisoformat(text_of(value).strip().replace("Z", "+00:00"))
    except ValueError:
        raise ExpressionError(f"{text_of(value)[:40]!r} is no date") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def date_add(base: Any, duration: Any, style: Any = "yyyy-MM-ddTHH:mm:ssZ") -> str:
    found = _DURATION.fullmatch(text_of(duration))
    if not found or not any(found.groups()[1:]):
        raise ExpressionError(f"{text_of(duration)[:40]!r} is no ISO 8601 duration", hint="for example P1D or PT2H")
    years, months, weeks, days, hours, minutes, seconds = (int(part or 0) for part in found.groups()[1:])
    days += years * 365 + months * 30 + weeks * 7
    delta = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    try:
        return date_text(moment(base) + (-delta if found[1] else delta), style)
    except OverflowError:
        raise ExpressionError("the date is out of range") from None


def from_epoch(seconds: Any) -> str:
    try:
        return date_text(datetime.fromtimestamp(whole(seconds), UTC), "yyyy-MM-ddTHH:mm:ssZ")
    except (OverflowError, ValueError, OSError):
        raise ExpressionError("the date is out of range") from None


_DATE_PARTS = {
    "yyyy": "%Y", "yy": "%y", "MMMM": "%B", "MMM": "%b", "MM": "%m", "dddd": "%A", "ddd": "%a", "dd": "%d",
    "HH": "%H", "hh": "%I", "mm": "%M", "ss": "%S", "fff": "%f", "tt": "%p",
}  # fmt: skip
_SINGLE_FORMATS = {
    "u": "yyyy-MM-dd HH:mm:ssZ", "s": "yyyy-MM-ddTHH:mm:ss", "o": "yyyy-MM-ddTHH:mm:ss.fff", "d": "MM/dd/yyyy",
    "R": "ddd, dd MMM yyyy HH:mm:ss GMT", "r": "ddd, dd MMM yyyy HH:mm:ss GMT",
}  # fmt: skip
_DATE_TOKEN = re.compile(r"y+|M+|d+|H+|h+|m+|s+|f+|t+|.", re.DOTALL)


def date_text(value: datetime, style: Any) -> str:
    """A date in a .NET format string."""
    pattern = text_of(style, "the date format")
    pattern = _SINGLE_FORMATS.get(pattern, pattern)
    if len(pattern) > 200:
        raise ExpressionError("the date format is too long")

    def one(found: re.Match[str]) -> str:
        part = found[0]
        code = _DATE_PARTS.get(part)
        if code == "%f":
            return f"{value.microsecond // 1000:03d}"
        if code:
            return value.astimezone(UTC).strftime(code)
        numbers = {
            "y": value.year % 100, "M": value.month, "d": value.day, "H": value.hour, "h": value.hour % 12 or 12,
            "m": value.minute, "s": value.second,
        }  # fmt: skip
        return str(numbers.get(part, part))

    return _DATE_TOKEN.sub(one, pattern)


FUNCTIONS: dict[str, tuple[int, int, Callable[..., Any]]] = {
    "datetimeadd": (2, 3, date_add),
    "datetimefromepoch": (1, 1, from_epoch),
    "datetimetoepoch": (1, 1, lambda value: int(moment(value).timestamp())),
    "environment": (0, 0, environment),
    "extensionresourceid": (2, 100, extension_resource_id),
    "managementgroupresourceid": (1, 100, management_group_resource_id),
    "tenant": (0, 0, lambda: {"tenantId": NO_SUBSCRIPTION, "displayName": "local", "id": "/"}),
    "tenantresourceid": (1, 100, tenant_resource_id),
}
SCOPED: dict[str, tuple[int, int, Callable[..., Any]]] = {
    "deployment": (0, 0, deployment),
    "resourcegroup": (0, 0, resource_group),
    "resourceid": (2, 100, resource_id),
    "subscription": (0, 0, subscription),
    "subscriptionresourceid": (2, 100, subscription_resource_id),
}
ONLY_IN_AZURE = frozenset({
    "reference", "references", "providers", "pickzones", "tologicalzone", "tologicalzones", "tophysicalzone",
    "tophysicalzones", "managementgroup", "deployer", "getsecret", "list",
})  # fmt: skip
"""Known only to a deployment; `list*` (listKeys, ...) belongs to them too."""
