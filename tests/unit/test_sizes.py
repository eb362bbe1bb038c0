"""vmSize: the table, the naming rules, and what a small host gives."""

from __future__ import annotations

import pytest

from hypervisor.errors import HostError, TemplateError
from orchestrator.plan import sizes
from orchestrator.plan.sizes import HostCapacity

BIG = HostCapacity(256, 8 << 20)


@pytest.mark.parametrize(
    ("name", "vcpus", "memory", "generations"),
    [
        ("Standard_D1_v2", 1, 3584, "V1"),
        ("Standard_D2ds_v4", 2, 8192, "V1 V2"),
        ("Standard_D2s_v3", 2, 8192, "V1 V2"),
        ("Standard_D4_v3", 4, 16384, "V1"),
        ("Standard_D8as_v5", 8, 32768, "V1 V2"),
        ("Standard_D2s_v6", 2, 8192, "V2"),
        ("Standard_D4ls_v5", 4, 8192, "V1 V2"),
        ("Standard_DS2_v2", 2, 7168, "V1 V2"),
        ("Standard_D15_v2", 20, 143360, "V1"),
        ("Standard_B2ms", 2, 8192, "V1 V2"),
        ("Standard_B8ms", 8, 32768, "V1 V2"),
        ("Standard_B2ats_v2", 2, 1024, "V1 V2"),
        ("Standard_E2s_v3", 2, 16384, "V1 V2"),
        ("Standard_E64s_v3", 64, 442368, "V1 V2"),
        ("Standard_E4-2ds_v4", 2, 32768, "V1 V2"),
        ("Standard_F2s_v2", 2, 4096, "V1 V2"),
        ("Standard_F4s", 4, 8192, "V1 V2"),
        ("Standard_F4as_v6", 4, 16384, "V2"),
        ("Standard_F4ams_v6", 4, 32768, "V2"),
        ("Standard_E8bds_v5", 8, 65536, "V1 V2"),
        ("Standard_A2_v2", 2, 4096, "V1"),
        ("Standard_L8s_v3", 8, 65536, "V1 V2"),
        ("Standard_NC6s_v3", 6, 114688, "V1 V2"),
        ("Standard_D4p_v5", None, None, None),
        ("Standard_D3s_v3", None, None, None),
        ("Standard_D2s_v9", None, None, None),
        ("Standard_D2ss_v3", None, None, None),
        ("D2s_v3", None, None, None),
    ],
)
def test_sizes(name, vcpus, memory, generations) -> None:
    if vcpus is None:
        with pytest.raises(TemplateError):
            sizes.find(name)
        return
    size = sizes.find(name)
    assert (size.name, size.vcpus, size.memory_mib) == (name, vcpus, memory)
    assert size.generations == set(generations.split())


@pytest.mark.parametrize("name", ["standard_d2S_V3", "STANDARD_D1_V2", "standard_ds2_v2"])
def test_look_up_ignores_case(name) -> None:
    assert sizes.find(name).name.lower() == name.lower()
    assert sizes.find(name).name.startswith("Standard_")


@pytest.mark.parametrize(
    ("name", "near"),
    [("Standard_D2_s_v3", "Standard_D2s_v3"), ("Standad_D1_v2", "Standard_D1_v2"), ("Standard_B2sm", "Standard_B2ms")],
)
def test_unknown_names_get_near_ones(name, near) -> None:
    with pytest.raises(TemplateError) as caught:
        sizes.find(name)
    assert caught.value.exit_code == 2
    assert near in caught.value.hint


def test_every_name_of_the_table_has_its_row_and_every_proposed_one_exists() -> None:
    assert all(size.vcpus >= 1 and size.memory_mib >= 512 and size.generations for size in sizes._table().values())
    assert [
        name for name in sizes._common_names() if sizes._table().get(name.lower()) is None and not sizes.find(name)
    ] == []


def test_a_big_host_gives_all() -> None:
    granted = sizes.grant(sizes.find("Standard_D4s_v3"), BIG, strict=True)
    assert (granted.vcpus, granted.memory_mib, granted.warnings) == (4, 16384, ())


def test_a_small_host_gives_what_it_has_less_a_reserve() -> None:
    granted = sizes.grant(sizes.find("Standard_D4s_v3"), HostCapacity(2, 8192), strict=False)
    assert (granted.vcpus, granted.memory_mib) == (2, 8192 - sizes.RESERVE_MIB)
    assert "2 of 4 vCPUs and 7168 of 16384 MiB" in granted.warnings[0]


def test_strict_refuses_less() -> None:
    with pytest.raises(HostError, match="2 of 4 vCPUs") as caught:
        sizes.grant(sizes.find("Standard_D4s_v3"), HostCapacity(2, 65536), strict=True)
    assert caught.value.exit_code == 3


def test_the_smallest_host_still_gives_something() -> None:
    granted = sizes.grant(sizes.find("Standard_D1_v2"), HostCapacity(1, 700), strict=False)
    assert (granted.vcpus, granted.memory_mib) == (1, sizes.FLOOR_MIB)


def test_gpus_warn_or_are_refused() -> None:
    size = sizes.find("Standard_NV6")
    assert "no GPU" in sizes.grant(size, BIG, strict=False).warnings[-1]
    with pytest.raises(HostError, match="none of 1 GPU"):
        sizes.grant(size, BIG, strict=True)


def test_defaults_boot_their_generation() -> None:
    assert sizes.default_size("V1") == "Standard_D1_v2"
    assert "V2" in sizes.find(sizes.default_size("V2")).generations


def test_this_host_is_measured() -> None:
    host = HostCapacity.measured()
    assert host.cpus >= 1
    assert host.memory_mib >= 256
