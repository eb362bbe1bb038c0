"""Resource ids: parsed, formatted, compared as ARM does."""

from __future__ import annotations

import subprocess
import sys

import pytest

from orchestrator.record import arm_ids
from orchestrator.record.arm_ids import InvalidResourceId

COMPUTE = "/subscriptions/11111111-2222-3333-4444-555555555555/resourceGroups/My-RG/providers/Microsoft.Compute"
DEFINITION = f"{COMPUTE}/galleries/my.Gallery/images/my-def"


def test_parse_and_format_are_inverse() -> None:
    parsed = arm_ids.parse(f"{DEFINITION}/versions/1.2.3")
    assert str(parsed) == f"{DEFINITION}/versions/1.2.3"
    assert (parsed.type, parsed.name) == (arm_ids.IMAGE_VERSION, "1.2.3")
    assert str(parsed.parent) == DEFINITION
    assert str(parsed.parent.child("versions", "1.2.3")) == str(parsed)
    assert parsed.scope.resource_group == "My-RG"


def test_types_are_recognised_in_any_case_and_spelled_canonically() -> None:
    found = arm_ids.parse_managed_image("/SUBSCRIPTIONS/s/resourcegroups/rg/Providers/microsoft.compute/IMAGES/One")
    assert str(found) == "/subscriptions/s/resourceGroups/rg/providers/Microsoft.Compute/images/One"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "<imageId>",
        COMPUTE,
        f"{COMPUTE}/images",
        f"{COMPUTE}/images/",
        f"{COMPUTE}/images/a/",
        f"{COMPUTE}/images/a//",
        f"{COMPUTE}/images/<name>",
        f"{COMPUTE}/images/..",
        f"{COMPUTE}/images/a\n",
        f"{COMPUTE}/images/{'a' * 81}",
        f"{COMPUTE}/disks/a",
        f"{DEFINITION}",
        f"{COMPUTE}/images/a".lstrip("/"),
    ],
)
def test_not_a_managed_image(text: str) -> None:
    with pytest.raises(InvalidResourceId):
        arm_ids.parse_managed_image(text)


def test_the_error_shows_the_shape() -> None:
    with pytest.raises(InvalidResourceId, match=r"is the id of a Microsoft\.Compute/disks.*/images/<image>"):
        arm_ids.parse_managed_image(f"{COMPUTE}/disks/a")


def test_gallery_targets() -> None:
    assert arm_ids.parse_gallery_target(DEFINITION) == (arm_ids.parse(DEFINITION), "")
    assert arm_ids.parse_gallery_target(f"{DEFINITION}/versions/1.0.2147483647") == (
        arm_ids.parse(DEFINITION),
        "1.0.2147483647",
    )


@pytest.mark.parametrize(
    "version", ["latest", "1.0", "1.0.2147483648", "-1.0.0", "1.0.0.0", "01.0.0", "a.b.c", "1.0.٣"]
)
def test_bad_explicit_versions(version: str) -> None:
    with pytest.raises(InvalidResourceId):
        arm_ids.parse_gallery_target(f"{DEFINITION}/versions/{version}")


@pytest.mark.parametrize("gallery", ["my-gallery", ".g", "g.", "ü"])
def test_bad_gallery_names(gallery: str) -> None:
    with pytest.raises(InvalidResourceId):
        arm_ids.parse_gallery(f"{COMPUTE}/galleries/{gallery}")


def test_a_source_version_may_be_latest() -> None:
    assert arm_ids.parse_image_version(f"{DEFINITION}/versions/Latest").name == "Latest"
    with pytest.raises(InvalidResourceId):
        arm_ids.parse_image_version(f"{DEFINITION}/versions/newest")


def test_formatting_in_the_default_scope() -> None:
    template = arm_ids.template_id("hello")
    assert template == (
        "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/aib"
        "/providers/Microsoft.VirtualMachineImages/imageTemplates/hello"
    )
    assert arm_ids.parse(arm_ids.run_output_id(template, "out")).type == arm_ids.RUN_OUTPUT
    assert arm_ids.parse(arm_ids.image_version_id("g", "d", "1.2.3")).type == arm_ids.IMAGE_VERSION
    assert arm_ids.parse(arm_ids.managed_image_id("i")).type == arm_ids.MANAGED_IMAGE


def test_comparison_ignores_case() -> None:
    assert arm_ids.same(DEFINITION, DEFINITION.upper())
    assert not arm_ids.same(DEFINITION, f"{DEFINITION}2")


def test_regions_are_normalised() -> None:
    assert arm_ids.region("West US 2") == arm_ids.region("westus2") == "westus2"


def test_it_needs_the_standard_library_alone() -> None:
    code = (
        "import sys; import orchestrator.record.arm_ids; "
        "print(*{m.split('.')[0] for m in sys.modules} - set(sys.stdlib_module_names))"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert {name for name in found if not name.startswith("_")} <= {"orchestrator"}
