"""Runs through HTTP, from the request to the runOutputs, with scripted runs; and what the command line sees of them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests

from orchestrator.record import arm_ids, galleries
from orchestrator.record.arm_ids import parse_gallery
from orchestrator.record.run_outputs import set_last_run_status
from orchestrator.service.settings import Settings
from orchestrator.service.templates.documents import document_of
from orchestrator.verbs.cancel import cancel
from orchestrator.verbs.runs import list_runs, record_of, summarize
from tests.contract.arm_client import GROUP, TEMPLATES, Arm, arm_server, error_of, template
from tests.contract.conftest import files_with

COMPUTE = f"{GROUP}/providers/Microsoft.Compute"
LONG = {"holdAt": "Building"}


@pytest.fixture
def settings(tmp_path: Path, token_key: Path) -> Settings:
    return Settings(tmp_path / "home", scripted=True, in_memory=True, token_key=token_key)


@pytest.fixture
def arm(settings: Settings) -> Iterator[Arm]:
    with arm_server(settings) as server:
        yield server
        server.post("/_aib/reset")


def script(arm: Arm, name: str, **what: Any) -> None:
    answer = arm.put(f"/_aib/scripts/{name}", what, version="")
    assert answer.status_code == 200, answer.text


def until(ready: Callable[[], Any], seconds: float = 20.0) -> Any:
    end = time.monotonic() + seconds
    while not (value := ready()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)
    return value


def status(arm: Arm, path: str) -> dict[str, Any]:
    return arm.get(path).json()["properties"].get("lastRunStatus", {})


def running_in(sub_state: str) -> dict[str, Any]:
    return {"startTime": "2026-01-01T00:00:00Z", "runState": "Running", "runSubState": sub_state, "message": ""}


def in_sub_state(arm: Arm, path: str, sub_state: str) -> dict[str, Any]:
    found: dict[str, Any] = until(lambda: (now := status(arm, path)).get("runSubState") == sub_state and now)
    return found


def test_a_run_goes_to_its_outputs(arm: Arm) -> None:
    path = arm.made("one")
    assert status(arm, path) == {}
    answer = arm.post(f"{path}/run")
    assert answer.status_code == 202
    assert all(name in answer.headers for name in ("Azure-AsyncOperation", "Location", "Retry-After"))
    assert arm.finished(answer)["status"] == "Succeeded"
    assert arm.get(answer.headers["Location"]).status_code == 204
    ended = status(arm, path)
    assert ended["runState"] == "Succeeded" and "runSubState" not in ended
    assert ended["startTime"] <= ended["endTime"] and ended["message"] == ""
    (output,) = arm.get(f"{path}/runOutputs").json()["value"]
    assert output == {
        "id": f"{path}/runOutputs/out",
        "name": "out",
        "type": "Microsoft.VirtualMachineImages/imageTemplates/runOutputs",
        "properties": {"artifactId": f"{COMPUTE}/images/one", "provisioningState": "Succeeded"},
    }
    assert arm.get(f"{path}/RUNOUTPUTS/Out").json() == output
    assert error_of(arm.get(f"{path}/runOutputs/none"))[:2] == (404, "ResourceNotFound")
    assert arm.get(path).json()["properties"]["provisioningState"] == "Succeeded"


def test_the_states_move_while_it_runs(arm: Arm) -> None:
    validate = {"inVMValidations": [{"type": "Shell", "name": "look", "inline": ["true"]}]}
    path = arm.made("moving", template("moving", validate=validate))
    script(arm, "MOVING", holdAt="Building")
    answer = arm.post(f"{path}/run")
    places = [("Building", "hi"), ("Customizing", "look"), ("Validating", "Distributing"), ("Distributing", "")]
    for sub_state, following in places:
        assert in_sub_state(arm, path, sub_state)["runState"] == "Running"
        script(arm, "moving", holdAt=following)
    assert arm.finished(answer)["status"] == "Succeeded"


def test_a_scripted_run_says_so(arm: Arm) -> None:
    path = arm.made("honest")
    arm.finished(arm.post(f"{path}/run"))
    (run,) = arm.context.store.runs()
    record = record_of(run)
    assert [each["code"] for each in record["deviations"]] == ["scripted"]
    assert "nothing is booted" in run.customization_log.read_text()
    image = arm.context.store.get(f"{COMPUTE}/images/honest")
    assert image is not None
    layer = arm.context.store.layer(image.digest)
    assert layer is not None and layer.virtual_size == 1 << 20
    subprocess.run(["qemu-img", "check", "-f", "qcow2", layer.path], check=True, capture_output=True)


def test_signatures_are_run_with_and_written_nowhere(arm: Arm) -> None:
    line = "curl 'https://a.blob.core.windows.net/c/x?sv=1&sig=SECRET%2B%3D'"
    body = template("signed", customize=[{"type": "Shell", "name": "hi", "inline": [line]}], tags={"a": "?sig=SECRET"})
    path = arm.made("signed", body)
    home = arm.context.settings.home
    assert arm.put(path, body).status_code == 200
    assert arm.ask("PATCH", path, {"tags": {"b": "c"}}).status_code == 202
    template_ = arm.context.store.get(path)
    assert template_ is not None
    assert document_of(home, template_)["properties"]["customize"][0]["inline"] == [line]
    assert arm.finished(arm.post(f"{path}/run"))["status"] == "Succeeded"
    assert [file.parent.name for file in files_with(home, b"SECRET")] == ["submissions"]
    assert "SECRET" not in arm.get(path).text
    arm.delete(path)
    assert not any((home / "service" / "submissions").iterdir())


def test_what_fails_says_how(arm: Arm) -> None:
    path = arm.made("fails")
    script(arm, "fails", failAt="hi", exitCode=7)
    done = arm.finished(arm.post(f"{path}/run"))
    assert (done["status"], done["error"]["code"]) == ("Failed", "PackerBuildFailed")
    ended = status(arm, path)
    assert ended["runState"] == "Failed" and ended["message"] == done["error"]["message"]
    assert ended["message"].startswith("During the image build a failure has occurred.")
    assert arm.get(f"{path}/runOutputs").json()["value"] == []
    script(arm, "fails", failAt="Building", message="no quota")
    done = arm.finished(arm.post(f"{path}/run"))
    assert (done["error"]["code"], done["error"]["message"]) == ("InternalOperationError", "no quota")
    arm.ask("DELETE", "/_aib/scripts", version="")
    assert arm.finished(arm.post(f"{path}/run"))["status"] == "Succeeded"


def test_some_distributors_fail(arm: Arm) -> None:
    gallery = parse_gallery(f"{COMPUTE}/galleries/g")
    definition = gallery.child("images", "d")
    arm.context.store.put(galleries.gallery(gallery, "eastus"))
    arm.context.store.put(
        galleries.image_definition(definition, "eastus", os="linux", generation="V1", publisher="p", offer="o", sku="s")
    )
    targets = [
        {"type": "SharedImage", "runOutputName": "first", "galleryImageId": str(definition),
         "replicationRegions": ["eastus"]},
        {"type": "VHD", "runOutputName": "second"},
    ]  # fmt: skip
    path = arm.made("partly", template("partly", distribute=targets))
    (blocked := arm.context.store.home / "vhds" / "partly" / "second.vhd").mkdir(parents=True)
    done = arm.finished(arm.post(f"{path}/run"))
    assert done["status"] == "Failed" and done["error"]["message"].startswith("Failed in distributing 1 images out of")
    assert status(arm, path)["runState"] == "PartiallySucceeded"
    first, second = arm.get(f"{path}/runOutputs").json()["value"]
    assert (first["properties"]["provisioningState"], second["properties"]) == (
        "Succeeded", {"provisioningState": "Failed"},
    )  # fmt: skip
    assert first["properties"]["artifactId"].startswith(f"{definition}/versions/0.")
    blocked.rmdir()
    assert arm.finished(arm.post(f"{path}/run"))["status"] == "Succeeded"
    assert len(arm.context.store.list(arm_ids.IMAGE_VERSION)) == 2


def test_a_missing_gallery_fails_the_run(arm: Arm) -> None:
    target = {"type": "SharedImage", "runOutputName": "x", "galleryImageId": f"{COMPUTE}/galleries/no/images/d",
              "replicationRegions": ["eastus"]}  # fmt: skip
    path = arm.made("lost", template("lost", distribute=[target]))
    done = arm.finished(arm.post(f"{path}/run"))
    assert done["status"] == "Failed" and "galleries/no" in done["error"]["message"]


def test_running_twice_removing_and_changing_while_it_runs(arm: Arm) -> None:
    path = arm.made("busy")
    script(arm, "busy", **LONG)
    first = arm.post(f"{path}/Run")
    assert first.status_code == 202
    words = "is not allowed in provisioning state: provisioned or run state: running."
    for answer, action in (
        (arm.post(f"{path}/run"), "run/action"),
        (arm.delete(path), "delete"),
        (arm.ask("PATCH", path, {"tags": {"a": "b"}}), "write"),
    ):
        assert error_of(answer) == (
            409, "OperationNotAllowed", f"Operation Microsoft.VirtualMachineImages/imageTemplates/{action} {words}",
        )  # fmt: skip
    flat = arm.post(f"{path}/run", version="2020-02-14")
    assert (flat.status_code, flat.json()["code"]) == (409, "OperationNotAllowed")
    assert arm.get(first.headers["Azure-AsyncOperation"]).json()["status"] == "InProgress"
    assert arm.get(first.headers["Location"]).status_code == 202
    assert len(arm.context.store.runs()) == 1


def test_cancelling_and_cancelling_twice(arm: Arm) -> None:
    path = arm.made("stopped")
    script(arm, "stopped", **LONG)
    action = "Microsoft.VirtualMachineImages/imageTemplates/cancel/action"
    refused = f"Operation {action} is not allowed in provisioning state: provisioned or run state:"
    assert error_of(arm.post(f"{path}/cancel"))[2] == f"{refused} ready."
    run = arm.post(f"{path}/run")
    in_sub_state(arm, path, "Building")
    stop = arm.post(f"{path}/cancel")
    assert stop.status_code == 202
    twice = arm.post(f"{path}/cancel")
    assert error_of(twice)[1] == "OperationNotAllowed" and "run state: cancel" in error_of(twice)[2]
    assert arm.finished(stop)["status"] == "Succeeded"
    done = arm.finished(run)
    assert (done["status"], done["error"]["code"]) == ("Canceled", "Canceled")
    assert arm.get(run.headers["Location"]).status_code == 409
    assert status(arm, path)["runState"] == "Canceled"
    assert error_of(arm.post(f"{path}/cancel"))[2] == f"{refused} canceled."
    arm.ask("DELETE", "/_aib/scripts", version="")
    assert arm.finished(arm.post(f"{path}/run"))["status"] == "Succeeded"
    assert arm.delete(path).status_code == 202


def test_of_many_runs_asked_for_at_once_one_begins(arm: Arm) -> None:
    import concurrent.futures

    path = arm.made("once")
    script(arm, "once", **LONG)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        codes = sorted(answer.status_code for answer in pool.map(lambda _: arm.post(f"{path}/run"), range(8)))
    assert codes == [202, *[409] * 7]
    assert len(arm.context.store.runs()) == 1


def test_auto_run(arm: Arm) -> None:
    path = arm.made("auto", template("auto", autoRun={"state": "Enabled"}))
    until(lambda: status(arm, path).get("runState") == "Succeeded")
    assert len(arm.context.store.runs()) == 1


def test_the_command_line_lists_and_stops_a_run(arm: Arm) -> None:
    path = arm.made("shared")
    script(arm, "shared", **LONG)
    arm.post(f"{path}/run")
    in_sub_state(arm, path, "Building")
    (run,) = list_runs(arm.context.store)
    assert (run.template, run.state, run.sub_state, run.alive) == ("shared", "Running", "Building", True)
    home = arm.context.settings.home
    listed = subprocess.run(
        [str(Path(sys.executable).parent / "aib"), "runs"],
        check=True, capture_output=True, text=True, env={**os.environ, "AIB_HOME": str(home)},
    )  # fmt: skip
    assert "shared" in listed.stdout and "Building" in listed.stdout
    cancel(arm.context.store, run.run_id)
    assert status(arm, path)["runState"] == "Canceled"


def test_a_run_of_the_command_line_is_seen(arm: Arm) -> None:
    store = arm.context.store
    template_id = f"{TEMPLATES}/by-hand"
    with store.new_run("by-hand") as run:
        begun = running_in("Customizing")
        set_last_run_status(store, template_id, begun, run.id)
        assert status(arm, template_id) == begun
        assert error_of(arm.delete(template_id))[1] == "OperationNotAllowed"
    # Its process is gone without a word.
    ended = status(arm, template_id)
    assert ended["runState"] == "Failed" and "processes of this run" in ended["message"]
    assert list_runs(store)[0].state == "Failed"
    refused = error_of(arm.post(f"{template_id}/run"))
    assert refused[1] == "OperationNotAllowed" and "never submitted" in refused[2]
    assert arm.put(template_id, template("by-hand")).status_code == 200
    until(lambda: arm.get(template_id).json()["properties"]["provisioningState"] == "Succeeded")
    assert arm.finished(arm.post(f"{template_id}/run"))["status"] == "Succeeded"


def test_removing_a_template_removes_its_staged_vhd_and_no_other(arm: Arm) -> None:
    vhd = [{"type": "VHD", "runOutputName": "disk"}]
    path = arm.made("staged", template("staged", distribute=vhd))
    arm.finished(arm.post(f"{path}/run"))
    store = arm.context.store
    file = store.home / "vhds" / "staged" / "disk.vhd"
    assert file.read_bytes()[-512:].startswith(b"conectix")
    subprocess.run(["qemu-img", "info", "-f", "vpc", file], check=True, capture_output=True)
    assert "artifactUri" in arm.get(f"{path}/runOutputs/disk").json()["properties"]
    kept = store.home / "vhds" / "mine" / "disk.vhd"
    kept.parent.mkdir()
    kept.write_bytes(b"mine")
    assert arm.delete(path).status_code == 202
    assert not file.parent.exists() and kept.exists()
    assert store.get(f"{path}/runOutputs/disk") is None


def test_a_vhd_of_the_command_line_stays(arm: Arm) -> None:
    path = arm.made("own", template("own", distribute=[{"type": "VHD", "runOutputName": "disk"}]))
    arm.finished(arm.post(f"{path}/run"))
    (run,) = arm.context.store.runs()
    run.submission.unlink()  # as if `aib build` had made it
    assert arm.delete(path).status_code == 202
    assert (arm.context.store.home / "vhds" / "own" / "disk.vhd").exists()


def test_a_run_that_dies_with_the_server_fails_with_the_reason(settings: Settings) -> None:
    keeping = replace(settings, in_memory=False)
    with arm_server(keeping) as first:
        path = first.made("killed")
        script(first, "killed", **LONG)
        run = first.post(f"{path}/run")
        in_sub_state(first, path, "Building")
        (folder,) = first.context.store.runs()
        assert error_of(first.post("/_aib/reset"))[:2] == (409, "NotInMemory")
    # A restart finds it going on: the thread that runs it is still there.
    with arm_server(keeping) as second:
        operation = run.headers["Azure-AsyncOperation"].removeprefix(first.origin)
        assert second.get(operation).json()["status"] == "InProgress"
        assert second.finished(second.post(f"{path}/cancel"))["status"] == "Succeeded"
        assert second.get(operation).json()["status"] == "Canceled"
        # One whose process died without a word: its folder is held by nobody, and its record has no end.
        store = second.context.store
        with store.new_run("killed") as dead:
            begun = running_in("Queued")
            set_last_run_status(store, path, begun, dead.id)
    with arm_server(keeping) as third:
        ended = status(third, path)
        assert ended["runState"] == "Failed" and "shut down" in ended["message"]
        assert summarize(third.context.store.run(dead.id)).state == "Failed"
    assert not folder.alive()


def test_our_own_paths_ask_for_a_token_where_there_is_a_secret(tmp_path: Path) -> None:
    with arm_server(Settings(tmp_path / "home", scripted=True, secret="s3cret")) as arm:
        assert requests.get(f"{arm.origin}/_aib/health", timeout=10).status_code == 200
        assert error_of(requests.get(f"{arm.origin}/_aib/scripts", timeout=10))[0] == 401
        assert arm.get("/_aib/scripts", version="").status_code == 200


def test_other_web_pages_reset_nothing(arm: Arm) -> None:
    refused = requests.post(f"{arm.origin}/_aib/reset", headers={"Origin": "https://evil.example"}, timeout=10)
    assert error_of(refused)[:2] == (403, "Forbidden")


def test_reset_forgets_everything(arm: Arm) -> None:
    path = arm.made("forgotten")
    script(arm, "forgotten", **LONG)
    arm.post(f"{path}/run")
    in_sub_state(arm, path, "Building")
    assert arm.post("/_aib/reset").status_code == 204
    assert arm.get(path).status_code == 404
    assert not any(run.alive() for run in arm.context.store.runs())
