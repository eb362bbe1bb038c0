"""The OpenAPI document: valid, complete, and what schemathesis finds when it asks whatever the document allows.

`AIB_FUZZ_EXAMPLES` (make fuzz) asks for more examples, other ones each time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from openapi_spec_validator import validate
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance
from starlette.routing import Route

from orchestrator.service.app import create_app
from orchestrator.service.host.endpoint import Endpoint
from orchestrator.service.host.listen import Listen
from orchestrator.service.host.server import serving
from orchestrator.service.host.start import Wanted, prepared
from orchestrator.service.openapi import NOT_DESCRIBED
from orchestrator.service.settings import Settings
from orchestrator.template.schema.tables import tables

EXAMPLES = int(os.environ.get("AIB_FUZZ_EXAMPLES", "0"))
SUBSCRIPTION = "00000000-0000-0000-0000-000000000000"
GROUP = "fuzz"
SLOWEST_SECONDS = 20
"""An answer that takes longer counts as none."""
LEFT_OUT = ("/_aib/reset",)
"""It would take away what the others ask about."""


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    options = Settings(tmp_path_factory.mktemp("fuzz"), in_memory=True, scripted=True)
    with ExitStack() as stack:
        served, found = stack.enter_context(prepared(Wanted(options, Listen(port=0, http=True))))
        stack.enter_context(serving(served))
        yield found


@pytest.fixture(scope="module")
def bearer(endpoint: Endpoint) -> dict[str, str]:
    form = {"grant_type": "client_credentials", "client_id": "fuzz", "client_secret": "x"}
    answer = requests.post(f"{endpoint.url}/t/oauth2/token", data=form, timeout=30)
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


@pytest.fixture(scope="module")
def document(endpoint: Endpoint) -> Any:
    return requests.get(f"{endpoint.url}/_aib/openapi.json", timeout=30).json()


@pytest.mark.parametrize("version", tables().versions)
def test_the_document_is_valid(endpoint: Endpoint, version: str) -> None:
    document = requests.get(f"{endpoint.url}/_aib/openapi.json?api-version={version}", timeout=30).json()
    assert document["openapi"] == "3.1.0"
    validate(document)


def test_every_route_is_described(document: Any, tmp_path: Path) -> None:
    app = create_app(Settings(tmp_path, scripted=True, in_memory=True))
    routes = [route for route in app.routes if isinstance(route, Route) and not NOT_DESCRIBED.match(route.path_format)]
    described = {(path, method.upper()) for path, entry in document["paths"].items() for method in entry}
    assert described == {(route.path_format, method) for route in routes for method in route.methods or ()}


def test_templates_are_described_as_their_version_has_them(endpoint: Endpoint) -> None:
    def fields(version: str) -> set[str]:
        address = f"{endpoint.url}/_aib/openapi.json?api-version={version}"
        return set(requests.get(address, timeout=30).json()["components"]["schemas"]["properties"]["properties"])

    assert "validate" not in fields("2020-02-14")
    assert "validate" in fields("2022-02-14")
    assert "customize" in fields("2018-02-01-preview")


def test_nothing_that_the_document_allows_breaks_the_server(
    endpoint: Endpoint, bearer: dict[str, str], document: Any
) -> None:
    """No 500, no hang, and errors in the shape that the document says: for every operation."""
    group = f"{endpoint.url}/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}?api-version=2024-11-01"
    requests.put(group, json={"location": "westus2"}, headers=bearer, timeout=30)
    schema = schemathesis.openapi.from_dict(document)
    asked, found = 0, []
    for result in schema.get_all_operations():
        operation = result.ok()
        if operation.path not in LEFT_OUT:
            try:
                asked += ask(operation, endpoint.url, bearer)
            except (FailureGroup, requests.RequestException) as error:
                found.append(f"{operation.label}: {error}")
    assert not found, "\n\n".join(found)
    assert asked > 300
    assert requests.get(f"{endpoint.url}/_aib/health", timeout=30).json()["status"] == "ok"


def ask(operation: Any, url: str, bearer: dict[str, str]) -> int:
    """Ask one operation for several examples; every second one about what is really there."""
    asked = 0

    @settings(
        max_examples=EXAMPLES or 8, deadline=None, database=None, derandomize=not EXAMPLES,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=operation.as_strategy())
    def one(case: Any) -> None:
        nonlocal asked
        asked += 1
        if asked % 4 and "subscription" in (case.path_parameters or {}):
            case.path_parameters["subscription"] = SUBSCRIPTION
            if "group" in case.path_parameters and asked % 2:
                case.path_parameters["group"] = GROUP
            case.query = {**(case.query or {}), "api-version": "2024-02-01"}
        response = case.call(base_url=url, headers=bearer, timeout=SLOWEST_SECONDS)
        case.validate_response(
            response, checks=[not_a_server_error, content_type_conformance, response_schema_conformance]
        )

    one()
    return asked
