"""The front door: tokens, api-versions, tricks with paths and bodies, operations, and what a bug looks like."""

from __future__ import annotations

import http.client
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from orchestrator.service import bodies
from orchestrator.service.context import Context
from orchestrator.service.envelope import ArmError
from orchestrator.service.paging import page
from orchestrator.service.paths import ArmRoute
from orchestrator.service.settings import Settings
from tests.contract.arm_client import GROUP, SUBSCRIPTION, Arm, arm_server, error_of

ECHO = f"{GROUP}/providers/Test/echoes/one"


def area(context: Context) -> list[ArmRoute]:
    """Routes that only this test has."""
    base = "/subscriptions/{subscription}/resourceGroups/{group}/providers/Test"

    def echo(request: Request) -> Response:
        scope = context.scope(request)
        return JSONResponse({"group": scope.resource_group, "name": request.path_params["name"]})

    def put(request: Request) -> Response:
        body = bodies.read_object(request)
        operation = context.operations.begin(
            "Create", request.url.path, subscription=SUBSCRIPTION, provider="Test", location="here",
            api_version=request.state.api_version,
        )  # fmt: skip
        work = {"refuse": _refuse, "break": lambda: 1 // 0, "do": lambda: {"worked": True}}.get(body.get("work", "do"))
        if work is not None:
            context.operations.start(operation, work)
        return context.operations.accepted(request, operation, status=201, body=body)

    def numbers(request: Request) -> Response:
        items = [f"{number:03}" for number in range(7)]
        return page(request, items, 3, str, key=str)

    def broken(_: Request) -> Response:
        raise RuntimeError("a bug, at https://x/?sv=1&sig=SECRET%3D of all places")

    return [
        ArmRoute(f"{base}/echoes/{{name}}", echo, methods=["GET"]),
        ArmRoute(f"{base}/echoes/{{name}}", put, methods=["PUT"]),
        ArmRoute(f"{base}/numbers", numbers, methods=["GET"]),
        ArmRoute(f"{base}/broken", broken, methods=["GET"]),
    ]


def _refuse() -> None:
    raise ArmError(400, "NotToday", "no")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(tmp_path_factory.mktemp("home"), largest_body=1000)


@pytest.fixture(scope="module")
def arm(settings: Settings) -> Iterator[Arm]:
    with arm_server(settings, area) as server:
        yield server


def test_health_needs_no_token(arm: Arm) -> None:
    answer = requests.get(f"{arm.origin}/_aib/health", timeout=10)
    assert (answer.status_code, answer.json()["status"]) == (200, "ok")


def test_a_request_without_a_token_is_refused(arm: Arm) -> None:
    answer = requests.get(f"{arm.origin}{ECHO}?api-version=2020-01-01", timeout=10)
    assert error_of(answer)[:2] == (401, "AuthenticationFailed")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer authorization_uri=")
    forged = arm.get(ECHO, headers={"Authorization": f"Bearer {arm.token[:-6]}AAAAAA"})
    assert error_of(forged)[:2] == (401, "InvalidAuthenticationToken")


def test_a_token_outlives_the_server_but_not_its_secret(arm: Arm, tmp_path: Path) -> None:
    with arm_server(Settings(tmp_path)) as first:
        token = first.token
    with arm_server(Settings(tmp_path)) as again:
        assert again.get(f"{GROUP}/nothing", headers={"Authorization": f"Bearer {token}"}).status_code == 404
    with arm_server(Settings(tmp_path, secret="s3cret")) as other:
        assert other.get(f"{GROUP}/nothing", headers={"Authorization": f"Bearer {token}"}).status_code == 401
    assert (tmp_path / "service" / "entra.pem").stat().st_mode & 0o777 == 0o600


def test_paths_are_matched_in_any_case_and_with_doubled_slashes(arm: Arm) -> None:
    for path in (ECHO, ECHO.upper(), ECHO.replace("resourceGroups", "resourcegroups"), ECHO.replace("/one", "//one/")):
        answer = arm.get(path)
        assert answer.status_code == 200, answer.text
        assert answer.json()["name"].lower() == "one"


@pytest.mark.parametrize(
    "tail",
    [
        "..",
        ".",
        "%2e%2e",
        "%2E%2e/x",
        "a%2f..%2fb",
        "a%5cb",
        "a%00b",
        "a%252e",
        "%ff%fe",
        "a%0d%0ab",
        "x" * 3000,
        "..%20",
    ],
)
def test_tricks_with_paths_are_refused(arm: Arm, tail: str) -> None:
    parts = urlsplit(arm.origin)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    headers = {"Authorization": f"Bearer {arm.token}"}
    connection.putrequest("GET", f"{GROUP}/providers/Test/echoes/{tail}?api-version=2020-01-01", skip_host=False)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    body = json.loads(answer.read())
    assert answer.status in (400, 414), body
    assert body["error"]["code"] in ("InvalidRequestUri", "RequestUriTooLong")
    connection.close()


def test_another_host_name_is_refused(arm: Arm) -> None:
    answer = arm.get(ECHO, headers={"Host": "evil.example"})
    assert error_of(answer)[:2] == (400, "InvalidHostName")


def test_the_api_version_is_asked_for(arm: Arm) -> None:
    assert error_of(arm.get(ECHO, version=""))[:2] == (400, "MissingApiVersionParameter")
    assert error_of(arm.get(ECHO, version="yesterday"))[:2] == (400, "InvalidApiVersionParameter")
    assert arm.get(f"{ECHO}?API-Version=2020-01-01&api-version=2020-01-01").status_code == 200


def test_another_subscription_and_another_group_are_not_found(arm: Arm) -> None:
    other = ECHO.replace(SUBSCRIPTION, str(uuid.uuid4()))
    assert error_of(arm.get(other))[:2] == (404, "SubscriptionNotFound")
    assert error_of(arm.get(ECHO.replace("/aib/", "/none/")))[:2] == (404, "ResourceGroupNotFound")


def test_what_is_nowhere_and_what_is_not_possible(arm: Arm) -> None:
    assert error_of(arm.get(f"{GROUP}/nowhere"))[:2] == (404, "NotFound")
    assert error_of(arm.post(ECHO))[:2] == (405, "MethodNotAllowed")


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"\xff", b'{"a": NaN}', b'{"a": "\\ud800"}', b'{"a":' + b"[" * 900, b"null", b'{"a": 1} x'],
)
def test_bodies_that_are_no_json_objects_are_refused(arm: Arm, body: bytes) -> None:
    assert error_of(arm.put(ECHO, body))[:2] == (400, "InvalidRequestContent")


def test_huge_bodies_are_refused(arm: Arm) -> None:
    assert error_of(arm.put(ECHO, b"x" * 1001))[:2] == (413, "RequestContentTooLarge")


def test_slow_bodies_are_refused(tmp_path: Path, token_key: Path) -> None:
    with arm_server(Settings(tmp_path, token_key=token_key, body_seconds=1.0), area) as arm:
        parts = urlsplit(arm.origin)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
        headers = {"Authorization": f"Bearer {arm.token}", "Content-Length": "500"}
        connection.request("PUT", f"{ECHO}?api-version=2020-01-01", body=b"{", headers=headers)
        assert connection.getresponse().status == 408
        connection.close()


def test_every_answer_has_its_ids(arm: Arm) -> None:
    mine = str(uuid.uuid4())
    headers = {"x-ms-client-request-id": mine, "x-ms-return-client-request-id": "true"}
    answer = arm.get(ECHO, headers={**headers, "x-ms-correlation-request-id": mine})
    assert answer.headers["x-ms-client-request-id"] == mine
    assert answer.headers["x-ms-correlation-request-id"] == mine
    assert uuid.UUID(answer.headers["x-ms-request-id"]) != uuid.UUID(mine)
    assert uuid.UUID(arm.get(f"{GROUP}/nowhere").headers["x-ms-request-id"])


def test_a_bug_is_told_of_without_its_insides(arm: Arm, settings: Settings) -> None:
    status, code, message = error_of(arm.get(f"{GROUP}/providers/Test/broken"))
    assert (status, code) == (500, "InternalServerError")
    assert "RuntimeError" in message and "Traceback" not in message
    (fault,) = (settings.home / "service" / "faults").glob("*.txt")
    assert "a bug, at" in fault.read_text() and "SECRET" not in fault.read_text()
    fault.unlink()


def test_pages_lead_to_each_other(arm: Arm) -> None:
    found, link = [], f"{GROUP}/providers/Test/numbers"
    pages = 0
    while link:
        body = arm.get(link).json()
        assert len(body["value"]) <= 3
        found += body["value"]
        link, pages = body.get("nextLink", ""), pages + 1
    assert (found, pages) == ([f"{number:03}" for number in range(7)], 3)
    assert arm.get(f"{GROUP}/providers/Test/numbers?$top=2").json()["value"] == ["000", "001"]
    assert arm.get(f"{GROUP}/providers/Test/numbers?$top=-1").status_code == 400


def test_operations_are_polled_to_their_end(arm: Arm) -> None:
    answer = arm.put(ECHO, {"work": "do"})
    assert (answer.status_code, answer.headers["Retry-After"]) == (201, "1")
    body = arm.finished(answer)
    assert (body["status"], body["properties"]) == ("Succeeded", {"worked": True})
    result = arm.get(answer.headers["Location"])
    assert (result.status_code, result.json()) == (200, {"worked": True})
    failed = arm.finished(arm.put(ECHO, {"work": "refuse"}))
    assert (failed["status"], failed["error"]) == ("Failed", {"code": "NotToday", "message": "no"})
    broken = arm.finished(arm.put(ECHO, {"work": "break"}))
    assert (broken["status"], broken["error"]["code"]) == ("Failed", "InternalOperationError")


def test_an_operation_is_still_known_after_a_restart(tmp_path: Path) -> None:
    with arm_server(Settings(tmp_path), area) as first:
        address = first.put(ECHO, {"work": "never"}).headers["Azure-AsyncOperation"]
    with arm_server(Settings(tmp_path), area) as again:
        path = address.removeprefix(first.origin)
        answer = again.get(path)
        assert (answer.json()["status"], answer.headers["Retry-After"]) == ("InProgress", "1")
        (pending,) = again.context.operations.pending()
        again.context.operations.end(pending, "Canceled", ArmError(409, "Stopped", "by the test"))
        assert again.get(path).json()["status"] == "Canceled"
        assert again.get(path.replace("/operations/", "/operationResults/")).status_code == 409
    other = path.replace(path.split("/operations/")[1][:36], str(uuid.uuid4()))
    with arm_server(Settings(tmp_path)) as third:
        assert error_of(third.get(other))[:2] == (404, "OperationNotFound")
