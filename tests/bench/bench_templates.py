"""Templates for measuring: an ARM deployment with many customizers, and the same provisioners for Packer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SCRIPT = """#!/bin/sh -e
# One of the scripts of the measured template.
for name in alpha beta gamma; do
    sudo mkdir -p "/opt/app/$name"
    printf '%s\\n' "$name" | sudo tee "/opt/app/$name/name" > /dev/null
done
"""


def write_files(folder: Path) -> None:
    """The local scripts and files that the customizers name."""
    for number in range(4):
        (folder / f"script-{number}.sh").write_text(SCRIPT + f"echo {number}\n")
        (folder / f"file-{number}.conf").write_text(f"[part]\nnumber = {number}\n")


def inline(number: int) -> list[str]:
    """The lines of one inline customizer."""
    return [
        f"echo 'step {number}'",
        f"sudo mkdir -p /opt/app/step-{number}",
        f"date -u +%F | sudo tee /opt/app/step-{number}/built",
        f"test -s /opt/app/step-{number}/built",
    ]


def customizers(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """`count` customizers: of each six four inline scripts, one script by its name and one file."""
    made: list[dict[str, Any]] = []
    for number in range(count):
        own = number + seed * count
        if number % 6 == 4:
            uri = f"script-{number // 6 % 4}.sh"
            made.append({"type": "Shell", "name": f"[concat('script-', '{own}')]", "scriptUri": uri})
        elif number % 6 == 5:
            made.append({
                "type": "File",
                "name": f"file-{own}",
                "sourceUri": f"file-{number // 6 % 4}.conf",
                "destination": f"[concat(variables('drop'), '/part-{own}.conf')]",
            })  # fmt: skip
        else:
            made.append({"type": "Shell", "name": f"step-{own}", "inline": inline(own)})
    return made


def deployment(count: int = 24, seed: int = 0) -> str:
    """The text of an ARM deployment: parameters, variables, expressions, and `count` customizers."""
    document = {
        "$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#",
        "contentVersion": "1.0.0.0",
        "parameters": {
            "location": {"type": "string", "defaultValue": "[resourceGroup().location]"},
            "imageName": {"type": "string", "defaultValue": f"app-{seed}", "minLength": 3},
            "identity": {"type": "string", "defaultValue": "builder"},
            "regions": {"type": "array", "defaultValue": ["eastus", "westeurope"]},
        },
        "variables": {
            "drop": "/tmp/app",
            "gallery": "[concat('gallery', '_', parameters('location'))]",
            "imageId": "[resourceId('Microsoft.Compute/galleries/images', variables('gallery'), "
            "parameters('imageName'))]",
            "identityId": "[resourceId('Microsoft.ManagedIdentity/userAssignedIdentities', parameters('identity'))]",
        },
        "resources": [
            {
                "type": "Microsoft.VirtualMachineImages/imageTemplates",
                "apiVersion": "2024-02-01",
                "name": "[concat(parameters('imageName'), '-template')]",
                "location": "[parameters('location')]",
                "dependsOn": ["[variables('identityId')]"],
                "identity": {"type": "UserAssigned", "userAssignedIdentities": {"[variables('identityId')]": {}}},
                "properties": {
                    "buildTimeoutInMinutes": 120,
                    "vmProfile": {"vmSize": "Standard_D2s_v3", "osDiskSizeGB": 30},
                    "source": {
                        "type": "PlatformImage",
                        "publisher": "Canonical",
                        "offer": "0001-com-ubuntu-server-jammy",
                        "sku": "22_04-lts-gen2",
                        "version": "22.04.202410020",
                    },
                    "customize": customizers(count, seed),
                    "distribute": [
                        {
                            "type": "SharedImage",
                            "runOutputName": "[parameters('imageName')]",
                            "galleryImageId": "[variables('imageId')]",
                            "targetRegions": [{"name": "eastus", "replicaCount": 1}, {"name": "westeurope"}],
                            "artifactTags": {"source": "[parameters('imageName')]"},
                        }
                    ],
                },
            }
        ],
    }
    return json.dumps(document, indent=2)


def packer(folder: Path, count: int = 24) -> str:
    """The same for Packer's QEMU builder (JSON, which every version reads)."""
    provisioners: list[dict[str, Any]] = []
    for number in range(count):
        if number % 6 == 4:
            provisioners.append({"type": "shell", "script": str(folder / f"script-{number // 6 % 4}.sh")})
        elif number % 6 == 5:
            source = str(folder / f"file-{number // 6 % 4}.conf")
            destination = f"{{{{user `drop`}}}}/part-{number}.conf"
            provisioners.append({"type": "file", "source": source, "destination": destination})
        else:
            provisioners.append({"type": "shell", "inline": inline(number)})
    builder = {
        "type": "qemu",
        "iso_url": str(folder / "source.qcow2"),
        "iso_checksum": "none",
        "disk_image": True,
        "disk_size": "30G",
        "format": "qcow2",
        "accelerator": "tcg",
        "headless": True,
        "ssh_username": "packer",
        "ssh_password": "packer",
        "shutdown_command": "sudo poweroff",
    }
    variables = {"drop": "/tmp/app", "imageName": "app", "location": "eastus"}
    document = {"variables": variables, "builders": [builder], "provisioners": provisioners}
    return json.dumps(document, indent=2)
