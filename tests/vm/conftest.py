"""One AIB_HOME for the tests that build, and templates for the tiny guest."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.vm.support import SCOPE, TINY_URN, Home, qemus_of
from tests.vm.system_daemon import system_daemon  # noqa: F401 -- a fixture is used by its name


@pytest.fixture(scope="session")
def shared_home(tmp_path_factory: pytest.TempPathFactory, tiny_image: Path) -> Home:
    """One AIB_HOME for many tests, with the tiny guest imported."""
    home = Home(tmp_path_factory.mktemp("home"))
    home.ok("image", "import", tiny_image, "--urn", TINY_URN, "--os", "linux")
    return home


@pytest.fixture
def home(shared_home: Home) -> Iterator[Home]:
    """The shared home; afterwards no QEMU of it may be left, and no worker may have died aloud."""
    yield shared_home
    assert qemus_of(shared_home.path) == []
    # A supervisor that was killed leaves the file there, empty.
    assert "".join(log.read_text() for log in shared_home.path.glob("runs/*/worker.log")) == ""


TemplateWriter = Callable[..., Path]


@pytest.fixture
def write_template(tmp_path: Path) -> TemplateWriter:
    """Write a template that builds the tiny guest into a managed image; keywords replace or add properties."""

    def write(name: str, *customize: dict[str, Any], **properties: Any) -> Path:
        image = f"{SCOPE}/Microsoft.Compute/images/{name}"
        publisher, offer, sku, version = TINY_URN.split(":")
        body = {
            "vmProfile": {"vmSize": "Standard_B1s"},
            "source": {
                "type": "PlatformImage", "publisher": publisher, "offer": offer, "sku": sku, "version": version,
            },
            "customize": list(customize),
            "distribute": [
                {"type": "ManagedImage", "runOutputName": name, "imageId": image, "location": "eastus"},
            ],
            **properties,
        }  # fmt: skip
        template = {
            "type": "Microsoft.VirtualMachineImages/imageTemplates",
            "apiVersion": "2023-07-01",
            "location": "eastus",
            "identity": {"type": "UserAssigned", "userAssignedIdentities": {}},
            "properties": {key: value for key, value in body.items() if value is not None},
        }
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(template, indent=2))
        return path

    return write
