"""Templates with one to three things wrong in them, hundreds of them: each is refused or made, none breaks anything."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.service.settings import Settings
from orchestrator.template.schema.tables import tables
from tests.contract.arm_client import GROUP, TEMPLATES, Arm, arm_server, template

GALLERY = f"{GROUP}/providers/Microsoft.Compute/galleries/g/images/d"
VALUES: list[Any] = [
    None, True, 0, -1, 5, 1e308, 2**70, "", "x", "[parameters('a')]", "[concat(", "<ph>", "\0", "ä\U0001f600", [], {},
    [[]], {"a": 1}, "/subscriptions/x", "https://e/x?sig=abc", "file:///etc/passwd", "../x", "a" * 300,
]  # fmt: skip
WHOLE = [
    template(
        validate={"inVMValidations": [{"type": "Shell", "inline": ["x"]}], "sourceValidationOnly": False},
        errorHandling={"onCustomizerError": "abort"}, autoRun={"state": "Enabled"}, buildTimeoutInMinutes=30,
        optimize={"vmBoot": {"state": "Enabled"}}, stagingResourceGroup="/subscriptions/a/resourceGroups/b",
    ),
    template(
        distribute=[
            {"type": "VHD", "runOutputName": "v", "artifactTags": {"a": "b"}},
            {"type": "SharedImage", "runOutputName": "s", "galleryImageId": GALLERY,
             "targetRegions": [{"name": "eastus", "replicaCount": 1}], "versioning": {"scheme": "Latest", "major": 1}},
        ],
        vmProfile={"vmSize": "Standard_B1s", "osDiskSizeGB": 40, "userAssignedIdentities": ["x"],
                   "vnetConfig": {"subnetId": "x"}},
    ),
    template(
        customize=[
            {"type": "PowerShell", "inline": ["a"], "runElevated": True, "validExitCodes": [0]},
            {"type": "WindowsRestart", "restartTimeout": "5m"}, {"type": "WindowsUpdate", "filters": ["x"]},
            {"type": "File", "sourceUri": "https://e/x", "destination": "c:\\x"},
        ],
        source={"type": "SharedImageVersion", "imageVersionId": f"{GALLERY}/versions/1.0.0"},
    ),
]  # fmt: skip


@pytest.fixture(scope="module")
def arm(tmp_path_factory: pytest.TempPathFactory, token_key: Path) -> Iterator[Arm]:
    home = tmp_path_factory.mktemp("home")
    with arm_server(Settings(home, scripted=True, in_memory=True, token_key=token_key)) as server:
        yield server
        server.post("/_aib/reset")


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from paths(child, (*path, key))


def mutated(chance: random.Random, value: Any) -> Any:
    value = copy.deepcopy(value)
    for _ in range(chance.randint(1, 3)):
        *way, last = chance.choice(list(paths(value)))
        at = value
        for key in way:
            at = at[key]
        what = chance.random()
        if what < 0.6 or isinstance(at, list):
            at[last] = copy.deepcopy(chance.choice(VALUES))
        elif what < 0.8:
            at[chance.choice(["x", str(last).upper(), "aib", "resources", "copy", "id"])] = at.pop(last)
        else:
            at.pop(last)
        if not value:
            break
    return value


@pytest.mark.parametrize("seed", range(3))
def test_no_template_breaks_the_server(arm: Arm, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(40):
        version, path = chance.choice(tables().versions), f"{TEMPLATES}/m{chance.randrange(4)}"
        body = mutated(chance, chance.choice(WHOLE))
        if chance.random() < 0.2:
            wanted = {"tags": body.get("tags"), "properties": {"distribute": chance.choice(VALUES)}}
            answer = arm.ask("PATCH", path, mutated(chance, wanted), version=version)
        else:
            answer = arm.put(path, body, version=version)
        assert answer.status_code in (200, 201, 202, 400, 404, 409), (answer.text, body)
        if chance.random() < 0.3:
            assert arm.post(f"{path}/run", version=version).status_code in (202, 400, 404, 409)
            assert arm.delete(path, version=version).status_code in (202, 204, 409)
    assert not (arm.context.settings.home / "service" / "faults").exists()
