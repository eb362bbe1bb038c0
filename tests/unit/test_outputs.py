"""`aib outputs` and `aib gallery`: what can be asked after a run, in the service's shape."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from hypervisor.errors import InputError, UsageError
from orchestrator.cli.gallery import command as gallery_command
from orchestrator.cli.outputs import command as outputs_command
from orchestrator.record import arm_ids
from orchestrator.record.resources import ResourceExists
from orchestrator.record.run_outputs import RunOutput, record_template, set_last_run_status
from orchestrator.record.store import Store
from orchestrator.verbs import gallery, outputs

TEMPLATE = "/subscriptions/s/resourceGroups/rheltest/providers/Microsoft.VirtualMachineImages/imageTemplates/hello"
VERSION = "/subscriptions/s/resourceGroups/r/providers/Microsoft.Compute/galleries/g/images/d/versions/0.24105.52755"
VHD = "file:///home/me/x.vhd"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("AIB_HOME", str(tmp_path / "home"))
    store = Store(tmp_path / "home")
    record_template(store, TEMPLATE, location="westus2", tags={}, properties={"source": {"type": "PlatformImage"}})
    store.put(RunOutput("rhel77", "SharedImage", "Succeeded", artifact_id=VERSION).to_resource(TEMPLATE))
    store.put(RunOutput("disk", "VHD", "Succeeded", artifact_uri=VHD).to_resource(TEMPLATE))
    return store


def test_the_services_json(store: Store) -> None:
    assert outputs.output(store, "hello", "rhel77") == {
        "id": f"{TEMPLATE}/runOutputs/rhel77",
        "name": "rhel77",
        "type": "Microsoft.VirtualMachineImages/imageTemplates/runOutputs",
        "properties": {"artifactId": VERSION, "provisioningState": "Succeeded"},
    }
    assert outputs.output(store, "HELLO", "Disk")["properties"] == {
        "artifactUri": VHD, "provisioningState": "Succeeded",
    }  # fmt: skip
    assert [output["name"] for output in outputs.outputs(store, TEMPLATE.upper())] == ["disk", "rhel77"]


def test_the_form_of_the_az_command_line(store: Store) -> None:
    """Field for field what the user's document prints (S29)."""
    shown = CliRunner().invoke(outputs_command, ["hello", "rhel77", "--az"])
    assert json.loads(shown.stdout) == {
        "id": f"{TEMPLATE}/runOutputs/rhel77", "identity": None, "kind": None, "location": None, "managedBy": None,
        "name": "rhel77", "plan": None, "properties": {"artifactId": VERSION, "provisioningState": "Succeeded"},
        "resourceGroup": "rheltest", "sku": None, "tags": None,
        "type": "Microsoft.VirtualMachineImages/imageTemplates/runOutputs",
    }  # fmt: skip


def test_a_template_is_found_by_its_file(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "Hello.json"
    file.write_text("{}")
    assert len(outputs.outputs(store, str(file))) == 2


def test_what_is_not_there(store: Store) -> None:
    with pytest.raises(InputError) as caught:
        outputs.outputs(store, "other")
    assert "hello" in caught.value.hint
    with pytest.raises(InputError) as caught:
        outputs.output(store, "hello", "other")
    assert "disk, rhel77" in caught.value.hint
    with pytest.raises(UsageError):
        outputs.outputs(store, VERSION)


def test_a_name_in_two_resource_groups(store: Store) -> None:
    record_template(store, arm_ids.template_id("hello"), location="", tags={}, properties={})
    with pytest.raises(UsageError) as caught:
        outputs.outputs(store, "hello")
    assert TEMPLATE in caught.value.hint
    assert outputs.outputs(store, arm_ids.template_id("hello")) == []


def test_a_template_keeps_its_last_status_and_no_signature(store: Store) -> None:
    status = {"runState": "Succeeded", "message": ""}
    set_last_run_status(store, TEMPLATE, status)
    customize = [{"scriptUri": "https://a.blob.core.windows.net/c/s.sh?sv=1&sig=topsecret"}]
    record_template(store, TEMPLATE, location="westus2", tags={"a": "b"}, properties={"customize": customize})
    template = store.get(TEMPLATE)
    assert template is not None
    assert (template.tags, template.properties["lastRunStatus"]) == ({"a": "b"}, status)
    texts = [path.read_text() for path in (store.home / "resources").rglob("*.json")]
    assert not any("topsecret" in text for text in texts)


def test_a_status_without_a_template_makes_one(store: Store) -> None:
    assert set_last_run_status(store, arm_ids.template_id("new"), {"runState": "Running"}).name == "new"


def test_gallery_commands(store: Store) -> None:
    run = CliRunner().invoke
    assert run(gallery_command, ["create", "g", "--location", "West US 2"]).exit_code == 0
    assert run(gallery_command, ["define", "g", "d", "--os", "Linux", "--generation", "v2"]).exit_code == 0
    shown = json.loads(run(gallery_command, ["show", "g", "--json"]).stdout)
    assert (shown["location"], shown["type"]) == ("westus2", arm_ids.GALLERY)
    (definition,) = shown["images"]
    assert definition["properties"]["osType"] == "Linux"
    assert definition["properties"]["hyperVGeneration"] == "V2"
    assert definition["properties"]["identifier"] == {"publisher": "aib", "offer": "g", "sku": "d"}
    assert "d  Linux V2  0 versions" in run(gallery_command, ["list"]).stdout
    assert run(gallery_command, ["define", "g", "d", "--os", "solaris", "--generation", "V1"]).exit_code == 2


def test_gallery_faults(store: Store) -> None:
    with pytest.raises(InputError) as caught:
        gallery.define(store, "g", "d", os="linux", generation="V1")
    assert "aib gallery create g" in caught.value.hint
    gallery.create(store, "g", location="westus2")
    with pytest.raises(ResourceExists):
        gallery.create(store, "G", location="eastus")
    gallery.define(store, "g", "d", os="linux", generation="V1")
    with pytest.raises(ResourceExists):
        gallery.define(store, "g", "D", os="linux", generation="V1", sku="other")
    with pytest.raises(UsageError, match="same publisher"):
        gallery.define(store, "g", "e", os="linux", generation="V1", sku="d")
    for name in ("my-gallery", "", "a/b", ".."):
        with pytest.raises(UsageError):
            gallery.create(store, name, location="westus2")
    with pytest.raises(UsageError, match="region"):
        gallery.create(store, "h", location="west/us")
    for version in ("1.0", "latest"):
        with pytest.raises(UsageError):
            gallery.delete_version(store, "g", "d", version)


def test_a_version_under_way_cannot_be_deleted(store: Store) -> None:
    gallery.create(store, "g", location="westus2")
    definition = gallery.define(store, "g", "d", os="linux", generation="V1")
    run = store.new_run("hello")
    version = arm_ids.parse(definition.id).child("versions", "1.0.0")
    properties = {"provisioningState": "Creating", "aib": {"run": run.id}}
    store.put(type(definition)(str(version), arm_ids.IMAGE_VERSION, "1.0.0", properties=properties))
    with pytest.raises(UsageError, match="being published"):
        gallery.delete_version(store, "g", "d", "1.0.0")
    run.release()
    gallery.delete_version(store, "g", "d", "1.0.0")
    assert gallery.show(store, "g").definitions[0][1] == ()
