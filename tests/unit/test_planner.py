"""Planning is pure: steps in the service's order, sizes, disks, networks, the digest chain, and JSON back and forth."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from hypervisor.errors import HostError, TemplateError
from orchestrator import fidelity
from orchestrator.plan import plan_json
from orchestrator.plan.model import Payload, PlannedDistribution, ResolvedSource
from orchestrator.plan.planner import GIB, PlanOptions, make_plan
from orchestrator.plan.sizes import HostCapacity
from orchestrator.template.diagnostics import InvalidTemplate, Position
from orchestrator.template.model import (
    ErrorHandling,
    File,
    ManagedImageTarget,
    PlatformImage,
    PowerShell,
    Script,
    SharedImageTarget,
    Shell,
    TargetRegion,
    Template,
    Validate,
    Versioning,
    VhdTarget,
    VmProfile,
    VnetConfig,
    WindowsRestart,
    WindowsUpdate,
)

DEFAULT = PlanOptions()
HOST = HostCapacity(8, 65536)
SOURCE = ResolvedSource(
    kind="PlatformImage",
    requested="Debian:debian-12:12:latest",
    resource_id="/aib/platformImages/Debian/debian-12/12/versions/1.0.0",
    version="1.0.0",
    digest="ab" * 32,
    path=Path("/layers/ab.qcow2"),
    format="qcow2",
    virtual_size=4 * GIB,
)
WINDOWS = replace(SOURCE, os="windows", requested="MicrosoftWindowsServer:WindowsServer:2022:latest")
MANAGED = ManagedImageTarget("out", "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/images/i", "eastus")
SCRIPT = Payload("https://host/a.sh", "cd" * 32, 10, Path("/fetched/cd"))
FETCHED = Payload("https://host/f", "ef" * 32, 20, Path("/fetched/ef"))


def inline(*lines: str, name: str = "") -> Shell:
    return Shell(name, Script(inline=lines))


def template(*customize, **given) -> Template:
    fields = {
        "name": "demo",
        "api_version": "2022-07-01",
        "location": "eastus",
        "source": PlatformImage("Debian", "debian-12", "12"),
        "distribute": (MANAGED,),
        "customize": customize,
    }
    return Template(**{**fields, **given})


def plan(of: Template, *, source=SOURCE, payloads=None, host=HOST, options=DEFAULT, distributions=None):
    if distributions is None:
        distributions = tuple(PlannedDistribution(target, "id") for target in of.distribute)
    return make_plan(of, source, payloads=payloads or {}, host=host, options=options, distributions=distributions)


def test_steps_come_in_the_services_order() -> None:
    of = template(
        Shell("by uri", Script(uri="a.sh")),
        inline("echo hi"),
        File("file", "f", "/tmp/f"),
        validate=Validate(in_vm_validations=(inline("true", name="check"),)),
    )
    made = plan(of, payloads={"/properties/customize/0": SCRIPT, "/properties/customize/2": FETCHED})
    assert [(s.index, s.phase, s.kind, s.name) for s in made.steps] == [
        (0, "Customizing", "Shell", "by uri"),
        (1, "Customizing", "Shell", "Shell 2"),
        (2, "Customizing", "File", "file"),
        (3, "Validating", "Shell", "check"),
        (4, "Generalizing", "Generalize", "generalize"),
    ]
    assert [s.payload for s in made.steps] == [SCRIPT, None, FETCHED, None, None]
    assert made.steps[0].settings == {"as_root": True}
    assert made.steps[1].settings == {"inline": ["echo hi"], "as_root": False}
    assert made.steps[2].settings == {"destination": "/tmp/f"}
    assert made.steps[4].settings["path"] == "/tmp/DeprovisioningScript.sh"


def test_the_script_user_is_a_switch_that_says_so() -> None:
    of = template(Shell("", Script(uri="a.sh")))
    made = plan(of, options=PlanOptions(script_user="login"))
    assert made.steps[0].settings == {"as_root": False}
    assert any(code == "script-user" and "login" in text for code, text in made.deviations)


def test_the_default_deprovision_script_is_the_api_versions() -> None:
    old = plan(template(api_version="2019-05-01-preview")).steps[-1].settings["script"]
    new = plan(template()).steps[-1].settings["script"]
    assert old.startswith("/usr/sbin/waagent -force -deprovision+user")
    assert new.startswith("WAAGENT=/usr/sbin/waagent;")


def test_source_validation_only_runs_the_validators_and_nothing_else() -> None:
    of = template(inline("echo hi"), validate=Validate((inline("true", name="check"),), source_validation_only=True))
    made = plan(of)
    assert [s.name for s in made.steps] == ["check"]
    assert made.distributions == ()
    assert made.source_validation_only


def test_windows_steps_on_linux_are_all_refused_with_their_places() -> None:
    of = template(
        WindowsRestart("restart"),
        inline("true"),
        WindowsUpdate("update"),
        positions={"/properties/customize/2": Position("t.json", 30, 9)},
    )
    with pytest.raises(InvalidTemplate) as caught:
        plan(of)
    assert caught.value.exit_code == 2
    assert [d.pointer for d in caught.value.diagnostics] == ["/properties/customize/0", "/properties/customize/2"]
    assert caught.value.diagnostics[1].position.line == 30


def test_windows_sources_can_be_planned_but_not_with_shell() -> None:
    steps = plan(template(PowerShell("p", Script(inline=("dir",))), WindowsRestart("r")), source=WINDOWS).steps
    assert steps[0].settings["valid_exit_codes"] == [0]
    assert steps[1].settings["restart_timeout"] == 300.0
    assert steps[2].settings["path"] == "c:\\DeprovisioningScript.ps1"
    with pytest.raises(InvalidTemplate):
        plan(template(inline("true")), source=WINDOWS)


def test_powershell_on_linux_is_allowed_and_named() -> None:
    made = plan(template(PowerShell("p", Script(inline=("dir",)))))
    assert "powershell-on-linux" in dict(made.deviations)


@pytest.mark.parametrize(("gigabytes", "expected"), [(0, 4 * GIB), (4, 4 * GIB), (30, 30 * GIB)])
def test_the_disk_grows_or_stays(gigabytes, expected) -> None:
    assert plan(template(vm_profile=VmProfile(os_disk_size_gb=gigabytes))).machine.os_disk_bytes == expected


def test_a_smaller_disk_is_refused_with_both_sizes() -> None:
    with pytest.raises(TemplateError, match="osDiskSizeGB is 3 ") as caught:
        plan(template(vm_profile=VmProfile(os_disk_size_gb=3)), source=replace(SOURCE, virtual_size=4 * GIB - 512))
    assert str(4 * GIB - 512) in caught.value.message
    assert "at least 4" in caught.value.hint


def test_default_sizes_follow_the_generation() -> None:
    first = plan(template()).machine
    second = plan(template(), source=replace(SOURCE, generation="V2")).machine
    assert (first.vm_size, first.firmware) == ("Standard_D1_v2", "bios")
    assert (second.vm_size, second.firmware) == ("Standard_D2ds_v4", "uefi")


def test_a_size_of_the_other_generation_is_refused() -> None:
    with pytest.raises(TemplateError, match=r"generation 1 \(BIOS\) images only"):
        plan(template(vm_profile=VmProfile("Standard_D1_v2")), source=replace(SOURCE, generation="V2"))


def test_a_clamped_size_is_recorded_as_asked_and_as_given() -> None:
    of = template(vm_profile=VmProfile("Standard_D8s_v3"))
    made = plan(of, host=HostCapacity(2, 4096))
    machine = made.machine
    assert (machine.asked_vcpus, machine.vcpus) == (8, 2)
    assert (machine.asked_memory_mib, machine.memory_mib) == (32768, 3072)
    assert "vm-size-clamped" in dict(made.deviations)
    assert len(made.warnings) == 1
    with pytest.raises(HostError):
        plan(of, host=HostCapacity(2, 4096), options=PlanOptions(strict_size=True))


SUBNET = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/virtualNetworks/Net/subnets/Sub"


@pytest.mark.parametrize("vnet", [VnetConfig("Net", "Sub", "g"), VnetConfig(subnet_id=SUBNET)])
@pytest.mark.parametrize("key", ["net/sub", "net"])
def test_vnets_map_to_libvirt_networks(vnet, key) -> None:
    of = template(vm_profile=VmProfile(vnet_config=vnet))
    assert plan(of, options=PlanOptions(networks={key: "lab"})).machine.network == "lab"
    assert plan(of, options=PlanOptions(networks={key: "lab"}, network="other")).machine.network == "other"
    unmapped = plan(of)
    assert unmapped.machine.network == "user"
    assert "vnet-ignored" in dict(unmapped.deviations)
    assert "vnet-ignored" not in dict(plan(template()).deviations)


@pytest.mark.parametrize(("minutes", "seconds", "warns"), [(0, 14400, 0), (240, 14400, 0), (5, 300, 1), (6, 360, 0)])
def test_the_budget(minutes, seconds, warns) -> None:
    made = plan(template(build_timeout_minutes=minutes))
    assert made.budget == seconds
    assert len(made.warnings) == warns


def test_error_handling_is_the_templates_unless_the_user_says_otherwise() -> None:
    of = template(error_handling=ErrorHandling("abort", "cleanup"))
    made = plan(of)
    assert (made.on_customizer_error, made.on_validation_error) == ("abort", "cleanup")
    forced = plan(of, options=PlanOptions(on_error="cleanup"))
    assert (forced.on_customizer_error, forced.on_validation_error) == ("cleanup", "cleanup")


def test_what_cannot_be_emulated_becomes_a_deviation() -> None:
    made = plan(template(not_emulated=(("/properties/autoRun", "a build starts when asked"),)))
    assert any(code == "not-emulated" and "/properties/autoRun" in text for code, text in made.deviations)
    assert all(fidelity.behaviour(code) for code, _ in made.deviations)


def digests_of(of: Template, **given) -> list[str]:
    return [step.digest for step in plan(of, **given).steps]


def test_a_change_changes_every_digest_after_it_and_none_before() -> None:
    first = digests_of(template(inline("a"), inline("b"), inline("c")))
    second = digests_of(template(inline("a"), inline("B"), inline("c")))
    assert [x == y for x, y in zip(first, second, strict=True)] == [True, False, False, False]
    assert len(set(first)) == 4


def test_names_and_addresses_change_no_digest() -> None:
    at = "/properties/customize/0"
    first = digests_of(template(Shell("one", Script(uri="x"))), payloads={at: SCRIPT})
    moved = replace(SCRIPT, uri="https://elsewhere/a.sh", path=Path("/other"))
    second = digests_of(template(Shell("two", Script(uri="y"))), payloads={at: moved})
    third = digests_of(template(Shell("two", Script(uri="y"))), payloads={at: replace(SCRIPT, sha256="00" * 32)})
    assert first == second
    assert first != third


@pytest.mark.parametrize(
    "given",
    [
        {"source": replace(SOURCE, digest="ff" * 32)},
        {"host": HostCapacity(8, 2048)},
        {"options": PlanOptions(network="lab")},
        {"source": replace(SOURCE, virtual_size=5 * GIB)},
    ],
)
def test_source_and_machine_begin_the_chain(given) -> None:
    of = template(inline("a"))
    assert digests_of(of)[0] != digests_of(of, **given)[0]


def test_a_plan_goes_to_json_and_back() -> None:
    of = template(
        Shell("by uri", Script(uri="a.sh")),
        validate=Validate((inline("true"),), continue_distribute_on_failure=True),
        distribute=(
            MANAGED,
            SharedImageTarget(
                "gallery",
                "/g",
                (TargetRegion("eastus", 2, "Standard_ZRS"),),
                exclude_from_latest=True,
                versioning=Versioning("Latest", 1),
                artifact_tags={"a": "b"},
            ),
            VhdTarget("vhd", pointer="/properties/distribute/2"),
        ),
        tags={"x": "y"},
    )
    made = plan(of, payloads={"/properties/customize/0": SCRIPT})
    text = json.dumps(plan_json.to_json(made))
    assert plan_json.from_json(json.loads(text)) == made


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data.pop("machine"),
        lambda data: data.update(surprise=1),
        lambda data: data["source"].update(format=7),
        lambda data: data["source"].update(generation="V3"),
        lambda data: data["machine"].update(vcpus=True),
        lambda data: data.update(steps={}),
        lambda data: data.update(version=2),
        lambda data: data["distributions"][0]["target"].update(type="Cloud"),
    ],
)
def test_a_damaged_plan_is_refused(spoil) -> None:
    data = plan_json.to_json(plan(template(inline("a"))))
    spoil(data)
    with pytest.raises(HostError, match=r"plan\.json"):
        plan_json.from_json(data)


def test_no_signature_gets_into_plan_json() -> None:
    sas = "https://acct.blob.core.windows.net/c/b?sv=2020&sig=SeCrEt%2B"
    of = template(inline(f"curl '{sas}'"), distribute=(VhdTarget("vhd", uri=sas),), tags={"from": sas})
    assert "SeCrEt" not in json.dumps(plan_json.to_json(plan(of)))
