"""imageTemplates through HTTP: made, read, listed, changed, removed; refused in the service's words."""

from __future__ import annotations

import hashlib
import threading
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests

from orchestrator.record.store import Store
from orchestrator.service.settings import Settings
from tests.contract.arm_client import (
    GROUP,
    IDENTITY,
    SUBSCRIPTION,
    TEMPLATES,
    Arm,
    arm_server,
    error_of,
    template,
)
from tests.contract.conftest import files_with
from tests.unit.conftest import WebServer


@pytest.fixture(scope="module")
def arm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arm]:
    """A server whose runs are scripted: nothing is fetched at submission either."""
    with arm_server(Settings(tmp_path_factory.mktemp("home"), scripted=True, page_size=2)) as server:
        yield server


def with_distributors(*names: str) -> list[dict[str, Any]]:
    image = f"{GROUP}/providers/Microsoft.Compute/images"
    return [
        {"type": "ManagedImage", "runOutputName": name, "imageId": f"{image}/{name}", "location": "eastus"}
        for name in names
    ]


def test_a_template_is_made_and_shown(arm: Arm) -> None:
    steps = [{"type": "PowerShell", "inline": ["exit 0"]}]
    windows = {
        "type": "PlatformImage", "publisher": "MicrosoftWindowsServer", "offer": "WindowsServer",
        "sku": "2022-datacenter", "version": "latest",
    }  # fmt: skip
    body = template("shown", customize=steps, tags={"a": "b"}, source=windows) | {"location": "East US"}
    answer = arm.put(f"{TEMPLATES}/shown", body)
    assert answer.status_code == 201
    assert "Location" not in answer.headers
    assert (
        "/providers/Microsoft.VirtualMachineImages/locations/eastus/operations/"
        in answer.headers["Azure-AsyncOperation"]
    )
    assert answer.json()["properties"]["provisioningState"] == "Creating"
    assert arm.finished(answer)["status"] == "Succeeded"
    shown = arm.get(f"{TEMPLATES}/SHOWN".replace("resourceGroups", "resourcegroups")).json()
    assert (shown["id"], shown["name"], shown["location"], shown["tags"]) == (
        f"{TEMPLATES}/shown", "shown", "eastus", {"a": "b"},
    )  # fmt: skip
    assert shown["type"] == "Microsoft.VirtualMachineImages/imageTemplates"
    assert shown["identity"] == body["identity"]
    assert shown["systemData"]["createdBy"] == "tests"
    properties = shown["properties"]
    assert properties["provisioningState"] == "Succeeded"
    assert properties["customize"] == [{**steps[0], "runElevated": False, "runAsSystem": False}]
    assert "aib" not in properties and "lastRunStatus" not in properties
    old = arm.get(f"{TEMPLATES}/shown", version="2020-02-14").json()
    assert "systemData" not in old and old["properties"]["customize"] == [{**steps[0], "runElevated": False}]


def test_lists_come_in_pages(arm: Arm) -> None:
    for name in ("list-a", "list-b", "list-c"):
        arm.made(name)
    for start in (TEMPLATES, TEMPLATES.replace("/resourceGroups/aib", "")):
        names, link = [], start
        while link:
            body = arm.get(link).json()
            assert len(body["value"]) <= 2
            names += [each["name"] for each in body["value"]]
            link = body.get("nextLink", "")
        assert [name for name in names if name.startswith("list-")] == ["list-a", "list-b", "list-c"]
        assert len(names) == len(set(names))


def test_another_put_is_a_conflict_unless_it_says_the_same(arm: Arm) -> None:
    path = arm.made("again")
    assert arm.put(path, template("again")).status_code == 200
    echoed = arm.get(path).json()
    assert arm.put(path, echoed).status_code == 200
    for changed in (template("again", buildTimeoutInMinutes=90), template("again", tags={"new": "one"})):
        assert error_of(arm.put(path, changed)) == (
            409, "Conflict", "Update/Upgrade of image templates is currently not supported",
        )  # fmt: skip
    flat = arm.put(path, template("again", buildTimeoutInMinutes=90), version="2020-02-14")
    assert (flat.status_code, flat.json()["code"]) == (409, "Conflict")


def test_of_concurrent_puts_one_makes_the_template(arm: Arm) -> None:
    answers: list[requests.Response] = []

    def put(minutes: int) -> None:
        answers.append(arm.put(f"{TEMPLATES}/race", template("race", buildTimeoutInMinutes=minutes)))

    threads = [threading.Thread(target=put, args=(60 + number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409, 409]


def test_removing(arm: Arm) -> None:
    path = arm.made("gone")
    answer = arm.delete(path)
    assert answer.status_code == 202
    assert "Azure-AsyncOperation" not in answer.headers
    assert arm.get(answer.headers["Location"]).status_code == 204
    assert error_of(arm.get(path))[:2] == (404, "ResourceNotFound")
    assert arm.delete(path).status_code == 204
    assert arm.put(path, template("gone", buildTimeoutInMinutes=70)).status_code == 201


def test_patching(arm: Arm) -> None:
    path = arm.made("patched", template("patched", distribute=with_distributors("one", "two")))

    def patch(body: Any, version: str = "2024-02-01") -> requests.Response:
        return arm.ask("PATCH", path, body, version=version)

    answer = patch({"tags": {"x": "y"}})
    assert answer.status_code == 202 and answer.json()["tags"] == {"x": "y"}
    assert arm.finished(answer)["status"] == "Succeeded"
    profile = {"properties": {"vmProfile": {"osDiskSizeGB": 40}}}
    assert patch(profile).json()["properties"]["vmProfile"] == {"vmSize": "Standard_B1s", "osDiskSizeGB": 40}
    assert error_of(patch(profile, "2023-07-01"))[:2] == (409, "Conflict")
    more = {"properties": {"distribute": with_distributors("one", "two", "three")}}
    assert len(patch(more).json()["properties"]["distribute"]) == 3
    fewer = {"properties": {"distribute": with_distributors("one", "three")}}
    assert error_of(patch(fewer)) == (
        400, "ValidationFailed", "Validation failed: Distribute target with Runoutput name two not found in the update "
        "request. Deleting a distribution target is not allowed.",
    )  # fmt: skip
    for body in ({"location": "westus2"}, {"properties": {"buildTimeoutInMinutes": 3}}, {"properties": {"source": {}}}):
        assert error_of(patch(body))[:2] == (409, "Conflict")
    assert error_of(patch({"tags": {"x": 1}}))[:2] == (400, "ValidationFailed")
    assert error_of(patch({"properties": {"distribute": 5}}))[:2] == (400, "ValidationFailed")
    assert error_of(patch([]))[:2] == (400, "InvalidRequestContent")
    assert error_of(arm.ask("PATCH", f"{TEMPLATES}/nobody", {"tags": {}}))[:2] == (404, "ResourceNotFound")
    shown = arm.get(path).json()
    assert shown["tags"] == {"x": "y"} and shown["systemData"]["lastModifiedBy"] == "tests"


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("2024-02-01", template("x", vmProfile={"vmsize": "Standard_B1s"}),
     'Unmarshalling entity encountered error: unmarshalling type *v2024_02_01.ImageTemplate: struct field Properties: '
     'unknown field "vmsize". There is an issue with the syntax with the JSON template you are submitting.'),
    ("2022-07-01", template("x", source={"type": "ManagedImage", "imageId": "nonsense"}),
     "Validation failed: 'ImageTemplate.properties.source': Field 'imageId' has a bad value: 'nonsense'. Please"),
    ("2022-07-01", template("x", distribute=[{**with_distributors("o")[0], "type": "managedImage"}]),
     "Validation failed: 'ImageTemplate.properties': Field 'distribute[0].type' has a bad value: ''. Please review"),
    ("2022-07-01", template("x") | {"identity": None},
     "Validation failed: 'ImageTemplate': Missing field 'identity'. Please review"),
    ("2022-07-01", template("x", buildTimeoutInMinutes=1000),
     "Validation failed: 'ImageTemplate.properties.buildTimeoutInMinutes': buildTimeoutInMinutes is 1000, it must be"),
    ("2022-07-01", template("x", vmProfile={"vmSize": "Standard_Q77"}),
     "Validation failed: 'ImageTemplate.properties.vmProfile.vmSize': vmSize 'Standard_Q77' is not a size"),
]  # fmt: skip


@pytest.mark.parametrize(("version", "body", "message"), WRONG, ids=[f"E{n}" for n in range(len(WRONG))])
def test_invalid_templates_are_refused_in_the_services_words(
    arm: Arm, version: str, body: dict[str, Any], message: str
) -> None:
    answer = arm.put(f"{TEMPLATES}/wrong", body, version=version)
    status, code, said = error_of(answer)
    assert (status, code) == (400, "ValidationFailed")
    assert said.startswith(message), said
    details = answer.json()["error"]["details"]
    assert details and all(each["code"].startswith("AIB") and each["target"] for each in details)
    assert arm.get(f"{TEMPLATES}/wrong").status_code == 404


def test_until_2020_02_14_errors_are_flat(arm: Arm) -> None:
    body = template("x", source={"type": "ManagedImage", "imageId": "nonsense"})
    old = arm.put(f"{TEMPLATES}/flat", body, version="2020-02-14").json()
    assert set(old) == {"code", "message", "target", "details"} and old["code"] == "ValidationFailed"
    # What ARM itself says was never flat.
    assert error_of(arm.get(f"{TEMPLATES}/flat", version="2020-02-14"))[:2] == (404, "ResourceNotFound")


@pytest.mark.parametrize("version", ["2018-02-01", "2099-01-01", "2024-02-01-preview", "2016-01-01"])
def test_an_unknown_api_version_is_refused(arm: Arm, version: str) -> None:
    status, code, message = error_of(arm.put(f"{TEMPLATES}/x", template(), version=version))
    assert (status, code) == (400, "NoRegisteredProviderFound")
    assert f"API version '{version}' for type 'imageTemplates'" in message and "2024-02-01" in message
    assert error_of(arm.get(TEMPLATES, version=version))[1] == "NoRegisteredProviderFound"


def test_every_api_version_makes_templates(arm: Arm) -> None:
    for version in ("2019-05-01-preview", "2020-02-14", "2021-10-01", "2022-02-14", "2022-07-01", "2023-07-01",
                    "2024-02-01", "2025-10-01"):  # fmt: skip
        path = arm.made(f"v{version}", version=version)
        assert arm.get(path, version=version).json()["properties"]["provisioningState"] == "Succeeded"


def test_bodies_that_are_no_templates(arm: Arm) -> None:
    path = f"{TEMPLATES}/odd"
    odd: list[tuple[Any, str]] = [
        ({}, "LocationRequired"),
        ({"location": "eastus"}, "ValidationFailed"),
        ({"location": "eastus", "properties": []}, "ValidationFailed"),
        ({"location": 5, "properties": {}}, "LocationRequired"),
        (template() | {"location": "\U0001f600 here"}, "LocationNotAvailableForResourceType"),
        (template() | {"location": "a/../b"}, "LocationNotAvailableForResourceType"),
        (template() | {"type": "Microsoft.Compute/images"}, "InvalidRequestContent"),
        (template() | {"name": "other"}, "InvalidRequestContent"),
        (template(customize=[[[]]]), "ValidationFailed"),
        (template(customize={"a": 1}), "ValidationFailed"),
        (template(source=[]), "ValidationFailed"),
        (template(distribute=[]), "ValidationFailed"),
        (template(tags={"a": 1}), "ValidationFailed"),
        (template() | {"properties": {"resources": [template()]}}, "ValidationFailed"),
    ]
    for body, code in odd:
        status, said, _ = error_of(arm.put(path, body))
        assert (status, said) == (400, code), body
    for name in ("bad name", "x" * 65, "ä", "a,b", "a;b"):
        assert arm.put(f"{TEMPLATES}/{name}", template()).status_code == 400, name
    assert arm.get(path).status_code == 404


def test_other_scopes_are_not_found(arm: Arm) -> None:
    other = TEMPLATES.replace(SUBSCRIPTION, str(uuid.uuid4()))
    for method, path in (("GET", other), ("PUT", f"{other}/x"), ("DELETE", f"{other}/x"), ("POST", f"{other}/x/run")):
        body = template() if method == "PUT" else None
        assert error_of(arm.ask(method, path, body))[:2] == (404, "SubscriptionNotFound")
    missing = TEMPLATES.replace("/aib/", "/none/")
    assert error_of(arm.put(f"{missing}/x", template()))[:2] == (404, "ResourceGroupNotFound")


def test_operations_of_the_provider(arm: Arm) -> None:
    found = arm.get("/providers/Microsoft.VirtualMachineImages/operations").json()["value"]
    assert "Microsoft.VirtualMachineImages/imageTemplates/run/action" in [each["name"] for each in found]


# What is fetched at submission


@pytest.fixture
def settings(tmp_path: Path, token_key: Path) -> Settings:
    return Settings(tmp_path / "home", private_fetch=True, token_key=token_key)


def sources(uri: str, sha256: str = "") -> dict[str, Any]:
    step = {"type": "Shell", "name": "s", "scriptUri": uri} | ({"sha256Checksum": sha256} if sha256 else {})
    return template("fetched", customize=[step])


def test_scripts_are_kept_as_they_were_at_submission(settings: Settings, web: WebServer) -> None:
    uri = web.on("/s.sh", b"echo one\n")
    digest = hashlib.sha256(b"echo one\n").hexdigest()
    with arm_server(settings) as arm:
        path = arm.made("fetched", sources(f"{uri}?sv=1&sig=SECRET%3D"))
        web.on("/s.sh", b"echo two\n")
        assert (settings.home / "fetched" / digest).read_bytes() == b"echo one\n"
        shown = arm.get(path).text
        assert "SECRET" not in shown and "sig=" in shown
        stored = arm.context.store.get(path)
        assert stored is not None
        assert stored.properties["aib"]["submission"]["payloads"] == {"/properties/customize/0": digest}
        (kept,) = files_with(settings.home, b"SECRET")
        assert kept.parent.name == "submissions" and kept.stat().st_mode & 0o777 == 0o600
        assert arm.delete(path).status_code == 202
        assert files_with(settings.home, b"SECRET") == []


@pytest.mark.parametrize(
    ("path", "sha256", "message"),
    [
        ("/missing.sh", "", "Downloading external file ("),
        ("/s.sh", "0" * 64, "wrong checksum of"),
    ],
)
def test_what_cannot_be_fetched_fails_the_template(
    settings: Settings, web: WebServer, path: str, sha256: str, message: str
) -> None:
    web.on("/s.sh", b"echo one\n")
    with arm_server(settings) as arm:
        answer = arm.put(f"{TEMPLATES}/fetched", sources(f"{web.url}{path}", sha256))
        assert answer.status_code == 201
        done = arm.finished(answer)
        assert done["status"] == "Failed" and done["error"]["message"].startswith(message), done
        shown = arm.get(f"{TEMPLATES}/fetched").json()["properties"]
        assert shown["provisioningState"] == "Failed"
        assert shown["provisioningError"]["message"].startswith(message)
        refused = error_of(arm.post(f"{TEMPLATES}/fetched/run"))
        assert refused[1] == "OperationNotAllowed" and "provisioning state: failed" in refused[2]
        assert error_of(arm.put(f"{TEMPLATES}/fetched", template("fetched")))[1] == "Conflict"
        assert arm.delete(f"{TEMPLATES}/fetched").status_code == 202


def test_private_addresses_are_not_fetched_from(settings: Settings, web: WebServer) -> None:
    uri = web.on("/s.sh", b"echo one\n")
    with arm_server(replace(settings, private_fetch=False)) as arm:
        done = arm.finished(arm.put(f"{TEMPLATES}/fetched", sources(uri)))
        assert done["status"] == "Failed" and "private network" in str(done["error"])
    assert web.seen == []


@pytest.mark.parametrize("uri", ["/etc/passwd", "file:///etc/passwd", "s.sh", "../s.sh", "FILE:///etc/passwd"])
def test_local_paths_are_refused(settings: Settings, uri: str) -> None:
    with arm_server(settings) as arm:
        status, code, message = error_of(arm.put(f"{TEMPLATES}/fetched", sources(uri)))
        assert (status, code) == (400, "ValidationFailed")
        assert "is a local path" in message or "uri" in message.lower(), message
        vhd = [{"type": "VHD", "runOutputName": "v", "uri": "/tmp/x.vhd"}]
        assert arm.put(f"{TEMPLATES}/vhd", template("vhd", distribute=vhd)).status_code == 400


def test_the_owner_can_allow_a_folder(settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "scripts"
    folder.mkdir()
    (folder / "s.sh").write_text("echo one\n")
    (folder / "out.sh").symlink_to("/etc/passwd")
    (tmp_path / "beside.sh").write_text("echo no\n")
    with arm_server(replace(settings, local_roots=(folder,))) as arm:
        arm.made("fetched", sources((folder / "s.sh").as_uri()))
        for uri in ((tmp_path / "beside.sh").as_uri(), (folder / "out.sh").as_uri(), f"{folder}/../beside.sh"):
            assert arm.put(f"{TEMPLATES}/other", sources(uri)).status_code == 400, uri


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ({"type": "PlatformImage", "publisher": "No", "offer": "such", "sku": "one", "version": "latest"},
         "BadPIRSource"),
        ({"type": "ManagedImage", "imageId": f"{GROUP}/providers/Microsoft.Compute/images/none"},
         "BadManagedImageSource"),
        ({"type": "SharedImageVersion",
          "imageVersionId": f"{GROUP}/providers/Microsoft.Compute/galleries/g/images/d/versions/latest"},
         "BadSharedImageVersionSource"),
    ],
)  # fmt: skip
def test_a_source_that_is_not_there_fails_the_template(settings: Settings, source: dict[str, str], code: str) -> None:
    with arm_server(settings) as arm:
        done = arm.finished(arm.put(f"{TEMPLATES}/sourced", template("sourced", source=source)))
        assert (done["status"], done["error"]["code"]) == ("Failed", code)
        error = arm.get(f"{TEMPLATES}/sourced").json()["properties"]["provisioningError"]
        assert error["provisioningErrorCode"] == code


def test_a_template_in_the_making_fails_when_the_server_ends(settings: Settings) -> None:
    with arm_server(settings) as arm:
        path = arm.made("cut", template("cut"))
        stored = arm.context.store.get(path)
        assert stored is not None
        arm.context.store.put(replace(stored, properties={**stored.properties, "provisioningState": "Creating"}))
        assert error_of(arm.delete(path))[1] == "OperationNotAllowed"
    with arm_server(settings) as again:
        shown = again.get(path).json()["properties"]
        assert shown["provisioningState"] == "Failed" and "submit it again" in shown["provisioningError"]["message"]


def test_the_end_of_the_server_does_not_wait_for_a_download(settings: Settings, web: WebServer) -> None:
    asked, go = threading.Event(), threading.Event()

    def slowly(handler: Any) -> None:
        handler.send_response(200)
        handler.end_headers()
        asked.set()
        go.wait(60)

    uri = web.on("/slow.sh", slowly)
    with arm_server(settings) as arm:
        assert arm.put(f"{TEMPLATES}/slow", sources(uri)).status_code == 201
        assert asked.wait(30)
    stored = Store(settings.home).get(f"{TEMPLATES}/slow")
    go.set()
    assert stored is not None and stored.properties["provisioningState"] == "Failed"
    assert "The server ended" in stored.properties["provisioningError"]["message"]


def test_identities_stay_as_they_were_given(arm: Arm) -> None:
    path = arm.made("identity")
    assert list(arm.get(path).json()["identity"]["userAssignedIdentities"]) == [IDENTITY]
