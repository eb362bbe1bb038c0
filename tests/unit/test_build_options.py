from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any, cast

import pytest

from orchestrator.build.options import BuildOptions
from orchestrator.build.supervisor import Ended
from orchestrator.record.events import RunFinished
from orchestrator.verbs import build
from orchestrator.verbs.build import check

IMAGE = "[resourceId('Microsoft.Compute/images', 'made')]"


def test_options_survive_their_way_to_the_worker() -> None:
    options = BuildOptions(accel="tcg", settings={"a": "b"}, parameters={"p": [1, {"q": None}]})
    assert BuildOptions.from_json(json.loads(json.dumps(options.to_json()))) == options


def test_an_option_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ValueError, match="speed"):
        BuildOptions.from_json({"speed": 9})


def test_the_scope_of_the_command_line_is_the_scope_of_expressions(tmp_path: Path) -> None:
    resource = {
        "type": "Microsoft.VirtualMachineImages/imageTemplates",
        "apiVersion": "2019-05-01-preview",
        "name": "scoped",
        "location": "eastus",
        "properties": {
            "source": {
                "type": "PlatformImage", "publisher": "Debian", "offer": "debian-12", "sku": "12", "version": "latest",
            },
            "distribute": [
                {"type": "ManagedImage", "runOutputName": "o", "imageId": IMAGE, "location": "eastus"}
            ],
        },
    }  # fmt: skip
    schema = "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#"
    deployment = {"$schema": schema, "contentVersion": "1.0.0.0", "resources": [resource]}
    path = tmp_path / "deployment.json"
    path.write_text(json.dumps(deployment))
    subscription = "11111111-2222-3333-4444-555555555555"
    options = BuildOptions(subscription=subscription, resource_group="images")
    target = check(path, options).template().distribute[0]
    wanted = f"/subscriptions/{subscription}/resourceGroups/images/providers/Microsoft.Compute/images/made"
    assert getattr(target, "image_id", None) == wanted


def test_a_signal_that_comes_when_the_run_has_ended_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = Ended("run", Path("run"), RunFinished("Succeeded", "", "", 0, 1.0))

    def late(_checked: object, _store: object, _shower: object, _stops: object) -> Ended:
        signal.raise_signal(signal.SIGINT)
        return ended

    monkeypatch.setattr(build, "build_one", late)
    assert build.build(*[cast(Any, None)] * 3).stopped
