"""Every rule: one template that fires it and one, as near as possible, that must not."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.template.diagnostics import Severity
from orchestrator.template.load import FileChecks, inspect_templates
from orchestrator.template.rules.catalogue import catalogue

GROUP = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/rg"
IMAGE = f"{GROUP}/providers/Microsoft.Compute/images/base"
GALLERY_IMAGE = f"{GROUP}/providers/Microsoft.Compute/galleries/g/images/d"
IDENTITY = f"{GROUP}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/builder"
SUBNET = f"{GROUP}/providers/Microsoft.Network/virtualNetworks/v/subnets"
SHA = "0123456789abcdef" * 4
RAW = "https://raw.githubusercontent.com/o/r"

LINUX = {
    "type": "PlatformImage",
    "publisher": "Canonical",
    "offer": "ubuntu-24_04-lts",
    "sku": "server",
    "version": "1.0.0",
}
WINDOWS = {
    "type": "PlatformImage", "publisher": "MicrosoftWindowsServer", "offer": "WindowsServer", "sku": "2022-datacenter",
    "version": "1.0.0",
}  # fmt: skip
OLD = "2019-05-01-preview"
NEW = "2023-07-01"
STRICT = "2024-02-01"


def template(version: str = NEW, **properties: Any) -> dict[str, Any]:
    """A deployment of one clean Linux template (a deployment, because a bare strict body is AIB014)."""
    resource: dict[str, Any] = {
        "type": "Microsoft.VirtualMachineImages/imageTemplates",
        "apiVersion": version,
        "name": "t",
        "location": "eastus",
        "properties": {
            "source": LINUX,
            "customize": [{"type": "Shell", "name": "one", "inline": ["true"]}],
            "distribute": [{"type": "ManagedImage", "runOutputName": "out", "imageId": IMAGE, "location": "eastus"}],
        },
    }
    if version != OLD:
        resource["identity"] = {"type": "UserAssigned", "userAssignedIdentities": {IDENTITY: {}}}
    for key, value in properties.items():
        if key.startswith("_"):
            resource[key[1:]] = value
        else:
            resource["properties"][key] = value
    for place in (resource, resource["properties"]):
        for key in [key for key, value in place.items() if value is ...]:
            del place[key]
    return {"resources": [resource]}


def bare(version: str = NEW, **properties: Any) -> dict[str, Any]:
    return template(version, **properties)["resources"][0]


def shell(*lines: str, **more: Any) -> dict[str, Any]:
    return template(customize=[{"type": "Shell", "name": "one", "inline": list(lines)}], **more)


def linux(*steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    named = [{"name": f"s{i}", **step} for i, step in enumerate(steps)]
    return template(customize=named, **more)


def windows(*steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    named = [{"name": f"s{i}", **step} for i, step in enumerate(steps)]
    return template(source=WINDOWS, customize=[*named, {"type": "WindowsRestart", "name": "last"}], **more)


def powershell(*lines: str) -> dict[str, Any]:
    return windows({"type": "PowerShell", "inline": ["$ErrorActionPreference = 'Stop'", *lines]})


def gallery(version: str = NEW, **fields: Any) -> dict[str, Any]:
    target = {
        "type": "SharedImage", "runOutputName": "out", "galleryImageId": GALLERY_IMAGE,
        "targetRegions": [{"name": "eastus"}], **fields,
    }  # fmt: skip
    return template(version, distribute=[{k: v for k, v in target.items() if v is not ...}])


def vm(**profile: Any) -> dict[str, Any]:
    return template(STRICT, vmProfile=profile)


def uri(address: str, **more: Any) -> dict[str, Any]:
    return linux({"type": "Shell", "scriptUri": address, **more})


def file(destination: str, *then: str, before: str = "true") -> dict[str, Any]:
    step = {"type": "File", "sourceUri": f"{RAW}/{SHA[:40]}/f", "destination": destination, "sha256Checksum": SHA}
    return linux({"type": "Shell", "inline": [before]}, step, {"type": "Shell", "inline": list(then) or ["true"]})


RESTART = {"type": "WindowsRestart"}
UPDATE = {"type": "WindowsUpdate"}
NEWEST = {"type": "SharedImageVersion", "imageVersionId": f"{GALLERY_IMAGE}/versions/latest"}
DEPROVISION = "echo 'waagent -force -deprovision+user' > /tmp/DeprovisioningScript.sh"
D2 = {"vmSize": "Standard_D2_v2"}
GEN2 = {**LINUX, "sku": "server-gen2"}
TWICE = '{"type": "Microsoft.VirtualMachineImages/imageTemplates", "type": "x"}'

CASES: list[tuple[str, str, Any, Any]] = [
    # rule, severity, fires, does not
    ("AIB001", "error", TWICE, json.dumps(template())),
    ("AIB001", "warning", json.dumps(template()) + "// why", json.dumps(template())),
    ("AIB002", "warning", "\ufeff" + json.dumps(template()), json.dumps(template())),
    ("AIB003", "error", template(_location="<region>"), template(_location="eastus")),
    ("AIB004", "error", template(_location="[parameters('x')]"), template(_location="[toLower('EASTUS')]")),
    ("AIB004", "error", bare(_location="[resourceGroup().location]"), bare(_tags={"a": "[x] (y)"})),
    ("AIB005", "error", template(_type="Microsoft.VirtualMachineImages"), template()),
    ("AIB006", "warning", template("2099-01-01"), template()),
    ("AIB006", "info", template(OLD), template()),
    ("AIB007", "error", template(OLD, validate={}), template(validate={})),
    ("AIB008", "warning", template(customise=[]), template()),
    ("AIB008", "error", template(STRICT, customise=[]), template(STRICT)),
    ("AIB009", "warning", vm() | template(vmprofile={}), vm()),
    ("AIB009", "error", template(STRICT, vmprofile={}), template(STRICT, vmProfile={})),
    ("AIB010", "error", linux({"type": "shell", "inline": ["true"]}), linux({"type": "Shell", "inline": ["true"]})),
    ("AIB011", "error", template(_identity=...), template(OLD)),
    ("AIB012", "error", template(_identity={"type": "UserAssigned", "userAssignedIdentities": {"me": {}}}), template()),
    ("AIB013", "warning", template(_location="Nowhere West"), template(_location="West US 2")),
    ("AIB014", "warning", bare(STRICT), bare(NEW)),
    ("AIB015", "error", template(_name="a b"), template(_name="a-b_c.d")),
    ("AIB016", "error", template(buildTimeoutInMinutes=961), template(buildTimeoutInMinutes=960)),
    ("AIB017", "warning", template(buildTimeoutInMinutes=5), template(buildTimeoutInMinutes=6)),
    ("AIB018", "warning", windows(RESTART, buildTimeoutInMinutes=59), windows(RESTART, buildTimeoutInMinutes=60)),
    (
        "AIB019", "warning", windows({**RESTART, "restartTimeout": "2h"}, buildTimeoutInMinutes=100),
        windows({**RESTART, "restartTimeout": "1h"}, buildTimeoutInMinutes=100),
    ),
    ("AIB020", "error", template(source={**LINUX, "sku": ""}), template()),
    (
        "AIB021", "error", template(OLD, source={"type": "ISO", "sourceUri": "https://x/y", "sha256Checksum": SHA}),
        template(OLD),
    ),
    (
        "AIB022", "error", template(source={"type": "ManagedImage", "imageId": "base"}),
        template(source={"type": "ManagedImage", "imageId": IMAGE}),
    ),
    ("AIB022", "error", gallery(galleryImageId=IMAGE), gallery()),
    ("AIB022", "error", gallery(galleryImageId=GALLERY_IMAGE + "/"), gallery(galleryImageId=GALLERY_IMAGE.upper())),
    ("AIB023", "info", template(source={**LINUX, "version": "latest"}), template()),
    (
        "AIB024", "warning", template("2022-02-14", source=NEWEST), template(source=NEWEST),
    ),
    (
        "AIB025", "warning", template(source={**LINUX, "publisher": "center-for-internet-security-inc"}),
        template(source={**LINUX, "publisher": "center-for-internet-security-inc",
                         "planInfo": {"planName": "a", "planProduct": "b", "planPublisher": "c"}}),
    ),
    ("AIB025", "error", template(source={**LINUX, "planInfo": {"planName": "a"}}), template()),
    ("AIB026", "warning", template(source={**LINUX, "offer": "UbuntuServer", "sku": "18.04-LTS"}), template()),
    (
        "AIB027", "error", linux({"type": "PowerShell", "inline": ["throw"]}),
        windows({"type": "PowerShell", "inline": ["throw"]}),
    ),
    ("AIB028", "error", linux({"type": "Shell"}), linux({"type": "Shell", "inline": ["true"]})),
    ("AIB029", "error", linux({"type": "Shell", "inline": "true"}), linux({"type": "Shell", "inline": ["true"]})),
    (
        "AIB030", "error", windows({"type": "PowerShell", "inline": ["throw"], "validExitCodes": "0"}),
        windows({"type": "PowerShell", "inline": ["throw"], "validExitCodes": [0]}),
    ),
    (
        "AIB031", "error", windows({"type": "PowerShell", "inline": ["throw"], "runAsSystem": True}),
        windows({"type": "PowerShell", "inline": ["throw"], "runAsSystem": True, "runElevated": True}),
    ),
    ("AIB032", "warning", linux(*[{"type": "Shell", "name": "x", "inline": ["true"]}] * 2), template()),
    ("AIB032", "info", template(customize=[{"type": "Shell", "inline": ["true"]}]), template()),
    ("AIB033", "error", uri("https://x/y", sha256Checksum=SHA[1:]), uri("https://x/y", sha256Checksum=SHA)),
    ("AIB033", "warning", uri("https://x/y", sha256Checksum=SHA.upper()), uri("https://x/y", sha256Checksum=SHA)),
    ("AIB035", "info", uri("https://x/y"), uri("https://x/y", sha256Checksum=SHA)),
    ("AIB036", "info", uri(f"{RAW}/main/x.sh"), uri(f"{RAW}/{SHA[:40]}/x.sh")),
    ("AIB037", "warning", uri("https://github.com/o/r/blob/main/x.sh"), uri(f"{RAW}/main/x.sh")),
    (
        "AIB038", "warning", uri("https://a.blob.core.windows.net/c/x?sv=1&sig=abc"),
        uri("https://a.blob.core.windows.net/c/x?sv=1"),
    ),
    ("AIB038", "warning", shell("mysql --password=hunter22 x"), shell('mysql --password="$SECRET" x')),
    ("AIB041", "error", file("/etc/f", "ls /etc/f"), file("/tmp/f", "ls /tmp/f")),
    ("AIB042", "warning", file("/tmp/new/f", "ls f"), file("/tmp/new/f", "ls f", before="mkdir -p /tmp/new")),
    ("AIB042", "warning", file("/tmp/", "ls"), file("/tmp/f", "ls f")),
    ("AIB043", "info", file("/tmp/f", "true"), file("/tmp/f", "sudo mv /tmp/f /opt/f")),
    ("AIB044", "warning", shell("sudo reboot"), shell("echo reboot")),
    ("AIB044", "warning", powershell("Restart-Computer -Force"), powershell("# Restart-Computer")),
    ("AIB045", "warning", shell("sudo yum install httpd"), shell("sudo yum install -y httpd")),
    (
        "AIB045", "warning", shell("cloud-init status --wait", "sudo apt-get install -y x"),
        shell("cloud-init status --wait", "sudo DEBIAN_FRONTEND=noninteractive apt-get install -y x"),
    ),
    ("AIB045", "warning", powershell("$x = Read-Host 'name'"), powershell("$x = 'name'")),
    (
        "AIB046", "warning", shell("sudo DEBIAN_FRONTEND=noninteractive apt-get update"),
        shell("cloud-init status --wait", "sudo DEBIAN_FRONTEND=noninteractive apt-get update"),
    ),
    (
        "AIB047", "warning", shell("if [[ -f /x ]]; then true; fi"),
        shell("#!/bin/bash -e", "if [[ -f /x ]]; then true; fi"),
    ),
    ("AIB047", "warning", shell("source /etc/os-release"), shell("grep '[[ x' /etc/os-release")),
    ("AIB048", "warning", shell("if true; then"), shell("if true; then true; fi")),
    ("AIB049", "warning", shell("sudo echo x > /etc/x"), shell("echo x | sudo tee /etc/x")),
    ("AIB049", "warning", shell("mkdir /opt/x"), shell("sudo mkdir /opt/x", "cp /etc/hosts /tmp/x")),
    ("AIB050", "warning", shell("sudo ufw --force enable"), shell("sudo ufw allow 22")),
    ("AIB050", "warning", powershell("Disable-PSRemoting"), powershell("Enable-PSRemoting")),
    ("AIB051", "warning", shell("docker ps --format '{{.ID}}'"), shell("docker ps")),
    (
        "AIB052", "info", windows({"type": "PowerShell", "inline": ["Get-Item x"]}),
        windows({"type": "PowerShell", "inline": ["Get-Item x -ErrorAction Stop"]}),
    ),
    ("AIB053", "error", windows({**RESTART, "restartTimeout": "5"}), windows({**RESTART, "restartTimeout": "5m"})),
    ("AIB053", "warning", windows({**RESTART, "restartTimeout": "4m"}), windows({**RESTART, "restartTimeout": "5m"})),
    (
        "AIB053", "warning", windows({**RESTART, "restartCommand": "shutdown /r /t 120"}),
        windows({**RESTART, "restartCommand": "shutdown /r /t 0"}),
    ),
    ("AIB054", "warning", windows(UPDATE), windows(UPDATE, vmProfile=D2)),
    (
        "AIB054", "warning", windows({"type": "PowerShell", "inline": ["throw"]}, UPDATE, vmProfile=D2),
        windows({"type": "PowerShell", "inline": ["throw"]}, RESTART, UPDATE, vmProfile=D2),
    ),
    (
        "AIB055", "warning",
        template(source=WINDOWS, customize=[{"type": "PowerShell", "name": "x", "inline": ["throw"]}]),
        windows(RESTART),
    ),
    ("AIB056", "warning", shell("rm /tmp/DeprovisioningScript.sh"), shell("cat /tmp/DeprovisioningScript.sh")),
    (
        "AIB056", "warning", shell("echo true > /tmp/DeprovisioningScript.sh"),
        shell(DEPROVISION),
    ),
    ("AIB056", "warning", shell("sudo rm -rf /tmp/*"), shell("sudo rm -rf /tmp/build")),
    ("AIB057", "error", shell("sudo apt-get purge -y walinuxagent"), shell("sudo apt-get install -y walinuxagent")),
    ("AIB058", "error", template(distribute=[]), template()),
    ("AIB058", "error", template(distribute=[{"type": "VHD", "runOutputName": "a"}] * 2), template()),
    ("AIB059", "error", gallery("2022-02-14", targetRegions=...), gallery(targetRegions=...)),
    ("AIB060", "error", gallery(replicationRegions=["eastus"]), gallery()),
    (
        "AIB060", "error", gallery(storageAccountType="Standard_LRS"),
        gallery(targetRegions=..., replicationRegions=["eastus"], storageAccountType="Standard_LRS"),
    ),
    ("AIB061", "info", gallery(targetRegions=..., replicationRegions=["eastus"]), gallery()),
    ("AIB062", "error", gallery(galleryImageId=GALLERY_IMAGE + "/versions/1.2.x"), gallery()),
    (
        "AIB062", "error", gallery(galleryImageId=GALLERY_IMAGE + "/versions/1.2.2147483648"),
        gallery(galleryImageId=GALLERY_IMAGE + "/versions/1.2.2147483647"),
    ),
    ("AIB062", "warning", gallery(galleryImageId=GALLERY_IMAGE + "/versions/1.2.3"), gallery()),
    (
        "AIB063", "error", gallery(versioning={"scheme": "Latest", "major": -2}),
        gallery(versioning={"scheme": "Latest", "major": -1}),
    ),
    (
        "AIB063", "warning", gallery(galleryImageId=GALLERY_IMAGE + "/versions/1.2.3", versioning={"scheme": "Latest"}),
        gallery(versioning={"scheme": "Latest"}),
    ),
    ("AIB064", "error", vm(vmSize="Large"), vm(vmSize="Standard_D2s_v3")),
    (
        "AIB064", "error", vm(vmSize="Standard_D2_v2") | template(source=GEN2, vmProfile=D2),
        template(source=GEN2, vmProfile={"vmSize": "Standard_D2ds_v4"}),
    ),
    (
        "AIB065", "error", windows(RESTART, vmProfile={"osDiskSizeGB": 30}),
        windows(RESTART, vmProfile={"osDiskSizeGB": 127}),
    ),
    ("AIB065", "info", vm(osDiskSizeGB=29), vm(osDiskSizeGB=0)),
    ("AIB066", "error", vm(vnetConfig={"name": "v"}), vm(vnetConfig={"subnetId": f"{SUBNET}/a"})),
    (
        "AIB066", "error", vm(vnetConfig={"subnetId": f"{SUBNET}/a", "containerInstanceSubnetId": f"{SUBNET}/a"}),
        vm(vnetConfig={"subnetId": f"{SUBNET}/a", "containerInstanceSubnetId": f"{SUBNET}/b"}),
    ),
    ("AIB067", "error", template(stagingResourceGroup="rg"), template(stagingResourceGroup=GROUP)),
    (
        "AIB067", "error", {"resources": template(stagingResourceGroup=GROUP)["resources"] * 2},
        {"resources": [bare(stagingResourceGroup=GROUP), bare(stagingResourceGroup=GROUP + "2")]},
    ),
    (
        "AIB068", "error", template(errorHandling={"onCustomizerError": "Abort"}),
        template(errorHandling={"onCustomizerError": "abort"}),
    ),
    (
        "AIB069", "warning", template(validate={"sourceValidationOnly": True}),
        template(validate={"sourceValidationOnly": False}),
    ),
    (
        "AIB070", "info", template(optimize={"vmBoot": {"state": "Enabled"}}),
        template(optimize={"vmBoot": {"state": "Disabled"}}),
    ),
    ("AIB071", "error", template(_tags={"a": 1}), template(_tags={"a": "1"})),
    ("AIB072", "error", template(_location=...), template()),
]  # fmt: skip


def found(data: Any, *, path: Path | None = None) -> set[tuple[str, str]]:
    text = data if isinstance(data, str) else json.dumps(data)
    result = inspect_templates(path, text, files=FileChecks())
    return {(d.rule, str(d.severity)) for d in result.diagnostics}


@pytest.mark.parametrize(
    ("rule", "severity", "fires", "stays_quiet"), CASES, ids=[f"{c[0]}-{c[1]}-{i}" for i, c in enumerate(CASES)]
)
def test_the_rule_fires_and_stays_quiet(rule: str, severity: str, fires: Any, stays_quiet: Any) -> None:
    assert (rule, severity) in found(fires)
    assert (rule, severity) not in found(stays_quiet)


def test_the_clean_template_is_clean() -> None:
    for version in (NEW, STRICT):
        assert found(template(version)) == set()
    assert found(windows()) == set()


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("missing.sh", "AIB039"),
        ("wrong.sh", "AIB034"),
        ("bare.sh", "AIB048"),
        ("crlf.sh", "AIB048"),
        ("large.bin", "AIB040"),
    ],
)
def test_local_files_are_looked_at(tmp_path: Path, name: str, rule: str) -> None:
    good = b"#!/bin/sh -e\ntrue\n"
    for file_name, data in {
        "good.sh": good, "wrong.sh": good + b"#", "bare.sh": b"true\n", "crlf.sh": good.replace(b"\n", b"\r\n"),
    }.items():  # fmt: skip
        (tmp_path / file_name).write_bytes(data)
    with (tmp_path / "large.bin").open("wb") as large:
        large.truncate(20 * 1024 * 1024)

    def step(file_name: str) -> dict[str, Any]:
        sums = {"sha256Checksum": hashlib.sha256(good).hexdigest()} if file_name in ("good.sh", "wrong.sh") else {}
        if file_name == "large.bin":
            return {"type": "File", "sourceUri": file_name, "destination": "/tmp/large.bin"}
        return {"type": "Shell", "scriptUri": file_name, **sums}

    assert rule in {r for r, _ in found(linux(step(name)), path=tmp_path / "t.json")}
    quiet = {r for r, _ in found(linux(step("good.sh")), path=tmp_path / "t.json")}
    assert quiet == {"AIB037"}  # a local path, said as a note


def test_a_checksum_of_other_line_ends_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "x.sh").write_bytes(b"#!/bin/sh\r\ntrue\r\n")
    wanted = hashlib.sha256(b"#!/bin/sh\ntrue\n").hexdigest()
    data = json.dumps(linux({"type": "Shell", "scriptUri": "x.sh", "sha256Checksum": wanted}))
    result = inspect_templates(tmp_path / "t.json", data, files=FileChecks(shell=None))
    told = next(d for d in result.diagnostics if d.rule == "AIB034")
    assert "CRLF" in told.hint
    assert wanted in told.message


def test_every_rule_is_documented_and_tested() -> None:
    documented = set(catalogue())
    assert documented == {f"AIB{n:03d}" for n in range(1, 73)}
    by_files = {"AIB034", "AIB039", "AIB040"}
    assert {case[0] for case in CASES} | by_files == documented
    for doc in catalogue().values():
        assert doc.title and doc.why and doc.fix and doc.source
        assert doc.fidelity in ("documented", "reported", "inferred", "ours")
        assert doc.severity in Severity


def test_secrets_are_not_repeated() -> None:
    data = copy.deepcopy(shell("mysql --password=hunter22 x"))
    result = inspect_templates(None, json.dumps(data))
    assert all("hunter22" not in d.message + d.hint for d in result.diagnostics)


def test_here_documents_comments_and_quotes_are_no_commands() -> None:
    lines = ["cat > /tmp/x <<'EOF'", "sudo reboot", "apt install x", "EOF", "# sudo reboot", "echo 'a; sudo reboot'"]
    assert found(shell(*lines)) == set()


def test_a_tag_silences_rules_of_its_resource() -> None:
    noisy = template(source={**LINUX, "version": "latest"}, _tags={"aib-ignore": "AIB023, AIB046"})
    assert found(noisy) == set()
    wrong = template(_type="Microsoft.VirtualMachineImages", _tags={"aib-ignore": "AIB005"})
    assert ("AIB005", "error") in found(wrong)
