"""The document of a plan: its schema, what varies and what must not, secrets, and the difference of two plans."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator

from hypervisor.errors import AibError, InputError, UsageError
from orchestrator.cli.main import aib
from orchestrator.plan import plan_json
from orchestrator.plan.document import plan_document, schema
from orchestrator.plan.packer_export import packer_export
from orchestrator.record import arm_ids, durations, galleries
from orchestrator.record.files import publish_json
from orchestrator.record.resources import Resource
from orchestrator.record.store import Store
from orchestrator.views import plan_text

IMAGE = arm_ids.managed_image_id("base")
WINDOWS = arm_ids.managed_image_id("win")
SCOPE = IMAGE.partition("/providers/")[0]
SUBNET = f"{SCOPE}/providers/Microsoft.Network/virtualNetworks/v/subnets/s"
DEFINITION = arm_ids.image_definition_id("gal", "def")
MANAGED = {
    "type": "ManagedImage", "runOutputName": "m", "imageId": arm_ids.managed_image_id("made"), "location": "eastus",
}  # fmt: skip
SHARED = {
    "type": "SharedImage", "runOutputName": "g", "galleryImageId": DEFINITION, "replicationRegions": ["eastus"],
}  # fmt: skip
WINDOWS_STEPS = [
    {"type": "PowerShell", "name": "ps", "inline": ["Get-Item C:\\"], "validExitCodes": [0, 3010]},
    {"type": "WindowsUpdate", "name": "update", "searchCriteria": "IsInstalled=0"},
    {"type": "WindowsRestart", "name": "restart", "restartTimeout": "10m"},
]


def image(store: Store, folder: Path, image_id: str, system: str) -> None:
    disk = folder / f"{system}.disk"
    disk.write_bytes(system.encode())
    layer = store.add_layer(disk, "qcow2", move=False, virtual_size=2 << 30)
    about = {"digest": layer.digest, "format": "qcow2", "virtualSize": 2 << 30, "os": system, "generation": "V1"}
    store.put(
        Resource(image_id, "Microsoft.Compute/images", arm_ids.parse(image_id).name, "eastus", {}, {"aib": about})
    )


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("AIB_HOME", str(tmp_path / "home"))
    store = Store(tmp_path / "home")
    image(store, tmp_path, IMAGE, "linux")
    image(store, tmp_path, WINDOWS, "windows")
    definition = arm_ids.parse(DEFINITION)
    store.put(galleries.gallery(definition.parent, "eastus"))
    store.put(
        galleries.image_definition(definition, "eastus", os="linux", generation="V1", publisher="p", offer="o", sku="s")
    )
    return store


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    (tmp_path / "a.sh").write_bytes(b"#!/bin/sh\r\necho hi\r\n")

    def template(name: str = "demo", **properties: Any) -> Path:
        body = {
            "type": "Microsoft.VirtualMachineImages/imageTemplates",
            "apiVersion": "2023-07-01",
            "name": "demo",
            "location": "eastus",
            "identity": {"type": "UserAssigned", "userAssignedIdentities": {}},
            "properties": {
                "source": {"type": "ManagedImage", "imageId": IMAGE},
                "vmProfile": {"vmSize": "Standard_B1s"},
                "customize": [
                    shell("one", "echo 1"),
                    {"type": "Shell", "name": "two", "scriptUri": "a.sh"},
                    {"type": "File", "name": "three", "sourceUri": "a.sh", "destination": "/tmp/a.sh"},
                ],
                "distribute": [MANAGED],
                **properties,
            },
        }
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(body))
        return path

    return template


def shell(name: str, *lines: str) -> dict[str, Any]:
    return {"type": "Shell", "name": name, "inline": list(lines)}


def run(*arguments: object) -> str:
    result = CliRunner().invoke(aib, [str(a) for a in arguments], standalone_mode=False)
    if isinstance(result.exception, AibError):
        raise result.exception
    assert result.exception is None, result.output
    assert not result.return_value, result.output
    return result.stdout


def planned(path: Path, *options: object) -> dict[str, Any]:
    return json.loads(run("plan", path, "--json", *options))


def test_script_names_are_those_of_the_guest(store: Store, write: Write) -> None:
    assert planned(write())["varies"]["scriptNames"].startswith("/tmp/script_N.sh")
    assert planned(write(**CASES["windows"]))["varies"]["scriptNames"].startswith("c:/Windows/Temp/script-N.ps1")


def errors(document: Any) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in Draft202012Validator(schema()).iter_errors(document)]


CASES = {
    "linux": {},
    "gallery": {"distribute": [SHARED, {"type": "VHD", "runOutputName": "v"}]},
    "windows": {"source": {"type": "ManagedImage", "imageId": WINDOWS}, "customize": WINDOWS_STEPS},
    "validate": {"validate": {"inVMValidations": [shell("check", "true")], "continueDistributeOnFailure": True}},
    "only": {"validate": {"inVMValidations": [shell("check", "true")], "sourceValidationOnly": True}},
    "abort": {
        "errorHandling": {"onCustomizerError": "abort"},
        "vmProfile": {"vmSize": "Standard_NC6", "vnetConfig": {"subnetId": SUBNET}},
    },
}  # fmt: skip


def test_the_schema_is_a_schema_and_has_no_open_object() -> None:
    Draft202012Validator.check_schema(schema())
    open_objects = [
        path for path, node in walk(schema()) if node.get("type") == "object" and "additionalProperties" not in node
    ]
    assert open_objects == ["/$defs/step/properties/settings"]  # they differ by kind


def test_a_source_that_a_build_would_bring_in_has_no_digest_yet(store, write) -> None:
    made = made_plan(store, write())
    source = replace(made.source, digest="", virtual_size=0)
    document = plan_document(replace(made, source=source, machine=replace(made.machine, os_disk_bytes=0)))
    assert errors(document) == []
    assert (document["source"]["sha256"], document["source"]["stored"]) == (None, False)
    assert "not stored yet" in "".join(plan_text.render(document))
    with pytest.raises(InputError, match="not stored yet"):
        packer_export(replace(made, source=source))


def walk(node: Any, path: str = "") -> list[tuple[str, dict[str, Any]]]:
    if isinstance(node, list):
        return [found for index, item in enumerate(node) for found in walk(item, f"{path}/{index}")]
    if not isinstance(node, dict):
        return []
    return [(path, node), *(found for key, item in node.items() for found in walk(item, f"{path}/{key}"))]


@pytest.mark.parametrize("case", CASES)
def test_real_plans_are_as_the_schema_says(store, write, case) -> None:
    document = planned(write(**CASES[case]))
    assert errors(document) == []
    del document["varies"]
    assert errors(document) == []
    for key in list(document):
        without = {name: value for name, value in document.items() if name != key}
        assert errors(without), f"{key} is required"
    assert errors({**document, "unknown": 1})


def test_the_same_inputs_give_the_same_plan(store, write, monkeypatch) -> None:
    path = write(distribute=[SHARED])
    first = planned(path)
    record_run(store, first, 2.5)
    second = planned(path)
    assert first.pop("varies") != second.pop("varies")
    assert first == second


def record_run(store: Store, document: dict[str, Any], seconds: float, result: str = "succeeded") -> None:
    """A finished run of the plan, as its record says it."""
    with store.new_run("demo") as folder:
        publish_json(
            folder.record,
            {
                "template": {"name": "demo"},
                "source": {"sha256": document["source"]["sha256"]},
                "bootSeconds": 10.0,
                "lastRunStatus": {"runState": "Succeeded"},
                "phases": [{"name": "Exporting", "seconds": 4.0}, {"name": "Booting", "seconds": 9.0}],
                "steps": [
                    {**{key: step[key] for key in ("name", "kind", "digest")}, "seconds": seconds, "result": result}
                    for step in document["steps"]
                ],
            },
        )


def test_known_durations_are_medians_of_the_same_step_else_of_its_name(store, write) -> None:
    document = planned(write())
    time = document["varies"]["time"]
    assert (time["knownSeconds"], time["complete"]) == (0, False)
    for seconds in (1.0, 2.0, 6.0):
        record_run(store, document, seconds)
    record_run(store, document, 99.0, result="failed")
    (store.new_run("demo").record).write_text("{ damaged")
    time = planned(write())["varies"]["time"]
    assert time["boot"] == {"seconds": 10.0, "runs": 4}
    assert time["afterSteps"] == {"seconds": 4.0, "runs": 4}
    assert time["steps"][0] == {"index": 0, "seconds": 2.0, "runs": 3, "known": "digest"}
    assert time["complete"]
    assert time["knownSeconds"] == 10 + 4 * 2 + 4
    assert time["budgetShare"] == pytest.approx(22 / 14400, abs=1e-4)
    changed = planned(write(customize=[shell("one", "echo other"), shell("new", "true")]))["varies"]["time"]
    assert [each["known"] for each in changed["steps"]] == ["name", None, "name"]
    assert not changed["complete"]


def test_versions_that_would_be_published_stand_apart(store, write) -> None:
    explicit = {**SHARED, "runOutputName": "e", "galleryImageId": f"{DEFINITION}/versions/3.0.0"}
    latest = {**SHARED, "versioning": {"scheme": "Latest", "major": 2}, "targetRegions": [{"name": "eastus"}]}
    del latest["replicationRegions"]
    document = planned(write(distribute=[latest, explicit]))
    assert [each["version"] for each in document["distribute"]] == [None, "3.0.0"]
    assert [each["versioning"] for each in document["distribute"]] == ["Latest", "explicit"]
    assert [each["version"] for each in document["varies"]["versions"]] == ["2.0.1"]


def test_a_damaged_record_says_nothing() -> None:
    found = durations.of_records([{}, {"steps": 3, "source": None}, {"steps": [{"result": "succeeded"}]}])
    assert found.step("t", "Shell", "x", "d") is None
    assert found.boot("s") is None


def test_what_is_sent_is_what_arrives(store, write) -> None:
    steps = planned(write())["steps"]
    unix = b"#!/bin/sh\necho hi\n"
    assert steps[0]["script"]["sha256"] == hashlib.sha256(b"#!/bin/sh -e\necho 1\n").hexdigest()
    assert steps[1]["script"] == {
        "sha256": hashlib.sha256(unix).hexdigest(),
        "size": len(unix),
        "firstLine": "#!/bin/sh",
        "lineEndsConverted": True,
    }
    assert steps[2]["script"] is None
    assert "sudo -n env" in steps[1]["command"]
    login = planned(write(), "--script-user", "login")["steps"]
    assert "sudo" not in login[1]["command"]


def test_no_signature_is_printed(store, write, tmp_path) -> None:
    secret = "echo https://x.blob.core.windows.net/c/b?sv=1&sig=abcDEF123%3D"
    path = write(customize=[shell("s", secret)])
    (tmp_path / "old.json").write_text(run("plan", path, "--json"))
    changed = write("changed", customize=[shell("s", secret, "true")])
    for text in (run("plan", path), run("plan", path, "--json"), run("plan", "--diff", tmp_path / "old.json", changed)):
        assert "abcDEF123" not in text


def test_standard_input(store, write, tmp_path, monkeypatch) -> None:
    path = write()
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(aib, ["plan", "-", "--json"], input=path.read_text(), standalone_mode=False)
    assert result.exception is None, result.output
    from_file, from_input = planned(path), json.loads(result.stdout)
    del from_file["varies"], from_input["varies"]
    assert from_input == from_file


def test_diff_of_templates_saved_plans_and_runs(store, write, tmp_path) -> None:
    old = write("old")
    new = write(
        "new",
        customize=[
            shell("zero", "true"),
            shell("one", "echo 2", "echo 3"),
            {"type": "File", "name": "three", "sourceUri": "a.sh", "destination": "/tmp/b.sh"},
        ],
        vmProfile={"vmSize": "Standard_B1ms"},
    )
    saved = tmp_path / "saved.json"
    saved.write_text(run("plan", old, "--json"))
    text = run("plan", "--diff", old, new)
    assert text == run("plan", "--diff", saved, new)
    with store.new_run("demo") as folder:
        made = plan_json.to_json(made_plan(store, old))
        folder.plan.write_text(json.dumps(made))
    assert text == run("plan", "--diff", folder.id, new)
    expected = [
        "~ machine.vmSize: Standard_B1s -> Standard_B1ms",
        "~ machine.asked.memoryMiB: 1024 -> 2048",
        "~ machine.given.memoryMiB: 1024 -> 2048",
        "- deviations: ",
        "+ steps[0] zero: ",
        "~ steps[1] one: inline",
        "    @@ -1 +1,2 @@",
        "    -echo 1",
        "    +echo 2",
        "    +echo 3",
        "- steps[1] two: ",
        "~ steps[2] three: settings.destination: /tmp/a.sh -> /tmp/b.sh",
        "From step 0 on, the guest is another one than before.",
    ]
    lines = text.splitlines()
    assert len(lines) == len(expected)
    for line, beginning in zip(lines, expected, strict=True):
        assert line.startswith(beginning)
    document = json.loads(run("plan", "--diff", old, new, "--json"))
    assert document["firstRerun"] == 0
    assert not document["same"]
    assert "machine.vmSize" in {change["where"] for change in document["changes"]}


def made_plan(store: Store, path: Path):
    from hypervisor.deadline import Deadline
    from orchestrator.build.options import BuildOptions
    from orchestrator.verbs.planned import Planner

    planner = Planner(BuildOptions(), store, Deadline.after(60), print)
    return planner.plan(planner.check(path))


def test_diff_says_what_is_the_same_and_where_it_begins_to_differ(store, write) -> None:
    steps = [shell("a", "echo a"), shell("b", "echo b"), shell("c", "echo c")]
    old = write("old", customize=steps)
    assert "same" in run("plan", "--diff", old, old)
    moved = write("moved", customize=[steps[0], steps[2], steps[1]])
    found = json.loads(run("plan", "--diff", old, moved, "--json"))
    assert found["firstRerun"] == 1
    assert [change["kind"] for change in found["changes"]] == ["moved"]
    renamed = write("renamed", customize=[steps[0], {**steps[1], "name": "B"}, steps[2]])
    found = json.loads(run("plan", "--diff", old, renamed, "--json"))
    assert found["firstRerun"] is None
    assert [(change["old"], change["new"]) for change in found["changes"]] == [("b", "B")]


@pytest.mark.parametrize(
    ("content", "error", "says"),
    [
        ('{"kind": "RunPlan", "version": 2}', InputError, "version 2"),
        ('{"kind": "RunPlan", "version": 1, "steps": [{}]}', InputError, "not a whole plan"),
        ('{"kind": "RunPlan", "version": 1, "steps": 3}', InputError, "not a whole plan"),
        ('{"template_id": "x", "steps": []}', AibError, "version"),
        (None, UsageError, "is no file, and there is no run"),
    ],
)
def test_diff_of_what_is_no_plan(store, write, tmp_path, content, error, says) -> None:
    side = tmp_path / "side.json"
    if content is not None:
        side.write_text(content)
    with pytest.raises(error, match=says):
        run("plan", "--diff", side, write())


def test_a_template_or_two_sides() -> None:
    for arguments in (["plan"], ["plan", "x.json", "--diff", "a", "b"], ["plan", "--diff", "a", "b", "--packer", "d"]):
        result = CliRunner().invoke(aib, arguments)
        assert result.exit_code == 2, result.output


def test_standard_input_that_is_no_template(store) -> None:
    result = CliRunner().invoke(aib, ["plan", "-"], input="{", standalone_mode=False)
    assert result.return_value == 2
