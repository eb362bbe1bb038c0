"""Distributors against the galleries that exist: each violation is exit 2 with the command that mends it."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hypervisor.errors import TemplateError
from orchestrator.plan.model import ResolvedSource
from orchestrator.plan.versions import plan_distributions
from orchestrator.record import arm_ids
from orchestrator.record.store import Resource, Store
from orchestrator.template.model import (
    Distributor,
    ManagedImageTarget,
    PlatformImage,
    SharedImageTarget,
    TargetRegion,
    Template,
    Versioning,
    VhdTarget,
)
from orchestrator.verbs import gallery as verb

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
DEFINITION = arm_ids.image_definition_id("g", "d")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "home")
    verb.create(store, "g", location="West US 2")
    verb.define(store, "g", "d", os="linux", generation="V1")
    return store


def source(generation: str = "V1", os: str = "linux", version: str = "12.1.5") -> ResolvedSource:
    return ResolvedSource(
        "PlatformImage", "Debian:debian-12:12:latest", "/x", version, "0" * 64, Path("/x"), "qcow2", 1, os, generation
    )


def template(*targets: Distributor, name: str = "hello") -> Template:
    return Template(name, "2022-07-01", "westus2", PlatformImage("Debian", "debian-12", "12"), targets)


def shared(
    definition: str = DEFINITION, *regions: str, name: str = "out", versioning: Versioning | None = None
) -> SharedImageTarget:
    places = tuple(TargetRegion(region) for region in regions or ("westus2",))
    return SharedImageTarget(name, definition, places, versioning=versioning)


def refused(store: Store, *targets: Distributor, **options: object) -> TemplateError:
    with pytest.raises(TemplateError) as caught:
        plan_distributions(template(*targets), store, NOW, source(**options))
    assert caught.value.exit_code == 2
    return caught.value


def obey(store: Store, hint: str) -> None:
    """Run the command that the hint gives."""
    words = shlex.split(hint[hint.index("aib gallery") :])
    verb_name, arguments = words[2], words[3:]
    options = dict(zip(arguments[-4:][::2], arguments[-4:][1::2], strict=True)) if "--os" in words else {}
    if verb_name == "create":
        verb.create(store, arguments[0], location=arguments[2])
    elif verb_name == "define":
        verb.define(store, *arguments[:2], os=options["--os"], generation=options["--generation"])
    else:
        verb.delete_version(store, *arguments[:3])


def version(number: str, **properties: object) -> Resource:
    return Resource(f"{DEFINITION}/versions/{number}", arm_ids.IMAGE_VERSION, number, properties=properties)


def test_all_three_kinds(store: Store) -> None:
    managed = arm_ids.managed_image_id("m")
    planned = plan_distributions(
        template(shared(), ManagedImageTarget("m", managed, "westus2"), VhdTarget("v")), store, NOW, source()
    )
    assert [p.artifact_id for p in planned] == [DEFINITION, managed, (store.home / "vhds/hello/v.vhd").as_uri()]
    assert [p.version for p in planned] == ["", "", ""]


def test_an_explicit_version_is_known_before_the_run(store: Store) -> None:
    (planned,) = plan_distributions(template(shared(f"{DEFINITION}/versions/1.2.3")), store, NOW)
    assert (planned.version, planned.artifact_id) == ("1.2.3", f"{DEFINITION}/versions/1.2.3")


def test_region_names_are_normalised(store: Store) -> None:
    assert plan_distributions(template(shared(DEFINITION, "east us", "WEST US 2")), store, NOW, source())


def test_no_gallery_and_then_no_definition_are_mended_by_the_hints(store: Store) -> None:
    target = shared(arm_ids.image_definition_id("new", "def"), "East US")
    error = refused(store, target)
    assert "no gallery" in error.message
    obey(store, error.hint)
    error = refused(store, target, generation="V2")
    assert "no image definition" in error.message
    obey(store, error.hint)
    assert plan_distributions(template(target), store, NOW, source("V2"))


def test_the_hint_names_another_scope(store: Store) -> None:
    scope = arm_ids.Scope("11111111-2222-3333-4444-555555555555", "prod")
    error = refused(store, shared(arm_ids.image_definition_id("g", "d", scope)))
    assert f"--resource-group prod --subscription {scope.subscription}" in error.hint


def test_one_region_must_be_the_gallerys(store: Store) -> None:
    error = refused(store, shared(DEFINITION, "eastus", "North Europe"))
    assert "westus2" in error.message
    assert '"westus2"' in error.hint


@pytest.mark.parametrize(("os", "generation"), [("linux", "V2"), ("windows", "V1")])
def test_the_definition_must_fit_the_source(store: Store, os: str, generation: str) -> None:
    error = refused(store, shared(), os=os, generation=generation)
    assert f"--os {os} --generation {generation}" in error.hint


def test_a_taken_version_is_an_error_and_its_removal_mends_it(store: Store) -> None:
    store.put(version("1.2.3", provisioningState="Succeeded"))
    target = shared(f"{DEFINITION}/versions/1.2.3")
    error = refused(store, target)
    assert "exists already" in error.message
    obey(store, error.hint)
    assert plan_distributions(template(target), store, NOW, source())


def test_a_reservation_of_a_dead_run_is_not_taken(store: Store) -> None:
    run = store.new_run("hello")
    store.put(version("1.2.3", provisioningState="Creating", aib={"run": run.id}))
    target = shared(f"{DEFINITION}/versions/1.2.3")
    assert "exists already" in refused(store, target).message
    run.release()
    assert plan_distributions(template(target), store, NOW, source())


@pytest.mark.parametrize("number", ["1.2", "1.2.2147483648", "latest"])
def test_a_version_that_is_none(store: Store, number: str) -> None:
    assert "gallery version" in refused(store, shared(f"{DEFINITION}/versions/{number}")).message


def test_a_scheme_without_a_next_version_is_found_before_the_run(store: Store) -> None:
    assert "Source" in refused(store, shared(versioning=Versioning("Source")), version="").message
    store.put(version("1.0.2147483647", provisioningState="Succeeded"))
    assert "2147483647" in refused(store, shared(versioning=Versioning("Latest"))).message


def test_all_faults_are_told_at_once(store: Store) -> None:
    error = refused(
        store,
        shared(arm_ids.image_definition_id("missing", "d"), name="one"),
        ManagedImageTarget("two", "not-an-id", "westus2"),
        VhdTarget("three"),
        VhdTarget("four", "relative/path.vhd"),
    )
    assert all(name in error.message for name in ("3 distributors", "one:", "two:", "four:"))
    assert "aib gallery create missing" in error.message


def test_two_distributors_for_one_thing(store: Store) -> None:
    managed = arm_ids.managed_image_id("m")
    error = refused(
        store, ManagedImageTarget("a", managed, "westus2"), ManagedImageTarget("b", managed.upper(), "westus2")
    )
    assert "another distributor" in error.message
    plan_distributions(template(shared(name="a"), shared(name="b")), store, NOW, source())


def test_where_a_vhd_goes(store: Store, tmp_path: Path) -> None:
    def uri(text: str) -> str:
        return plan_distributions(template(VhdTarget("v", text)), store, NOW)[0].artifact_id

    assert uri(f"file://{tmp_path}/my%20disk.vhd") == f"file://{tmp_path}/my%20disk.vhd"
    assert uri(str(tmp_path / "x.vhd")) == (tmp_path / "x.vhd").as_uri()
    assert uri("https://account.blob.core.windows.net/c/x.vhd?sig=s") == (store.home / "vhds/hello/v.vhd").as_uri()
    for wrong in ("x.vhd", "file://server/x.vhd", str(tmp_path), "ftp://x/y"):
        with pytest.raises(TemplateError, match="uri"):
            uri(wrong)


def test_no_template_name_leads_out_of_the_store(store: Store) -> None:
    with pytest.raises(TemplateError):
        plan_distributions(template(VhdTarget("v"), name=".."), store, NOW)
