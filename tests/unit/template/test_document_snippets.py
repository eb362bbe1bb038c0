"""Every JSON snippet of the user's document, set into a template: it passes, or gets diagnostics with a fix."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.template.diagnostics import Severity
from orchestrator.template.load import inspect_templates

FOLDER = Path(__file__).parents[3] / "fixtures" / "templates" / "document"
IMAGE = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/images/i"
GALLERY = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/galleries/g"
SETTINGS = {
    "region": "westus2", "vnetName": "v", "subnetName": "s", "vnetRgName": "g", "name": "n", "value": "v",
    "path to script": "https://x/y", "link to script": "https://x/y", "source location": "https://x/y",
    "destination": "/tmp/y", "sha256 checksum": "0" * 64, "command to run inline": "true", "commands to run": "true",
    "subscriptionId": "s", "imageName": "i", "sharedImageGalleryName": "g", "imageVersion": "1.0.0",
    "resourceGroup": "g", "VHD name": "vhd",
    "imgBuilderId": "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/b",
}  # fmt: skip

SOURCE = '"source": {"type": "PlatformImage", "publisher": "P", "offer": "o", "sku": "s", "version": "1"}'
TARGET = '"distribute": [{"type": "VHD", "runOutputName": "o"}]'
ENVELOPE = '"type": "Microsoft.VirtualMachineImages/imageTemplates", "apiVersion": "2019-05-01-preview"'
PLACES = {
    "whole": "@",
    "resource-type": f'{{@ "location": "eastus", "properties": {{{SOURCE}, {TARGET}}}}}',
    "resource-location": f'{{{ENVELOPE}, @ "properties": {{{SOURCE}, {TARGET}}}}}',
    "resource": f'{{{ENVELOPE}, "location": "eastus", @ "properties": {{{SOURCE}, {TARGET}}}}}',
    "identity": f'{{{ENVELOPE}, "location": "eastus", @ "properties": {{{SOURCE}, {TARGET}}}}}',
    "profile": f'{{{ENVELOPE}, "location": "eastus", "properties": {{{SOURCE}, "vmProfile": @ {TARGET}}}}}',
    "vnet": f'{{{ENVELOPE}, "location": "eastus", "properties": {{{SOURCE}, "vmProfile": {{@}}, {TARGET}}}}}',
    "source": f'{{{ENVELOPE}, "location": "eastus", "properties": {{@, {TARGET}}}}}',
    "customize": f'{{{ENVELOPE}, "location": "eastus", "properties": {{{SOURCE}, @ {TARGET}}}}}',
    "distribute": f'{{{ENVELOPE}, "location": "eastus", "properties": {{{SOURCE}, @}}}}',
    "target": f'{{{ENVELOPE}, "location": "eastus", "properties": {{{SOURCE}, "distribute": [@]}}}}',
}
SNIPPETS: list[tuple[str, str, dict[str, str], set[str]]] = [
    # file, where it goes, further settings, the rules that its mistakes break
    ("01-skeleton", "whole", {"minutes": "60", "vmSize": "Standard_D1_v2", "sizeInGB": "0"},
     {"AIB001", "AIB003", "AIB020", "AIB058"}),
    ("02-type", "resource-type", {}, set()),
    ("03-location", "resource-location", {}, set()),
    ("04-vm-size", "profile", {}, set()),
    ("05-os-disk-size", "profile", {}, set()),
    ("06-vnet-config", "vnet", {}, set()),
    ("07-depends-on", "resource", {}, set()),
    ("08-identity", "identity", {}, set()),
    ("09-source-platform", "source", {}, set()),
    ("10-source-managed", "source", {}, {"AIB022"}),
    ("11-source-gallery", "source", {}, {"AIB022"}),
    ("12-customize", "customize", {}, {"AIB001", "AIB032"}),
    ("13-customize-shell", "customize", {}, {"AIB001"}),
    ("14-customize-restart", "customize", {}, set()),
    ("15-customize-powershell", "customize", {"true false": "true", "true or false": "true", "exit code": "0",
                                              "PowerShell syntax to run": "dir"}, {"AIB029", "AIB030", "AIB032"}),
    ("16-customize-file", "customize", {}, set()),
    ("17-customize-update", "customize", {}, set()),
    ("18-run-output", "whole", {}, {"AIB005"}),
    ("19-distribute-managed", "distribute", {"resource ID": IMAGE}, {"AIB003", "AIB010"}),
    ("20-distribute-gallery", "target", {"resource ID": f"{GALLERY}/images/d",
                                         "region where the gallery is deployed": "eastus"}, {"AIB001", "AIB010"}),
    ("21-distribute-vhd", "target", {}, {"AIB003"}),
]  # fmt: skip


def composed(file: str, place: str) -> str:
    snippet = (FOLDER / f"{file}.txt").read_text(encoding="utf-8")
    if place in ("source", "distribute"):
        snippet = snippet.rstrip().rstrip(",")
    if file == "16-customize-file":
        snippet = snippet.rstrip() + ","  # the document leaves it to the reader
    return PLACES[place].replace("@", snippet)


@pytest.mark.parametrize(("file", "place", "settings", "rules"), SNIPPETS, ids=[s[0] for s in SNIPPETS])
def test_the_snippet_passes_or_gets_a_diagnostic_with_its_fix(
    file: str, place: str, settings: dict[str, str], rules: set[str]
) -> None:
    result = inspect_templates(None, composed(file, place), settings={**SETTINGS, **settings})
    errors = [d for d in result.diagnostics if d.severity is Severity.ERROR]
    assert {d.rule for d in errors} == rules
    assert all(d.hint or d.rule == "AIB032" for d in errors)
    if not rules:
        assert len(result.templates) == 1


def test_all_snippets_are_here() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == {snippet[0] for snippet in SNIPPETS}


def test_corrected_as_the_hints_say_the_whole_document_makes_one_template() -> None:
    data: dict[str, Any] = {
        "type": "Microsoft.VirtualMachineImages/imageTemplates", "apiVersion": "2019-05-01-preview",
        "location": "westus2", "tags": {"a": "b"}, "dependsOn": [],
        "identity": {"type": "UserAssigned", "userAssignedIdentities": {SETTINGS["imgBuilderId"]: {}}},
        "properties": {
            "buildTimeoutInMinutes": 240,
            "vmProfile": {
                "vmSize": "Standard_D1_v2", "osDiskSizeGB": 100,
                "vnetConfig": {"name": "v", "subnetName": "s", "resourceGroupName": "g"},
            },
            "source": {"type": "SharedImageVersion", "imageVersionId": f"{GALLERY}/images/d/versions/1.0.0"},
            "customize": [
                {"type": "Shell", "name": "a", "scriptUri": "https://x/y", "sha256Checksum": "0" * 64},
                {"type": "Shell", "name": "b", "inline": ["true"]},
                {"type": "File", "name": "c", "sourceUri": "https://x/y", "destination": "/tmp/y"},
            ],
            "distribute": [
                {"type": "ManagedImage", "imageId": IMAGE, "location": "westus2", "runOutputName": "m"},
                {"type": "SharedImage", "galleryImageId": f"{GALLERY}/images/d", "runOutputName": "s",
                 "artifactTags": {"a": "b"}, "replicationRegions": ["westus2"]},
                {"type": "VHD", "runOutputName": "v", "tags": {"a": "b"}},
            ],
        },
    }  # fmt: skip
    result = inspect_templates(None, json.dumps(data))
    assert [d for d in result.diagnostics if d.severity is Severity.ERROR] == []
    assert len(result.templates[0].distribute) == 3
