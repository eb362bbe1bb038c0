"""From text to typed templates, and what is said about bad ones."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.template.diagnostics import InvalidTemplate, Severity
from orchestrator.template.load import inspect_templates, load_template, load_templates
from orchestrator.template.model import (
    File,
    ManagedImage,
    ManagedImageTarget,
    PlatformImage,
    PowerShell,
    Script,
    SharedImageTarget,
    SharedImageVersion,
    Shell,
    TargetRegion,
    Versioning,
    VhdTarget,
    VmProfile,
    VnetConfig,
    WindowsRestart,
    WindowsUpdate,
)  # fmt: skip

SUBSCRIPTION = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/rg"
IMAGE = f"{SUBSCRIPTION}/providers/Microsoft.Compute/images/base"
GALLERY_IMAGE = f"{SUBSCRIPTION}/providers/Microsoft.Compute/galleries/g/images/d"
IDENTITY = f"{SUBSCRIPTION}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/builder"
SUBNET = f"{SUBSCRIPTION}/providers/Microsoft.Network/virtualNetworks/v/subnets"
SHA = "0123456789abcdef" * 4

BASE: dict[str, Any] = {
    "type": "Microsoft.VirtualMachineImages/imageTemplates",
    "apiVersion": "2019-05-01-preview",
    "location": "westus2",
    "properties": {
        "source": {"type": "PlatformImage", "publisher": "P", "offer": "o", "sku": "s", "version": "latest"},
        "customize": [{"type": "Shell", "name": "one", "inline": ["true"]}],
        "distribute": [{"type": "VHD", "runOutputName": "out"}],
    },
}
MODERN = {**BASE, "apiVersion": "2024-02-01"}
MODERN["identity"] = {"type": "UserAssigned", "userAssignedIdentities": {IDENTITY: {}}}


def changed(base: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of `base` with the value at the slash-separated `path` replaced; `...` removes it."""
    data = copy.deepcopy(base)
    *parents, last = [int(p) if p.isdigit() else p for p in path.split("/")]
    at: Any = data
    for part in parents:
        at = at[part] if isinstance(at, list) else at.setdefault(part, {})
    if value is ...:
        del at[last]
    elif isinstance(at, list) and last == len(at):
        at.append(value)
    else:
        at[last] = value
    return data


def found(data: Any, **more: Any) -> set[tuple[str, str, str]]:
    result = inspect_templates(None, json.dumps(data), **more)
    return {(d.rule, str(d.severity), d.pointer) for d in result.diagnostics}


def errors(data: Any, **more: Any) -> set[tuple[str, str]]:
    return {(rule, pointer) for rule, severity, pointer in found(data, **more) if severity == "error"}


def loaded(data: Any) -> Any:
    return load_template(None, json.dumps(data), name="t")[0]


def test_the_smallest_template_has_the_defaults_of_the_service() -> None:
    template = loaded(changed(BASE, "properties/customize", ...))
    assert template.name == "t"
    assert template.customize == ()
    assert template.build_timeout_minutes == 240
    assert template.vm_profile == VmProfile()
    assert template.source == PlatformImage("P", "o", "s", "latest")
    assert template.distribute == (VhdTarget("out", pointer="/properties/distribute/0"),)
    assert (template.error_handling.on_customizer_error, template.validate) == ("cleanup", None)
    assert template.api_version == "2019-05-01-preview"


def test_every_customizer_is_typed_with_its_defaults_in_order() -> None:
    customize = [
        {"type": "PowerShell", "name": "p", "inline": ["a", "b"], "runElevated": True, "validExitCodes": [0, 3010]},
        {"type": "File", "name": "f", "sourceUri": "https://x/y", "destination": "/tmp/y", "sha256Checksum": SHA},
        {"type": "WindowsRestart"},
        {"type": "WindowsRestart", "restartCommand": "c", "restartCheckCommand": "k", "restartTimeout": "2h"},
        {"type": "WindowsUpdate", "searchCriteria": "IsInstalled=0", "filters": ["include:$true"], "updateLimit": 20},
        {"type": "WindowsUpdate", "updateLimit": 0},
    ]
    at = "/properties/customize/"
    assert loaded(changed(BASE, "properties/customize", customize)).customize == (
        PowerShell("p", Script(inline=("a", "b")), run_elevated=True, valid_exit_codes=(0, 3010), pointer=f"{at}0"),
        File("f", "https://x/y", "/tmp/y", SHA, f"{at}1"),
        WindowsRestart("WindowsRestart 3", pointer=f"{at}2"),
        WindowsRestart("WindowsRestart 4", "c", "k", 7200.0, f"{at}3"),
        WindowsUpdate("WindowsUpdate 5", "IsInstalled=0", ("include:$true",), 20, f"{at}4"),
        WindowsUpdate("WindowsUpdate 6", update_limit=1000, pointer=f"{at}5"),
    )


def test_a_shell_script_by_uri_and_its_checksum_in_lower_case() -> None:
    step = {"type": "Shell", "name": "s", "scriptUri": "https://x/y.sh", "sha256Checksum": SHA.upper()}
    template = loaded(changed(BASE, "properties/customize/0", step))
    assert template.customize == (Shell("s", Script(uri="https://x/y.sh", sha256=SHA), "/properties/customize/0"),)


@pytest.mark.parametrize(
    ("source", "typed"),
    [
        ({"type": "ManagedImage", "imageId": IMAGE}, ManagedImage(IMAGE)),
        (
            {"type": "SharedImageVersion", "imageVersionId": f"{GALLERY_IMAGE}/versions/1.2.3"},
            SharedImageVersion(f"{GALLERY_IMAGE}/versions/1.2.3"),
        ),
        (
            {"type": "SharedImageVersion", "imageVersionID": f"{GALLERY_IMAGE}/versions/latest"},
            SharedImageVersion(f"{GALLERY_IMAGE}/versions/latest"),
        ),
    ],
)
def test_sources(source: dict[str, str], typed: object) -> None:
    assert loaded(changed(BASE, "properties/source", source)).source == typed


def test_every_distributor_is_typed() -> None:
    tags = {"a": "b"}
    distribute = [
        {"type": "ManagedImage", "runOutputName": "m", "imageId": IMAGE, "location": "eastus", "artifactTags": tags},
        {
            "type": "SharedImage", "runOutputName": "s", "galleryImageId": GALLERY_IMAGE, "excludeFromLatest": True,
            "targetRegions": [
                {"name": "eastus", "replicaCount": 2, "storageAccountType": "Premium_LRS"}, {"name": "w"},
            ],
            "versioning": {"scheme": "Latest", "major": 2}, "artifactTags": tags,
        },
        {"type": "SharedImage", "runOutputName": "o", "galleryImageId": GALLERY_IMAGE, "replicationRegions": ["x"]},
        {"type": "VHD", "runOutputName": "v", "uri": "https://a.blob.core.windows.net/c/b.vhd", "artifactTags": tags},
    ]  # fmt: skip
    at = "/properties/distribute/"
    template = loaded(changed(MODERN, "properties/distribute", distribute))
    assert template.distribute == (
        ManagedImageTarget("m", IMAGE, "eastus", tags, f"{at}0"),
        SharedImageTarget(
            "s", GALLERY_IMAGE, (TargetRegion("eastus", 2, "Premium_LRS"), TargetRegion("w")), True,
            Versioning("Latest", 2), "", tags, f"{at}1",
        ),
        SharedImageTarget("o", GALLERY_IMAGE, (TargetRegion("x"),), pointer=f"{at}2"),
        VhdTarget("v", "https://a.blob.core.windows.net/c/b.vhd", tags, f"{at}3"),
    )  # fmt: skip
    assert [pointer for pointer, _ in template.not_emulated] == [f"{at}1/targetRegions"]


def test_the_rest_of_the_properties() -> None:
    data = changed(MODERN, "properties/vmProfile", {
        "vmSize": "Standard_D2_v2", "osDiskSizeGB": 40, "userAssignedIdentities": [IDENTITY],
        "vnetConfig": {"subnetId": f"{SUBNET}/a", "proxyVmSize": "Standard_A1_v2"},
    })  # fmt: skip
    data = changed(data, "properties/errorHandling", {"onCustomizerError": "abort"})
    data = changed(data, "properties/validate", {
        "inVMValidations": [{"type": "Shell", "inline": ["true"]}], "continueDistributeOnFailure": True,
    })  # fmt: skip
    data = changed(data, "properties/buildTimeoutInMinutes", 0)
    data = changed(data, "tags", {"k": "v"})
    template = loaded(data)
    assert template.vm_profile == VmProfile(
        "Standard_D2_v2", 40, VnetConfig(subnet_id=f"{SUBNET}/a", proxy_vm_size="Standard_A1_v2"), (IDENTITY,)
    )
    assert template.error_handling.on_customizer_error == "abort"
    assert template.validate.continue_distribute_on_failure
    assert template.validate.in_vm_validations[0].name == "Shell validation 1"
    assert template.identities == (IDENTITY,)
    assert template.tags == {"k": "v"}
    assert {pointer for pointer, _ in template.not_emulated} == {
        "/properties/vmProfile/vnetConfig/proxyVmSize", "/properties/vmProfile/userAssignedIdentities",
    }  # fmt: skip


def test_legacy_vnet_names_belong_to_the_first_previews() -> None:
    legacy = {"name": "v", "subnetName": "s", "resourceGroupName": "g"}
    data = changed(BASE, "properties/vmProfile", {"vnetConfig": legacy})
    assert loaded(data).vm_profile.vnet_config == VnetConfig("v", "s", "g")
    modern = changed(MODERN, "properties/vmProfile", {"vnetConfig": legacy})
    assert ("AIB066", "/properties/vmProfile/vnetConfig/name") in errors(modern)


def test_vhd_tags_of_the_first_document_become_artifact_tags() -> None:
    data = changed(BASE, "properties/distribute/0/tags", {"a": "b"})
    template, diagnostics = load_template(None, json.dumps(data))
    assert template.distribute[0].artifact_tags == {"a": "b"}
    assert [d.rule for d in diagnostics if d.severity is Severity.WARNING] == ["AIB008"]
    assert ("AIB008", "/properties/distribute/0/tags") in errors(changed(MODERN, "properties/distribute/0/tags", {}))


P = "properties/"
AT = "/properties/"


@pytest.mark.parametrize(
    ("path", "value", "rule", "pointer"),
    [
        ("type", "Microsoft.VirtualMachineImages", "AIB005", "/type"),
        ("location", ..., "AIB072", ""),
        ("location", 5, "AIB071", "/location"),
        ("tags", {"a": 1}, "AIB071", "/tags/a"),
        ("tags", ["a"], "AIB071", "/tags"),
        ("identity/userAssignedIdentities", {IDENTITY: {}, IDENTITY + "2": {}}, "AIB012", None),
        ("identity/userAssignedIdentities", {"me": {}}, "AIB012", "/identity/userAssignedIdentities/me"),
        ("identity/type", "SystemAssigned", "AIB012", "/identity/type"),
        ("name", "white space", "AIB015", "/name"),
        (P + "buildTimeoutInMinutes", "30", "AIB016", AT + "buildTimeoutInMinutes"),
        (P + "buildTimeoutInMinutes", 961, "AIB016", AT + "buildTimeoutInMinutes"),
        (P + "buildTimeoutInMinutes", -1, "AIB016", AT + "buildTimeoutInMinutes"),
        (P + "buildTimeoutInMinutes", True, "AIB016", AT + "buildTimeoutInMinutes"),
        (P + "source", ..., "AIB020", "/properties"),
        (P + "source", {}, "AIB020", AT + "source"),
        (P + "source/sku", ..., "AIB020", AT + "source"),
        (P + "source/sku", "", "AIB020", AT + "source/sku"),
        (P + "source", {"type": "ManagedImage"}, "AIB020", AT + "source"),
        (P + "source/type", "platformImage", "AIB010", AT + "source/type"),
        (P + "source", {"type": "ManagedImage", "imageId": "base"}, "AIB022", AT + "source/imageId"),
        (P + "source", {"type": "SharedImageVersion", "imageVersionId": GALLERY_IMAGE}, "AIB022", None),
        (P + "source", {"type": "ISO", "sourceUri": "https://x", "sha256Checksum": SHA}, "AIB021", AT + "source/type"),
        (P + "customize", {}, "AIB071", AT + "customize"),
        (P + "customize/0/type", "Bash", "AIB010", AT + "customize/0/type"),
        (P + "customize/0/type", ..., "AIB010", AT + "customize/0"),
        (P + "customize/0", "echo", "AIB071", AT + "customize/0"),
        (P + "customize/1", {"type": "Shell", "name": "one", "inline": ["x"]}, "AIB032", AT + "customize/1/name"),
        (P + "customize/0/inline", "echo hi", "AIB029", AT + "customize/0/inline"),
        (P + "customize/0/inline", [1], "AIB029", AT + "customize/0/inline/0"),
        (P + "customize/0/inline", ..., "AIB028", AT + "customize/0"),
        (P + "customize/0/inline", [], "AIB028", AT + "customize/0"),
        (P + "customize/0/scriptUri", "https://x/y", "AIB028", AT + "customize/0/scriptUri"),
        (P + "customize/0/sha256Checksum", "abc", "AIB033", AT + "customize/0/sha256Checksum"),
        (P + "customize/0", {"type": "File", "sourceUri": "https://x"}, "AIB072", AT + "customize/0"),
        (P + "customize/0", {"type": "WindowsRestart", "restartTimeout": "5"}, "AIB053", None),
        (P + "customize/0", {"type": "WindowsUpdate", "updateLimit": "20"}, "AIB071", None),
        (P + "customize/0", {"type": "PowerShell", "inline": ["x"], "runElevated": "false"}, "AIB030", None),
        (P + "customize/0", {"type": "PowerShell", "inline": ["x"], "validExitCodes": "0"}, "AIB030", None),
        (P + "customize/0", {"type": "PowerShell", "inline": ["x"], "validExitCodes": ["0"]}, "AIB030", None),
        (P + "distribute", ..., "AIB058", "/properties"),
        (P + "distribute", [], "AIB058", AT + "distribute"),
        (P + "distribute/0/runOutputName", ..., "AIB058", AT + "distribute/0"),
        (P + "distribute/0/runOutputName", "a b", "AIB015", AT + "distribute/0/runOutputName"),
        (P + "distribute/1", {"type": "VHD", "runOutputName": "OUT"}, "AIB058", AT + "distribute/1/runOutputName"),
        (P + "distribute/0/type", "vhd", "AIB010", AT + "distribute/0/type"),
        (P + "distribute/0", {"type": "ManagedImage", "runOutputName": "a", "imageId": IMAGE}, "AIB059", None),
        (P + "distribute/0", {"type": "SharedImage", "runOutputName": "a"}, "AIB059", None),
        (P + "vmProfile", {"osDiskSizeGB": -1}, "AIB065", AT + "vmProfile/osDiskSizeGB"),
        (P + "vmProfile", {"osDiskSizeGB": "30"}, "AIB065", AT + "vmProfile/osDiskSizeGB"),
        (P + "vmProfile", [], "AIB071", AT + "vmProfile"),
        (P + "validate", {}, "AIB007", AT + "validate"),
    ],
)  # fmt: skip
def test_bad_values_get_their_rule_and_pointer(path: str, value: Any, rule: str, pointer: str | None) -> None:
    got = errors(changed(BASE, path, value))
    assert rule in {found_rule for found_rule, _ in got}
    if pointer is not None:
        assert (rule, pointer) in got


@pytest.mark.parametrize(
    ("path", "value", "rule"),
    [
        ("identity", ..., "AIB011"),
        (P + "errorHandling", {"onCustomizerError": "Abort"}, "AIB068"),
        (P + "optimize", {"vmBoot": {"state": "On"}}, "AIB068"),
        (P + "optimize", {"vmboot": {"state": "Enabled"}}, "AIB009"),
        (P + "stagingResourceGroup", "rg", "AIB067"),
        (P + "customise", [], "AIB008"),
        (P + "vmProfile", {"vnetConfig": {"containerInstanceSubnetId": f"{SUBNET}/a"}}, "AIB066"),
        (P + "vmProfile", {"additionalDataDisks": [{"sizeGB": 1}]}, "AIB007"),
        (P + "customize/0", {"type": "PowerShell", "inline": ["x"], "runAsSystem": True}, "AIB031"),
        (P + "distribute/0", {"type": "SharedImage", "runOutputName": "a", "galleryImageId": GALLERY_IMAGE,
                              "replicationRegions": ["a"], "targetRegions": [{"name": "a"}]}, "AIB060"),
        (P + "distribute/0", {"type": "SharedImage", "runOutputName": "a", "galleryImageId": GALLERY_IMAGE,
                              "targetRegions": [{"name": "a", "replicaCount": 0}]}, "AIB060"),
        (P + "distribute/0", {"type": "SharedImage", "runOutputName": "a",
                              "galleryImageId": GALLERY_IMAGE + "/versions/1.2"}, "AIB062"),
        (P + "distribute/0", {"type": "SharedImage", "runOutputName": "a", "galleryImageId": GALLERY_IMAGE,
                              "versioning": {"scheme": "Latest", "major": -2}}, "AIB063"),
    ],
)  # fmt: skip
def test_bad_values_of_the_strict_version(path: str, value: Any, rule: str) -> None:
    assert not errors(MODERN)
    assert rule in {found_rule for found_rule, _ in errors(changed(MODERN, path, value))}


def test_each_version_judges_names_in_its_own_way() -> None:
    data = changed(BASE, P + "customize/0/Name", "x")
    data = changed(data, P + "vmprofile", {"VMSize": "Standard_D1_v2"})
    old = {(rule, severity) for rule, severity, _ in found(data) if rule in ("AIB008", "AIB009")}
    assert old == {("AIB009", "warning")}
    assert loaded(changed(BASE, P + "vmprofile", {"VMSize": "Standard_D1_v2"})).vm_profile.vm_size
    strict = {(rule, severity) for rule, severity, _ in found(data, target_version="2024-02-01")}
    assert ("AIB009", "error") in strict


def test_a_duplicate_customizer_name_only_warns_later() -> None:
    data = changed(MODERN, P + "customize/1", {"type": "Shell", "name": "one", "inline": ["x"]})
    assert ("AIB032", "warning", AT + "customize/1/name") in found(data)


def test_a_wrongly_spelt_distributor_quotes_the_service_and_suggests() -> None:
    result = inspect_templates(None, json.dumps(changed(BASE, P + "distribute/0/type", "sharedImage")))
    told = next(d for d in result.diagnostics if d.rule == "AIB010")
    assert "Field 'distribute[0].type' has a bad value: ''." in told.message
    assert told.hint == "did you mean SharedImage?"


def test_the_retired_iso_names_both_dates() -> None:
    result = inspect_templates(None, json.dumps(changed(BASE, P + "source", {"type": "ISO"})))
    told = next(d for d in result.diagnostics if d.rule == "AIB021")
    assert "2020-03-31" in told.message
    assert "2020-04-30" in told.message


def test_everything_is_raised_at_once_in_file_order_with_exit_code_2() -> None:
    data = changed(BASE, P + "customize/0/inline", "x")
    data = changed(data, P + "source/sku", ...)
    data = changed(data, P + "distribute", [])
    with pytest.raises(InvalidTemplate) as caught:
        load_templates(None, json.dumps(data, indent=1))
    assert caught.value.exit_code == 2
    assert [d.rule for d in caught.value.diagnostics if d.severity is Severity.ERROR] == ["AIB020", "AIB029", "AIB058"]
    assert [d.position.line for d in caught.value.diagnostics] == sorted(
        d.position.line for d in caught.value.diagnostics
    )
    assert "AIB029" in caught.value.hint


def test_resources_are_found_at_any_depth_and_named() -> None:
    nested = {"type": "Microsoft.Resources/deployments", "name": "d", "properties": {"template": {
        "resources": [{**MODERN, "name": "inner"}]}}}  # fmt: skip
    deployment = {"resources": [{"type": "Microsoft.Network/virtualNetworks"}, {**MODERN, "name": "outer"}, nested]}
    result = load_templates(None, json.dumps(deployment))
    assert [template.name for template in result.templates] == ["outer", "inner"]
    assert load_template(None, json.dumps(deployment), name="inner")[0].name == "inner"
    with pytest.raises(InvalidTemplate):
        load_template(None, json.dumps(deployment))


@pytest.mark.parametrize("text", ["{}", "[]", "5", '{"resources": []}', '{"type": "Microsoft.Compute/images"}'])
def test_a_document_without_a_template_says_so(text: str) -> None:
    assert [d.rule for d in inspect_templates(None, text).diagnostics] == ["AIB005"]


def test_the_name_comes_from_the_resource_then_the_caller_then_the_file(tmp_path: Path) -> None:
    file = tmp_path / "my template (1).json"
    file.write_text(json.dumps(BASE))
    assert load_template(file)[0].name == "my-template-1"
    assert load_template(file, name="given")[0].name == "given"
    file.write_text(json.dumps({**BASE, "name": "own"}))
    assert load_template(file, name="given")[0].name == "own"


def test_settings_fill_placeholders_in_strings_keys_and_bare_places() -> None:
    text = json.dumps(changed(BASE, P + "buildTimeoutInMinutes", "@")).replace('"@"', "<minutes>")
    text = text.replace('"one"', '"<a> of <b>"').replace('"location"', '"tags": {"<a>": "x"}, "location"')
    template, _ = load_template(None, text, settings={"minutes": "30", "a": 'q"uo\\te', "b": "two"})
    assert template.build_timeout_minutes == 30
    assert template.customize[0].name == 'q"uo\\te of two'
    assert template.tags == {'q"uo\\te': "x"}
    open_ones = inspect_templates(None, text).diagnostics
    assert {(d.rule, d.severity) for d in open_ones if d.rule == "AIB003"} == {("AIB003", Severity.ERROR)}
    assert len([d for d in open_ones if d.rule == "AIB003"]) == 3


def test_angle_brackets_of_a_script_are_only_doubted() -> None:
    data = changed(BASE, P + "customize/0/inline", ["cat > /tmp/x.xml", "<Project>"])
    assert ("AIB003", "warning", AT + "customize/0/inline/1") in found(data)
    assert not errors(data)


def test_positions_lead_to_what_the_user_wrote() -> None:
    template, _ = load_template(None, json.dumps(BASE, indent=2))
    place = template.positions["/properties/customize/0/inline/0"]
    assert json.dumps(BASE, indent=2).splitlines()[place.line - 1][place.column - 1 :].startswith('"true"')
    assert template.raw == BASE


@pytest.mark.parametrize("field", ["identity", "tags", "dependsOn"])
def test_null_means_not_given(field: str) -> None:
    assert not errors({**BASE, field: None})
