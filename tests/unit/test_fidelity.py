"""The table of emulated behaviours is complete: no run can report a deviation that `aib explain` does not know."""

from __future__ import annotations

import re
from pathlib import Path

from orchestrator import fidelity

ROOT = Path(__file__).parents[2]
RAISED = re.compile(r"""[dD]eviation\(\s*"([a-z0-9-]+)\"""")


def codes_in_the_code() -> dict[str, str]:
    return {
        code: path.name
        for package in ("orchestrator", "provisioners", "hypervisor")
        for path in (ROOT / package).rglob("*.py")
        for code in RAISED.findall(path.read_text())
    }


def test_every_deviation_is_in_the_table() -> None:
    found = codes_in_the_code()
    assert len(found) >= 8
    assert {code: file for code, file in found.items() if fidelity.behaviour(code) is None} == {}


def test_codes_are_unique_and_every_row_says_something() -> None:
    codes = [each.code for each in fidelity.BEHAVIOURS]
    assert len(set(codes)) == len(codes)
    assert all(each.text and each.source and not each.text.endswith(".") for each in fidelity.BEHAVIOURS)


def test_a_deviation_carries_its_detail() -> None:
    code, message = fidelity.deviation("vnet-ignored", "net/sub")
    assert code == "vnet-ignored"
    assert message.endswith("(net/sub)")
