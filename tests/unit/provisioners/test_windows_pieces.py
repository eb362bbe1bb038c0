"""What the Windows provisioners make of names, variables and codes, without a guest."""

from __future__ import annotations

import pytest

from provisioners.windows_generalize import SYSPREP, default_windows_script
from provisioners.windows_powershell import environment_script
from provisioners.windows_task import normalised


def test_variables_are_escaped_as_packer_does():
    assert environment_script({"B": "1", "A": "a$b\"c`d'e"}) == b'$env:A="a`$b`"c``d`\'e"; $env:B="1"; '


def test_the_hresult_of_a_task_is_its_code():
    assert [normalised(code) for code in (0, 1, 0x80070005, 0x80070065, 0xC0000005)] == [0, 1, 5, 101, 0xC0000005]


@pytest.mark.parametrize("version", ["2019-05-01-preview", "2020-02-14", "2024-02-01"])
def test_the_default_text_holds_what_templates_replace(version):
    assert default_windows_script(version).count(SYSPREP) == 1


def test_the_default_text_is_that_of_its_time():
    assert "\\\\windows\\\\system32" in default_windows_script("2019-05-01-preview")
    assert "Panther\\unattend.xml" in default_windows_script("2020-02-14")
