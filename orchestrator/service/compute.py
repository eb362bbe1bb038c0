"""The area of what Compute only lists: sizes, SKUs, and the platform images that this machine's catalogue knows."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from orchestrator.plan import sizes
from orchestrator.plan.catalogue import Catalogue, CatalogueEntry, RegisteredSource
from orchestrator.plan.platform_images import PLATFORM_TYPE, Urn, facts_of, generation_of
from orchestrator.plan.version_order import version_key
from orchestrator.record import arm_ids
from orchestrator.record.resources import Resource
from orchestrator.service import azure
from orchestrator.service.context import Context
from orchestrator.service.envelope import ArmError
from orchestrator.service.paths import ArmRoute

_LOCATION = "/subscriptions/{subscription}/providers/Microsoft.Compute/locations/{location}"
_PUBLISHERS = f"{_LOCATION}/publishers"
_OFFERS = f"{_PUBLISHERS}/{{publisher}}/artifacttypes/vmimage/offers"
_SKUS = f"{_OFFERS}/{{offer}}/skus"
_VERSIONS = f"{_SKUS}/{{sku}}/versions"
LATEST = "latest"


def routes(context: Context) -> list[BaseRoute]:
    """Lists of Microsoft.Compute, and the aliases that `az vm image list` reads."""
    area = _Area(context)
    return [
        ArmRoute(f"{_LOCATION}/vmSizes", area.sizes, methods=["GET"]),
        ArmRoute("/subscriptions/{subscription}/providers/Microsoft.Compute/skus", area.skus, methods=["GET"]),
        ArmRoute(_PUBLISHERS, area.publishers, methods=["GET"]),
        ArmRoute(_OFFERS, area.offers, methods=["GET"]),
        ArmRoute(_SKUS, area.image_skus, methods=["GET"]),
        ArmRoute(_VERSIONS, area.versions, methods=["GET"]),
        ArmRoute(f"{_VERSIONS}/{{version}}", area.version, methods=["GET"]),
        Route("/metadata/vm-image-aliases", area.aliases, methods=["GET"]),
    ]


def urns(context: Context) -> list[Urn]:
    """Every platform image that can be named: those stored, and those of the catalogue without wild cards."""
    found: dict[str, Urn] = {}
    for entry in Catalogue.of(context.store.home).entries:
        for text in entry.urns:
            if not any(char in text for char in "*?[") and not isinstance(entry.source, RegisteredSource):
                found[text.lower()] = Urn(*text.split(":"))
    for resource in context.store.list(PLATFORM_TYPE):
        urn = Urn(*resource.id.split("/")[-5:-2])
        found[str(urn).lower()] = urn
    return [found[key] for key in sorted(found)]


class _Area:
    def __init__(self, context: Context) -> None:
        self._context = context

    def sizes(self, request: Request) -> Response:
        self._place(request)
        return JSONResponse({"value": [_size(each) for each in sizes.common()]})

    def skus(self, request: Request) -> Response:
        self._context.subscription(request)
        wanted = request.query_params.get("$filter", "").lower().partition("location eq '")[2].partition("'")[0]
        place = arm_ids.region(wanted)
        return Response(_skus(place if place in azure.regions() else ""), media_type="application/json")

    def publishers(self, request: Request) -> Response:
        return self._names(request, (urn.publisher for urn in urns(self._context)))

    def offers(self, request: Request) -> Response:
        return self._names(request, (urn.offer for urn in self._matching(request, "publisher")))

    def image_skus(self, request: Request) -> Response:
        return self._names(request, (urn.sku for urn in self._matching(request, "publisher", "offer")))

    def versions(self, request: Request) -> Response:
        urn = self._urn(request)
        expand = "properties" in request.query_params.get("$expand", "").lower()
        newest_first = "desc" in request.query_params.get("$orderby", "").lower()
        found = self._versions(urn)
        found.sort(key=version_key, reverse=newest_first)
        top = request.query_params.get("$top", "")
        if top.isascii() and top.isdigit():
            found = found[: int(top[:6])]
        return JSONResponse([self._version(request, urn, each, full=expand) for each in found])

    def version(self, request: Request) -> Response:
        urn, wanted = self._urn(request), request.path_params["version"]
        known = self._versions(urn)
        if wanted.lower() == LATEST and known:
            wanted = max(known, key=version_key)
        if wanted not in known:
            raise ArmError(
                404,
                "PlatformImageNotFound",
                f"The platform image '{urn}:{wanted}' is not available. Verify that all fields in the storage profile "
                "are correct.",
            )
        return JSONResponse(self._version(request, urn, wanted, full=True))

    def aliases(self, _: Request) -> Response:
        """In the shape of the document of aliases that az looks for (`vmImageAliasDoc`)."""
        by_system: dict[str, dict[str, Any]] = {"Linux": {}, "Windows": {}}
        for urn in urns(self._context):
            name = f"{urn.offer}-{urn.sku}".replace("_", "-")
            entry = {"publisher": urn.publisher, "offer": urn.offer, "sku": urn.sku, "version": LATEST}
            by_system[self._system(urn)][name] = {**entry, "architecture": "x64"}
        value = {"aliases": {"type": "object", "value": by_system}}
        return JSONResponse({"contentVersion": "1.0.0.0", "parameters": {}, "resources": [], "outputs": value})

    def _place(self, request: Request) -> tuple[str, str]:
        """(subscription, region); `ArmError` for a region that there is not."""
        subscription = self._context.subscription(request)
        location = arm_ids.region(request.path_params["location"])
        if location not in azure.regions():
            raise ArmError(
                400,
                "NoRegisteredProviderFound",
                f"No registered resource provider found for location '{location[:60]}'. The supported locations are "
                f"'{', '.join(azure.regions())}'.",
            )
        return subscription, location

    def _names(self, request: Request, names: Iterable[str]) -> Response:
        """Children of the request's own path: ARM gives a bare array here."""
        subscription, location = self._place(request)
        base = f"/Subscriptions/{subscription}/Providers/Microsoft.Compute/Locations/{location}/Publishers"
        params = request.path_params
        if "publisher" in params:
            base += f"/{params['publisher']}/ArtifactTypes/VMImage/Offers"
        if "offer" in params:
            base += f"/{params['offer']}/Skus"
        unique = {name.lower(): name for name in names}
        return JSONResponse(
            [{"id": f"{base}/{unique[key]}", "name": unique[key], "location": location} for key in sorted(unique)]
        )

    def _matching(self, request: Request, *keys: str) -> list[Urn]:
        params = request.path_params
        found = [
            urn for urn in urns(self._context) if all(getattr(urn, key).lower() == params[key].lower() for key in keys)
        ]
        if not found:
            what = ":".join(params[key] for key in keys)
            raise ArmError(404, "NotFound", f"Artifact: VMImage was not found: {what[:200]}.")
        return found

    def _urn(self, request: Request) -> Urn:
        self._place(request)
        return self._matching(request, "publisher", "offer", "sku")[0]

    def _versions(self, urn: Urn) -> list[str]:
        """The stored versions; an image that is only in the catalogue has the one called `latest`."""
        stored = [each.name for each in self._stored(urn)]
        return stored or ([LATEST] if self._entry(urn) is not None else [])

    def _stored(self, urn: Urn) -> list[Resource]:
        return self._context.store.list(PLATFORM_TYPE, under=urn.versions_id)

    def _entry(self, urn: Urn) -> CatalogueEntry | None:
        return Catalogue.of(self._context.store.home).find(urn.publisher, urn.offer, urn.sku)

    def _system(self, urn: Urn) -> str:
        stored = self._stored(urn)
        if stored:
            return str(facts_of(stored[-1]).get("os", "linux")).capitalize()
        entry = self._entry(urn)
        return entry.os.capitalize() if entry is not None else "Linux"

    def _version(self, request: Request, urn: Urn, version: str, *, full: bool) -> dict[str, Any]:
        subscription, location = self._place(request)
        form: dict[str, Any] = {
            "id": f"/Subscriptions/{subscription}/Providers/Microsoft.Compute/Locations/{location}/Publishers/"
            f"{urn.publisher}/ArtifactTypes/VMImage/Offers/{urn.offer}/Skus/{urn.sku}/Versions/{version}",
            "name": version,
            "location": location,
        }
        if full:
            form["properties"] = {
                "osDiskImage": {"operatingSystem": self._system(urn)},
                "dataDiskImages": [],
                "hyperVGeneration": generation_of(urn),
                "architecture": "x64",
                "automaticOSUpgradeProperties": {"automaticOSUpgradeSupported": False},
            }
        return form


@cache
def _skus(place: str) -> bytes:
    """The SKUs of one region, or of all: two megabytes, made once."""
    places = [place] if place else list(azure.regions())
    return json.dumps({"value": [_sku(each, places) for each in sizes.common()]}, separators=(",", ":")).encode()


def _size(size: sizes.Size) -> dict[str, Any]:
    return {
        "name": size.name,
        "numberOfCores": size.vcpus,
        "osDiskSizeInMB": 1047552,
        "resourceDiskSizeInMB": 0,
        "memoryInMB": size.memory_mib,
        "maxDataDiskCount": 0,
    }


def _sku(size: sizes.Size, locations: list[str]) -> dict[str, Any]:
    capabilities = {
        "vCPUs": str(size.vcpus),
        "MemoryGB": f"{size.memory_mib / 1024:g}",
        "HyperVGenerations": ",".join(sorted(size.generations)),
        "CpuArchitectureType": "x64",
        "GPUs": str(size.gpus),
    }
    return {
        "resourceType": "virtualMachines",
        "name": size.name,
        "tier": "Standard",
        "size": size.name.removeprefix("Standard_"),
        "locations": locations,
        "locationInfo": [{"location": each, "zones": [], "zoneDetails": []} for each in locations],
        "capabilities": [{"name": name, "value": value} for name, value in capabilities.items()],
        "restrictions": [],
    }
