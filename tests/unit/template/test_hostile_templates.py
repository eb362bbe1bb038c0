"""Whatever a template holds: diagnostics, no exception; and bounded work for huge or hostile ones."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.template import fixes
from orchestrator.template.arm.expression import ExpressionError, parse
from orchestrator.template.diagnostics import Severity
from orchestrator.template.load import Loaded, inspect_templates
from orchestrator.template.schema.tables import tables
from orchestrator.views import diagnostics_text

FIELDS = sorted(
    {name for fields in tables().objects.values() for name in fields}
    | {name for v in tables().variants.values() for t in v.types.values() for name in t.fields}
    | {"copy", "count", "input", "resources", "parameters", "variables", "defaultValue", "template", "functions"}
)
WORDS = [
    *sorted({name for v in tables().variants.values() for name in v.types}), *tables().versions,
    "Microsoft.VirtualMachineImages/imageTemplates", "Microsoft.Resources/deployments", "<x>",
    "[parameters('a')]", "[variables('b')]", "[copyIndex()]", "[reference('x').y]", "[concat('a', 1)]", "[[x]", "5m",
]  # fmt: skip
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(WORDS),
    st.text(max_size=12),
)  # fmt: skip
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=5), inner, max_size=6),
    max_leaves=25,
)  # fmt: skip
QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def checked(text: str) -> Loaded:
    """Loads, shows and fixes: nothing of it may raise."""
    result = inspect_templates(None, text)
    assert list(diagnostics_text.render(result.diagnostics, result.sources)) or not result.diagnostics
    json.dumps([diagnostics_text.to_json(item) for item in result.diagnostics]).encode()
    fixes.apply(text, fixes.fixable(result.diagnostics))
    return result


def resource(properties: Any, **more: Any) -> dict[str, Any]:
    return {"type": "Microsoft.VirtualMachineImages/imageTemplates", "properties": properties, **more}


@QUICK
@given(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=8))
def test_any_properties(properties: dict[str, Any]) -> None:
    checked(json.dumps(resource(properties, apiVersion="2023-07-01")))
    checked(json.dumps({"resources": [resource(properties, apiVersion="2024-02-01")]}))


@QUICK
@given(JSON, JSON, JSON)
def test_any_deployment(parameters: Any, variables: Any, inner: Any) -> None:
    checked(json.dumps({"parameters": parameters, "variables": variables, "resources": [resource(inner), inner]}))
    checked(json.dumps({"functions": parameters, "resources": inner}))


@QUICK
@given(st.text(alphabet=st.sampled_from("{}[]:,\"\\\n\r\t /*<>abn0-.eE\u00a0\ud800\ufeff\x00'"), max_size=60))
def test_any_text(text: str) -> None:
    checked(text)


@QUICK
@given(st.text(alphabet=st.sampled_from("abc()[]'.,?0 concatif"), max_size=40))
def test_any_expression(text: str) -> None:
    try:
        parse(f"[{text}]")
    except ExpressionError as error:
        assert 0 <= error.offset <= len(text) + 2
    checked(json.dumps({"resources": [resource({}, location=f"[{text}]")]}))


DOUBLING = {f"v{i}": f"[concat(variables('v{i + 1}'), variables('v{i + 1}'))]" for i in range(40)}
SMALL = {"type": "Shell", "name": "n", "inline": ["sudo apt-get install -y x && echo 'y' > /tmp/z"]}

# By way of a small process: the peak that the kernel tells of a child begins with the size of who started it.
MEASURE = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@pytest.mark.parametrize(
    "text",
    [
        "[" * 10_000_000,
        '{"a":' * 1_000_000,
        json.dumps(resource({"customize": [SMALL] * 10_000})),
        json.dumps(resource({"customize": [{"type": "Shell", "inline": ["x" * 1_000_000]}]})),
        json.dumps(resource({"customize": [{"type": "Shell", "inline": ["a;" * 500_000]}]})),
        json.dumps(resource({"x" * 1_000_000: 1})),
        json.dumps({f"k{i}": i for i in range(50_000)}),
        json.dumps({"resources": [resource({"customize": [{**SMALL, "name": "[concat('a', copyIndex())]"}]},
                                           copy={"name": "c", "count": 800}, name="[string(copyIndex())]")]}),
        json.dumps({"variables": DOUBLING, "resources": [resource({}, location="[variables('v0')]")]}),
    ],
    ids=["brackets", "objects", "customizers", "long line", "many commands", "long name", "names", "loop", "doubling"],
)  # fmt: skip
def test_huge_and_hostile_ones_stay_small(text: str, tmp_path: Path) -> None:
    """The memory of the whole process: what Python traces would be less, and tracing makes it several times slower."""
    assert any(item.severity is Severity.ERROR for item in checked(text).diagnostics)
    (tmp_path / "t.json").write_text(text)
    words = [sys.executable, "-I", "-S", "-c", MEASURE, str(Path(sys.executable).with_name("aib")), "validate"]
    done = subprocess.run([*words, str(tmp_path / "t.json")], check=True, capture_output=True, text=True)
    exit_code, kibibytes = map(int, done.stdout.split())
    assert exit_code == 2
    assert kibibytes * 1024 < 200 * 2**20 + 8 * len(text)
