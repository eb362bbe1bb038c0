"""From `az login` to a VHD that boots: the tiny guest, built in a real virtual machine by az's commands.

AIB_AZ_SESSION names a file for what was typed and answered.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
import requests

from tests.az.conftest import Az
from tests.contract.served import served
from tests.vm.support import TINY_URN, Home

pytestmark = pytest.mark.vm
GROUP = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/demo"
IDENTITY = f"{GROUP}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/builder"


def template(urn: str, *lines: str) -> str:
    """A template on that source with one step, distributed as VHD."""
    publisher, offer, sku, version = urn.split(":")
    source = {"type": "PlatformImage", "publisher": publisher, "offer": offer, "sku": sku, "version": version}
    body = {
        "location": "eastus",
        "identity": {"type": "UserAssigned", "userAssignedIdentities": {IDENTITY: {}}},
        "properties": {
            "vmProfile": {"vmSize": "Standard_B1s"},
            "source": source,
            "customize": [{"type": "Shell", "name": "mark", "inline": list(lines)}],
            "distribute": [{"type": "VHD", "runOutputName": "disk"}],
        },
    }
    return json.dumps(body, indent=2)


def test_az_builds_a_vhd_that_boots(az_program: Path, tiny_image: Path, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.ok("image", "import", tiny_image, "--urn", TINY_URN, "--os", "linux")
    (tmp_path / "first.json").write_text(template(TINY_URN, "echo by az | sudo tee /etc/made"))
    session: list[str] = []
    try:
        with served(home.path, "--allow-host-network", "--no-cache") as server:
            az = Az(az_program, server, tmp_path, session)
            az("account", "show")
            az("group", "create", "-n", "demo", "-l", "eastus")
            az("identity", "create", "-g", "demo", "-n", "builder")
            az("image", "builder", "create", "-n", "first", "-g", "demo", "--image-template", "first.json")
            az("image", "builder", "run", "-n", "first", "-g", "demo")
            query = ("--query", "lastRunStatus")
            assert az("image", "builder", "show", "-n", "first", "-g", "demo", *query)["runState"] == "Succeeded"
            [output] = az("image", "builder", "show-runs", "-n", "first", "-g", "demo")
            disk = tmp_path / "disk.vhd"
            answer = requests.get(output["artifactUri"], verify=server.ca, timeout=300)
            disk.write_bytes(answer.content)
            session.append(f"$ curl --cacert {server.ca} -o disk.vhd '{output['artifactUri']}'")
            session.append(f"({len(answer.content)} bytes)")
            session.append("$ aib image import disk.vhd --urn example:made-by:az:1.0.0 --os linux")
            session.append(home.ok("image", "import", disk, "--urn", "example:made-by:az:1.0.0", "--os", "linux"))
            # The proof that it boots: a second build logs in to it, and finds what the first one left.
            (tmp_path / "second.json").write_text(template("example:made-by:az:1.0.0", "grep 'by az' /etc/made"))
            az("image", "builder", "create", "-n", "second", "-g", "demo", "--image-template", "second.json")
            az("image", "builder", "run", "-n", "second", "-g", "demo")
            assert az("image", "builder", "show", "-n", "second", "-g", "demo", *query)["runState"] == "Succeeded"
            session.append("$ aib logs second | grep 'by az'")
            session.append("\n".join(line for line in home.ok("logs", "second").splitlines() if "by az" in line))
            az("image", "builder", "delete", "-n", "first", "-g", "demo")
            assert requests.get(output["artifactUri"], verify=server.ca, timeout=60).status_code == 404
    finally:
        if kept := os.environ.get("AIB_AZ_SESSION"):
            Path(kept).write_text(re.sub(r"sig=[0-9a-f]+", "sig=...", "\n".join(session)) + "\n")
