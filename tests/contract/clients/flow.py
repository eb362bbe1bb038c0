"""What people do with Azure's SDK for Python, unmodified; runs in an environment that has it, against `aib serve`.

The environment variables are those of `aib env`. An assertion that fails ends it with a traceback and exit code 1.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import requests
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError
from azure.identity import ClientSecretCredential, DefaultAzureCredential, ManagedIdentityCredential
from azure.mgmt.compute import ComputeManagementClient
from azure.mgmt.imagebuilder import ImageBuilderClient

URL = os.environ["AIB_ENDPOINT"]
SUBSCRIPTION = os.environ["AZURE_SUBSCRIPTION_ID"]
GROUP = "sdk"
SCOPE = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers"
IDENTITY = f"{SCOPE}/Microsoft.ManagedIdentity/userAssignedIdentities/builder"
OPTIONS = {"base_url": URL, "credential_scopes": [f"{URL}/.default"]}


def template(name: str) -> dict[str, Any]:
    """A template with one step and all three distributors."""
    return {
        "location": "westus2",
        "tags": {"made": "by the SDK"},
        "identity": {"type": "UserAssigned", "userAssignedIdentities": {IDENTITY: {}}},
        "properties": {
            "source": {"type": "PlatformImage", "publisher": "Debian", "offer": "debian-12", "sku": "12",
                       "version": "latest"},
            "customize": [{"type": "Shell", "name": "step", "inline": ["echo hello"]}],
            "distribute": [
                {"type": "ManagedImage", "runOutputName": "image", "location": "westus2",
                 "imageId": f"{SCOPE}/Microsoft.Compute/images/{name}"},
                {"type": "SharedImage", "runOutputName": "gallery", "replicationRegions": ["westus2"],
                 "galleryImageId": f"{SCOPE}/Microsoft.Compute/galleries/g/images/d"},
                {"type": "VHD", "runOutputName": "disk"},
            ],
            "buildTimeoutInMinutes": 30,
            "vmProfile": {"vmSize": "Standard_D2s_v3", "osDiskSizeGB": 0},
        },
    }  # fmt: skip


def body(name: str) -> Any:
    """The template as this version of the SDK takes it: its generated clients of before 2.0.0 want models."""
    from azure.mgmt.imagebuilder import models

    if hasattr(models.ImageTemplate, "deserialize"):
        return models.ImageTemplate.deserialize(template(name))
    return template(name)


def script(**wanted: Any) -> None:
    """How runs go from now on."""
    answer = requests.put(f"{URL}/_aib/scripts/*", json=wanted, timeout=30)
    assert answer.status_code == 200, answer.text


def wait(ready: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not ready():
        assert time.monotonic() < end, "it did not happen within 60 s"
        time.sleep(0.05)


@contextmanager
def refused(kind: type[HttpResponseError], code: str) -> Iterator[None]:
    """The block must raise this error with this code of ARM's."""
    try:
        yield
    except kind as error:
        assert error.error is not None, error
        assert error.error.code == code, error
        assert error.error.message
    else:
        raise AssertionError(f"no {code}")


def sign_in() -> None:
    """Every credential that needs no person gets a token."""
    credentials = (
        DefaultAzureCredential(),
        ManagedIdentityCredential(),
        ClientSecretCredential(
            "any-tenant", "any", os.environ["AZURE_CLIENT_SECRET"], authority=URL, disable_instance_discovery=True
        ),
    )
    for credential in credentials:
        with credential:
            assert credential.get_token(f"{URL}/.default").token, credential


def prepare(compute: ComputeManagementClient) -> None:
    """A gallery with an image definition."""
    compute.galleries.begin_create_or_update(GROUP, "g", {"location": "westus2"}).result()
    definition = {
        "location": "westus2", "osType": "Linux", "osState": "Generalized", "hyperVGeneration": "V1",
        "identifier": {"publisher": "p", "offer": "o", "sku": "s"},
        "properties": {"osType": "Linux", "osState": "Generalized", "hyperVGeneration": "V1",
                       "identifier": {"publisher": "p", "offer": "o", "sku": "s"}},
    }  # fmt: skip
    from azure.mgmt.compute import models

    if hasattr(models.GalleryImage, "deserialize"):
        definition = models.GalleryImage.deserialize(definition)
    else:
        definition = {"location": "westus2", "properties": definition["properties"]}
    compute.gallery_images.begin_create_or_update(GROUP, "g", "d", definition).result()


def create_and_read(client: ImageBuilderClient) -> None:
    """Create, get, list with paging, patch."""
    templates = client.virtual_machine_image_templates
    made = templates.begin_create_or_update(GROUP, "t0", body("t0")).result()
    assert (made.name, made.provisioning_state, made.location) == ("t0", "Succeeded", "westus2")
    for number in range(1, 6):
        templates.begin_create_or_update(GROUP, f"t{number}", body(f"t{number}")).result()
    read = templates.get(GROUP, "T3")
    assert (read.source.publisher, read.customize[0].inline, read.build_timeout_in_minutes) == (
        "Debian", ["echo hello"], 30,
    )  # fmt: skip
    assert read.vm_profile.vm_size == "Standard_D2s_v3"
    assert read.system_data is not None
    names = [f"t{number}" for number in range(6)]
    pages = [list(page) for page in templates.list_by_resource_group(GROUP).by_page()]
    assert [each.name for page in pages for each in page] == names
    assert len(pages) == 3, "the server has pages of two"
    assert [each.name for each in templates.list() if f"/{GROUP}/" in each.id] == names
    changed = templates.begin_update(GROUP, "t1", {"tags": {"a": "b"}}).result()
    assert (changed.tags, changed.source.sku) == ({"a": "b"}, "12")
    with refused(HttpResponseError, "Conflict"):
        other = template("t1") | {"tags": {}}
        other["properties"]["buildTimeoutInMinutes"] = 31
        model = type(body("t1"))
        other = model.deserialize(other) if hasattr(model, "deserialize") else other
        templates.begin_create_or_update(GROUP, "t1", other).result()
    with refused(ResourceNotFoundError, "ResourceNotFound"):
        templates.get(GROUP, "none")
    assert any(each.name.endswith("imageTemplates/run/action") for each in client.operations.list())


def run(client: ImageBuilderClient, compute: ComputeManagementClient) -> None:
    """Run to the end, and find what was made where Azure's clients look for it."""
    templates = client.virtual_machine_image_templates
    script(seconds=0.2)
    templates.begin_run(GROUP, "t0").result()
    status = templates.get(GROUP, "t0").last_run_status
    assert (status.run_state, bool(status.start_time), bool(status.end_time)) == ("Succeeded", True, True)
    outputs = {each.name: each for each in templates.list_run_outputs(GROUP, "t0")}
    assert set(outputs) == {"image", "gallery", "disk"}
    assert templates.get_run_output(GROUP, "t0", "image").artifact_id == f"{SCOPE}/Microsoft.Compute/images/t0"
    image = compute.images.get(GROUP, "t0")
    assert (image.provisioning_state, image.storage_profile.os_disk.os_type) == ("Succeeded", "Linux")
    assert "t0" in [each.name for each in compute.images.list_by_resource_group(GROUP)]
    versions = list(compute.gallery_image_versions.list_by_gallery_image(GROUP, "g", "d"))
    assert [each.id.lower() for each in versions] == [outputs["gallery"].artifact_id.lower()]
    assert compute.gallery_image_versions.get(GROUP, "g", "d", versions[0].name).provisioning_state == "Succeeded"
    uri = outputs["disk"].artifact_uri
    disk = requests.get(uri, timeout=60)
    assert disk.status_code == 200, disk.text
    assert disk.content[-512:].startswith(b"conectix"), "a fixed VHD ends with its footer"
    part = requests.get(uri, headers={"x-ms-range": "bytes=0-511"}, timeout=60)
    assert (part.status_code, len(part.content)) == (206, 512)


def fail(client: ImageBuilderClient) -> None:
    """A run that fails is an exception with the service's code and words."""
    templates = client.virtual_machine_image_templates
    script(failAt="step", exitCode=7)
    with refused(HttpResponseError, "PackerBuildFailed"):
        templates.begin_run(GROUP, "t2").result()
    status = templates.get(GROUP, "t2").last_run_status
    assert (status.run_state, "customization.log" in status.message) == ("Failed", True)
    assert not list(templates.list_run_outputs(GROUP, "t2"))


def cancel(client: ImageBuilderClient) -> None:
    """What is refused while a run goes on, and its end before time."""
    templates = client.virtual_machine_image_templates
    script(holdAt="step")
    running = templates.begin_run(GROUP, "t3", polling_interval=1)
    wait(lambda: templates.get(GROUP, "t3").last_run_status.run_sub_state == "Customizing")
    assert templates.get(GROUP, "t3").provisioning_state == "Succeeded"
    for refuse in (templates.begin_run, templates.begin_delete):
        with refused(ResourceExistsError, "OperationNotAllowed"):
            refuse(GROUP, "t3").result()
    templates.begin_cancel(GROUP, "t3").result()
    assert templates.get(GROUP, "t3").last_run_status.run_state == "Canceled"
    with refused(HttpResponseError, "Canceled"):
        running.result()
    with refused(ResourceExistsError, "OperationNotAllowed"):
        templates.begin_cancel(GROUP, "t3").result()


def trigger(client: ImageBuilderClient) -> None:
    """Triggers: made, read, listed, removed."""
    from azure.mgmt.imagebuilder import models

    wanted: Any = {"properties": {"kind": "SourceImage"}}
    if hasattr(models.Trigger, "deserialize"):
        wanted = models.Trigger()
        wanted.kind = "SourceImage"  # its constructor takes no arguments

    def read(one: Any) -> tuple[str, str]:
        if hasattr(one, "properties"):
            return one.properties.kind, one.properties.provisioning_state
        return "SourceImage", one.provisioning_state  # those models lose the kind while they read it

    triggers = client.triggers
    result = triggers.begin_create_or_update(GROUP, "t4", "source", wanted).result()
    assert (result.name, *read(result)) == ("source", "SourceImage", "Succeeded")
    assert read(triggers.get(GROUP, "t4", "source")) == ("SourceImage", "Succeeded")
    assert [each.name for each in triggers.list_by_image_template(GROUP, "t4")] == ["source"]
    triggers.begin_delete(GROUP, "t4", "source").result()
    assert not list(triggers.list_by_image_template(GROUP, "t4"))


def delete(client: ImageBuilderClient, compute: ComputeManagementClient) -> None:
    """A deleted template takes its runOutputs with it, not the images."""
    templates = client.virtual_machine_image_templates
    uri = templates.get_run_output(GROUP, "t0", "disk").artifact_uri
    templates.begin_delete(GROUP, "t0").result()
    with refused(ResourceNotFoundError, "ResourceNotFound"):
        templates.get(GROUP, "t0")
    assert compute.images.get(GROUP, "t0").name == "t0"
    assert requests.get(uri, timeout=60).status_code == 404, "the staged VHD goes with its template"
    assert "t0" not in [each.name for each in templates.list_by_resource_group(GROUP)]


def main() -> None:
    """Everything, in order."""
    sign_in()
    credential = DefaultAzureCredential()
    with (
        credential,
        ImageBuilderClient(credential, SUBSCRIPTION, **OPTIONS) as client,
        ComputeManagementClient(credential, SUBSCRIPTION, **OPTIONS) as compute,
    ):
        prepare(compute)
        create_and_read(client)
        run(client, compute)
        fail(client)
        cancel(client)
        trigger(client)
        delete(client, compute)
    print("everything went as it does with the service", file=sys.stdout)


if __name__ == "__main__":
    main()
