"""Runs that boot nothing: they do what their script says, and leave what real ones leave."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hypervisor.errors import InputError
from orchestrator.build import control, tiny_disks
from orchestrator.build.job import Job
from orchestrator.build.options import BuildOptions
from orchestrator.build.scripted import Script, Scripts, launch_scripted
from orchestrator.record import arm_ids, files
from orchestrator.record.record import load
from orchestrator.record.run_outputs import run_outputs
from orchestrator.record.runs import RunFolder
from orchestrator.record.store import Store

SCOPE = str(arm_ids.DEFAULT_SCOPE)
TEMPLATE_ID = arm_ids.template_id("t", arm_ids.DEFAULT_SCOPE)
Start = Callable[..., RunFolder]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


@pytest.fixture
def start(store: Store) -> Start:
    """Begin a scripted run of a template with two steps that distributes an image and a VHD."""

    def begin(**properties: Any) -> RunFolder:
        template = {
            "type": arm_ids.TEMPLATE, "apiVersion": "2024-02-01", "name": "t", "location": "eastus",
            "identity": {"type": "UserAssigned", "userAssignedIdentities": {f"{SCOPE}/providers/"
                         "Microsoft.ManagedIdentity/userAssignedIdentities/i": {}}},
            "properties": {
                "source": {"type": "PlatformImage", "publisher": "p", "offer": "o", "sku": "s", "version": "latest"},
                "customize": [
                    {"type": "Shell", "name": "one", "scriptUri": "https://example.invalid/a.sh"},
                    {"type": "Shell", "name": "two", "inline": ["true"]},
                ],
                "distribute": [
                    {"type": "ManagedImage", "runOutputName": "image", "location": "eastus",
                     "imageId": f"{SCOPE}/providers/Microsoft.Compute/images/made"},
                    {"type": "VHD", "runOutputName": "disk"},
                ],
                **properties,
            },
        }  # fmt: skip
        folder = store.new_run("t")
        text = json.dumps(template)
        files.publish(folder.template, text.encode())
        launch_scripted(Job(store.home, folder.id, Path("/t.json"), text, BuildOptions()), store, folder)
        return folder

    return begin


def ended(folder: RunFolder) -> Any:
    wait(lambda: not folder.alive())
    return load(folder.path)


def wait(ready: Callable[[], Any]) -> None:
    end = time.monotonic() + 30
    while not ready():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_run_without_a_script_succeeds_and_distributes(store: Store, start: Start) -> None:
    record = ended(start())
    assert (record.state, [step.result for step in record.steps.values()]) == ("Succeeded", ["succeeded"] * 3)
    outputs = {output.name: output.properties for output in run_outputs(store, TEMPLATE_ID)}
    image = store.get(outputs["image"]["artifactId"])
    assert image is not None
    assert store.layer(image.digest) is not None
    vhd = Path(outputs["disk"]["artifactUri"].removeprefix("file://"))
    info = json.loads(subprocess.check_output(["qemu-img", "info", "-f", "vpc", "--output=json", vhd]))
    assert info["virtual-size"] == tiny_disks.SIZE
    template = store.get(TEMPLATE_ID)
    assert template is not None
    assert template.properties["lastRunStatus"]["runState"] == "Succeeded"


def test_the_disks_are_what_they_say(tmp_path: Path) -> None:
    tiny_disks.write_qcow2(tmp_path / "a.qcow2")
    tiny_disks.write_vhd(tmp_path / "a.vhd")
    subprocess.run(["qemu-img", "check", "-f", "qcow2", tmp_path / "a.qcow2"], check=True, capture_output=True)
    compare = ["qemu-img", "compare", "-f", "qcow2", "-F", "vpc", "a.qcow2", "a.vhd"]
    subprocess.run(compare, check=True, cwd=tmp_path, capture_output=True)
    assert (tmp_path / "a.vhd").stat().st_size == tiny_disks.SIZE + 512


def test_a_step_fails_as_the_script_says(store: Store, start: Start) -> None:
    Scripts(store.home).put("T", Script(fail_at="two", exit_code=7, output={"*": "said\n"}))
    folder = start()
    record = ended(folder)
    assert (record.state, record.finished.exit_code) == ("Failed", 1)
    assert [step.result for step in record.steps.values()] == ["succeeded", "failed", "not run"]
    assert record.steps[1].exit_code == 7
    assert "non-zero exit status: 7" in record.steps[1].message
    assert (folder.path / "steps/01.out").read_text() == "said\n"
    assert not run_outputs(store, TEMPLATE_ID)
    assert "said" in folder.customization_log.read_text()


@pytest.mark.parametrize("place", ["Building", "Distributing"])
def test_a_phase_fails_as_the_script_says(store: Store, start: Start, place: str) -> None:
    Scripts(store.home).put("*", Script(fail_at=place, message="no room"))
    record = ended(start())
    assert (record.state, record.sub_state, record.finished.message) == ("Failed", place, "no room")


def test_a_held_run_waits_until_the_script_lets_it_go_on(store: Store, start: Start) -> None:
    scripts = Scripts(store.home)
    scripts.put("t", Script(hold_at="two"))
    folder = start()
    wait(lambda: load(folder.path).steps and load(folder.path).steps[0].result == "succeeded")
    assert folder.alive()
    template = store.get(TEMPLATE_ID)
    assert template is not None
    assert template.properties["lastRunStatus"]["runSubState"] == "Customizing"
    scripts.put("t", Script())
    assert ended(folder).state == "Succeeded"


def test_a_held_run_can_be_cancelled(store: Store, start: Start) -> None:
    Scripts(store.home).put("t", Script(hold_at="Building"))
    folder = start()
    wait(lambda: load(folder.path).sub_state == "Building")
    assert control.ask(folder.path, {"do": "cancel"}) == {"ok": True}
    assert ended(folder).state == "Canceled"


def test_what_the_service_would_refuse_fails_the_run(start: Start) -> None:
    gallery = f"{SCOPE}/providers/Microsoft.Compute/galleries/none/images/none"
    target = {"type": "SharedImage", "runOutputName": "g", "galleryImageId": gallery, "replicationRegions": ["eastus"]}
    record = ended(start(distribute=[target]))
    assert (record.state, record.finished.exit_code) == ("Failed", 2)
    assert "none" in record.finished.message


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"second": 1}, "no 'second'"),
        ({"seconds": -1}, "seconds of a script cannot be -1"),
        ({"seconds": True}, "cannot be True"),
        ({"output": {"a": 1}}, "output of a script"),
        ({"exitCode": "7"}, "exitCode"),
    ],
)
def test_a_script_that_is_none_is_refused(value: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Script.from_json(value)


def test_scripts_are_kept_and_cleared(store: Store) -> None:
    scripts = Scripts(store.home)
    scripts.put("*", Script(seconds=2))
    scripts.put("One", Script(hold_at="x"))
    assert (scripts.of("one").hold_at, scripts.of("two").seconds) == ("x", 2)
    assert Scripts(store.home).all()["one"]["holdAt"] == "x"
    scripts.clear()
    assert scripts.of("one") == Script()
