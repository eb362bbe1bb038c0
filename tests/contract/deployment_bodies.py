"""Deployment bodies for a fuzzer: shaped like real ones, so that it gets deep, and wrong in every place."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from orchestrator.template.arm.evaluate import PURE
from tests.contract.deploying import GALLERIES, body, gallery, identity, template

Any_ = st.SearchStrategy[Any]

NAMES = st.sampled_from(["a", "b", "g1", "id1", "x/y", "..", "", "ü", "a" * 300, "d", "[x", "[[x]", "nested"])
KINDS = st.sampled_from(
    [
        GALLERIES,
        f"{GALLERIES}/images",
        "Microsoft.ManagedIdentity/userAssignedIdentities",
        "Microsoft.Resources/deployments",
        "Microsoft.VirtualMachineImages/imageTemplates",
        "Microsoft.Resources/resourceGroups",
        "nonsense",
        "A.B/c",
        "/",
    ]
)
_SPECIAL = (
    "parameters variables reference listKeys resourceId if copyIndex lambda map fail resourceGroup deployment "
    "providers newGuid nosuch tryGet coalesce utcNow mine.f"
)
FUNCTIONS = st.sampled_from([*PURE, *_SPECIAL.split()])
LITERALS = st.one_of(
    st.integers(-(2**70), 2**70).map(str),
    st.sampled_from(
        ["'a'", "'g1'", "'it''s'", "''", "'/subscriptions/x'", f"'{'z' * 50}'", "'Microsoft.Compute/images'"]
    ),
)
AFTER = st.sampled_from(["", ".x", "[0]", ".outputs.a.value", ".?y", "["])


def _call(name: str, arguments: list[str], after: str) -> str:
    return f"{name}({', '.join(arguments)}){after}"


CALLS = st.recursive(
    LITERALS, lambda inner: st.builds(_call, FUNCTIONS, st.lists(inner, max_size=3), AFTER), max_leaves=12
)
TEXTS = st.one_of(NAMES, CALLS.map(lambda call: f"[{call}]"), st.text(max_size=20))
NUMBERS = st.one_of(st.integers(-3, 900), st.floats(allow_nan=False, allow_infinity=False))
VALUES = st.recursive(
    st.one_of(TEXTS, st.none(), st.booleans(), NUMBERS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=10,
)
LOOPS = st.fixed_dictionaries(
    {"name": NAMES, "count": st.one_of(st.integers(-1, 900), TEXTS)}, optional={"input": VALUES}
)


def _resources(inside: Any_) -> Any_:
    optional = {
        "name": TEXTS,
        "location": TEXTS,
        "condition": VALUES,
        "copy": LOOPS,
        "scope": TEXTS,
        "existing": st.booleans(),
        "dependsOn": st.lists(TEXTS, max_size=3),
        "tags": VALUES,
        "properties": st.one_of(VALUES, inside),
        "resourceGroup": TEXTS,
        "subscriptionId": NAMES,
        "resources": VALUES,
    }
    required = {"type": KINDS, "apiVersion": st.sampled_from(["2022-03-03", "[nosuch()]", 7])}
    return st.lists(st.fixed_dictionaries(required, optional=optional), max_size=4)


def _templates(inside: Any_) -> Any_:
    kinds, more = st.sampled_from(["string", "int", "secureObject", "x"]), st.sampled_from(["string", "array", "?"])
    parameter = st.fixed_dictionaries({"type": kinds}, optional={"defaultValue": VALUES})
    output = st.fixed_dictionaries({"type": more}, optional={"value": VALUES, "copy": LOOPS})
    required = {
        "$schema": st.just("x"),
        "contentVersion": st.just("1.0.0.0"),
        "resources": st.one_of(_resources(inside), VALUES),
    }
    optional = {
        "parameters": st.dictionaries(NAMES, parameter, max_size=3),
        "variables": st.dictionaries(NAMES, VALUES, max_size=3),
        "outputs": st.dictionaries(NAMES, output, max_size=2),
        "functions": VALUES,
        "languageVersion": st.just("2.0"),
    }
    return st.fixed_dictionaries(required, optional=optional)


_GIVEN = st.dictionaries(NAMES, st.fixed_dictionaries({"value": VALUES}), max_size=2)
_NESTED = st.fixed_dictionaries(
    {"mode": st.just("Incremental"), "template": _templates(st.just({}))},
    optional={"expressionEvaluationOptions": st.just({"scope": "inner"}), "parameters": _GIVEN},
)
BODIES = st.fixed_dictionaries(
    {
        "properties": st.fixed_dictionaries(
            {"template": _templates(_NESTED)},
            optional={"mode": st.sampled_from(["Incremental", "complete", 1]), "parameters": st.one_of(_GIVEN, VALUES)},
        )
    },
    optional={"location": TEXTS, "tags": VALUES},
)

_WHOLE = [
    json.dumps(body(template(gallery("[concat('a', 'b')]"), identity("i")))).encode(),
    b'{"properties": {template: {}}}',
]
_PIECES = [b"{", b"}", b'"', b"//", b"/*", b"<x>", b"template:", b"\\ud800", b"1e999", b"\x00"]


def _broken(whole: bytes, at: int, piece: bytes) -> bytes:
    return whole[: at % len(whole)] + piece + whole[at % len(whole) :]


BROKEN = st.builds(
    _broken, st.sampled_from(_WHOLE), st.integers(0, 10_000), st.one_of(st.binary(max_size=4), st.sampled_from(_PIECES))
)
