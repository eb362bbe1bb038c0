"""ARM expressions: what they parse to, what each function gives, and how failing ones are reported."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from orchestrator.template.arm.context import Context, Copies
from orchestrator.template.arm.evaluate import evaluate_text
from orchestrator.template.arm.expression import ExpressionError, parse
from orchestrator.template.arm.functions_azure import Scope
from orchestrator.template.arm.values import Budget, Unresolved

VALUES: dict[str, Any] = {
    "s": "abc", "n": 7, "list": [3, 1, 2], "words": ["b", "a"], "o": {"Key": {"x": 1}, "empty": ""}, "nothing": None,
    "people": [{"name": "ann", "age": 3}, {"name": "bob", "age": 2}],
}  # fmt: skip


def lookup(name: str) -> Any:
    if name not in VALUES:
        raise ExpressionError(f"no {name}")
    return VALUES[name]


def evaluated(text: str) -> Any:
    context = Context(
        Scope("sub", "rg", "westus"),
        lookup,
        lookup,
        lambda _: None,
        Budget(),
        datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        Copies({"loop": 2}, "loop"),
    )
    return evaluate_text(f"[{text}]", context)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("'it''s'", "it's"),
        ("-5", -5),
        ("parameters('n')", 7),
        ("PARAMETERS('n')", 7),
        (" concat( 'a' , 'b' ) ", "ab"),
        ("variables('o').key.x", 1),
        ("variables('o')['KEY'].x", 1),
        ("variables('list')[1]", 1),
        ("variables('o').?none.?x", None),
        ("variables('list')[?9]", None),
        ("concat('a', 1, true())", "a1True"),
        ("concat(variables('list'), createArray(9))", [3, 1, 2, 9]),
        ("format('{0}-{1:D3}{{}}', 's', 5)", "s-005{}"),
        ("format('{0,4}|{0,-4}|', 'x')", "   x|x   |"),
        ("toUpper('aé')", "AÉ"),
        ("trim(' a ')", "a"),
        ("substring('abcdef', 2, 3)", "cde"),
        ("substring('abc', 1)", "bc"),
        ("split('a,b;c', createArray(',', ';'))", ["a", "b", "c"]),
        ("replace('aXbX', 'X', '')", "ab"),
        ("padLeft(5, 3, '0')", "005"),
        ("indexOf('abC', 'c')", 2),
        ("lastIndexOf('aba', 'A')", 2),
        ("startsWith('Abc', 'ab')", True),
        ("endsWith('abC', 'bc')", True),
        ("base64('a')", "YQ=="),
        ("base64ToString('YQ==')", "a"),
        ("base64ToJson('eyJhIjoxfQ==').a", 1),
        ("uri('http://x/a/', 'b/c.json')", "http://x/a/b/c.json"),
        ("uriComponent('a b/c')", "a%20b%2Fc"),
        ("uriComponentToString('a%20b')", "a b"),
        ("dataUriToString(dataUri('hey'))", "hey"),
        ("string(createObject('a', createArray(1)))", '{"a":[1]}'),
        ("string(5)", "5"),
        ("join(variables('words'), '+')", "b+a"),
        ("int('42')", 42),
        ("bool('True')", True),
        ("float('1.5')", 1.5),
        ("add(2, 3)", 5),
        ("sub(2, 3)", -1),
        ("mul(4, 5)", 20),
        ("div(-7, 2)", -3),
        ("mod(-7, 2)", -1),
        ("min(3, 1, 2)", 1),
        ("max(variables('list'))", 3),
        ("length('abc')", 3),
        ("length(variables('o'))", 2),
        ("empty('')", True),
        ("empty(null())", True),
        ("first('abc')", "a"),
        ("last(variables('list'))", 2),
        ("skip(variables('list'), 1)", [1, 2]),
        ("take('abc', 2)", "ab"),
        ("indexFromEnd(variables('list'), 1)", 2),
        ("range(2, 3)", [2, 3, 4]),
        ("union(createArray(1, 2), createArray(2, 3))", [1, 2, 3]),
        (
            "union(createObject('a', createObject('x', 1)), createObject('a', createObject('y', 2)))",
            {"a": {"x": 1, "y": 2}},
        ),
        ("intersection(createArray(1, 2, 3), createArray(3, 2))", [2, 3]),
        ("intersection(createObject('a', 1, 'b', 2), createObject('a', 1))", {"a": 1}),
        ("shallowMerge(createArray(createObject('a', 1), createObject('a', 2)))", {"a": 2}),
        ("items(createObject('b', 1, 'a', 2))[0].key", "a"),
        ("objectKeys(variables('o'))", ["Key", "empty"]),
        ("array('x')", ["x"]),
        ("contains('abc', 'b')", True),
        ("contains('abc', 'B')", False),
        ("contains(variables('o'), 'KEY')", True),
        ("contains(variables('list'), 2)", True),
        ("equals('a', 'A')", False),
        ("equals(1, 1)", True),
        ("equals(1, true())", False),
        ("less(1, 2)", True),
        ("greaterOrEquals('b', 'a')", True),
        ("not(false())", True),
        ("and(true(), false(), fail('never'))", False),
        ("or(true(), fail('never'))", True),
        ("if(true(), 'yes', fail('never'))", "yes"),
        ("coalesce(null(), variables('nothing'), 'x')", "x"),
        ("tryGet(variables('o'), 'no', 'deep')", None),
        ("tryGet(variables('list'), 0)", 3),
        ("json('{\"a\": [true, null]}')", {"a": [True, None]}),
        ("copyIndex()", 2),
        ("copyIndex('loop', 10)", 12),
        ("copyIndex(1)", 3),
        (
            "resourceId('Microsoft.Compute/images', 'i')",
            "/subscriptions/sub/resourceGroups/rg/providers/Microsoft.Compute/images/i",
        ),
        ("resourceId('g2', 'A.B/c/d', 'x', 'y')", "/subscriptions/sub/resourceGroups/g2/providers/A.B/c/x/d/y"),
        ("resourceId('s2', 'g2', 'A.B/c', 'x')", "/subscriptions/s2/resourceGroups/g2/providers/A.B/c/x"),
        ("subscriptionResourceId('A.B/c', 'x')", "/subscriptions/sub/providers/A.B/c/x"),
        (
            "extensionResourceId(resourceGroup().id, 'A.B/c', 'x')",
            "/subscriptions/sub/resourceGroups/rg/providers/A.B/c/x",
        ),
        ("tenantResourceId('A.B/c', 'x')", "/providers/A.B/c/x"),
        ("resourcegroup().location", "westus"),
        ("subscription().subscriptionId", "sub"),
        ("utcNow()", "20260102T030405Z"),
        ("utcNow('yyyy-MM-dd HH:mm')", "2026-01-02 03:04"),
        ("utcNow('d')", "01/02/2026"),
        ("dateTimeAdd('2020-01-01T00:00:00Z', 'P1DT2H')", "2020-01-02T02:00:00Z"),
        ("dateTimeToEpoch('1970-01-02T00:00:00Z')", 86400),
        ("dateTimeFromEpoch(86400)", "1970-01-02T00:00:00Z"),
        ("parseCidr('10.0.0.0/24').lastUsable", "10.0.0.254"),
        ("cidrSubnet('10.0.0.0/16', 24, 3)", "10.0.3.0/24"),
        ("cidrHost('10.0.0.0/24', 4)", "10.0.0.5"),
        ("map(variables('list'), lambda('x', mul(lambdaVariables('x'), 2)))", [6, 2, 4]),
        (
            "map(variables('words'), lambda('x', 'i', concat(lambdaVariables('x'), string(lambdaVariables('i')))))",
            ["b0", "a1"],
        ),
        ("filter(variables('list'), lambda('x', greater(lambdaVariables('x'), 1)))", [3, 2]),
        ("reduce(variables('list'), 0, lambda('a', 'x', add(lambdaVariables('a'), lambdaVariables('x'))))", 6),
        ("sort(variables('list'), lambda('a', 'b', less(lambdaVariables('a'), lambdaVariables('b'))))", [1, 2, 3]),
        (
            "toObject(variables('people'), lambda('p', lambdaVariables('p').name), "
            "lambda('p', lambdaVariables('p').age))",
            {"ann": 3, "bob": 2},
        ),
        ("length(groupBy(variables('people'), lambda('p', string(lambdaVariables('p').age))))", 2),
        ("mapValues(createObject('a', 1), lambda('v', add(lambdaVariables('v'), 1)))", {"a": 2}),
    ],
)
def test_functions_give_what_arm_documents(text: str, value: Any) -> None:
    result = evaluated(text)
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    ("text", "offset", "part"),
    [
        ("concat('a'", 11, "expected"),
        ("concat('a", 8, "not closed"),
        ("nope('a')", 1, "no function"),
        ("'a' 'b'", 5, "end"),
        ("", 1, "expected"),
        ("a", 2, "'('"),
        ("concat('a', sub(1))", 13, "2 arguments"),
        ("variables('list')[9]", 18, "9"),
        ("variables('o').Kay", 15, "Kay"),
        ("div(1, 0)", 1, "zero"),
        ("concat('a', variables('list'))", 1, "concat"),
        ("int('x')", 1, "int()"),
        ("resourceId('noslash', 'x')", 1, "resource type"),
        ("resourceId('A.B/c/d', 'x')", 1, "2 names"),
        ("copyIndex('other')", 1, "outside"),
        ("fail('because')", 1, "because"),
        ("substring('abc', 2, 5)", 1, "outside"),
        ("range(0, 99999)", 1, "10000"),
        ("json('{')", 1, "no JSON"),
        ("format('{0} {3}', 'a')", 1, "{3}"),
        ("lambdaVariables('x')", 1, "lambda variable"),
        ("if('yes', 1, 2)", 1, "bool"),
        ("$x", 1, "unexpected"),
        ("add(9223372036854775807, 1)", 1, "64 bits"),
    ],
)
def test_failing_expressions_say_where_and_why(text: str, offset: int, part: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        evaluated(text)
    assert part in caught.value.message
    assert caught.value.offset == offset


def test_a_misspelt_function_gets_a_suggestion() -> None:
    with pytest.raises(ExpressionError) as caught:
        evaluated("conact('a')")
    assert caught.value.hint == "did you mean concat()?"


@pytest.mark.parametrize("text", ["[[x]", "plain", "[open", "[]x"])
def test_what_is_no_expression_stays(text: str) -> None:
    context = Context(Scope(), lookup, lookup, lambda _: None, Budget(), datetime.now(UTC))
    assert evaluate_text(text, context) == text.removeprefix("[") if text.startswith("[[") else text


def test_what_only_azure_knows_is_marked_and_passes_through_strings() -> None:
    value = evaluated("reference('x', '2020-01-01').outputs.id")
    assert isinstance(value, Unresolved)
    assert evaluated("concat(reference('x').a, '-b')") == "<reference('x').a>-b"
    assert isinstance(evaluated("listKeys('x', '2020').keys[0].value"), Unresolved)


def test_unique_string_and_guid_depend_on_their_arguments_alone() -> None:
    assert evaluated("uniqueString('a')") == evaluated("uniqueString('a')") != evaluated("uniqueString('b')")
    assert len(evaluated("uniqueString('a')")) == 13
    assert evaluated("guid('a')") == evaluated("guid('a')")


@pytest.mark.parametrize(
    "text",
    [
        "concat(" * 2000 + "'a'" + ")" * 2000,
        "'" + "a" * 30_000 + "'",
        "padLeft('x', 999999999)",
        "range(0, 9999999999999999999)",
        "map(range(0, 10000), lambda('x', map(range(0, 10000), lambda('y', add(lambdaVariables('x'), 1)))))",
        "json(replace(replace(replace(string(range(0,9999)),'1','11111111'),'1','11111111'),'1','11111111'))",
        "format(replace('xxxxxxxxxx','x','{0}{0}{0}{0}{0}{0}'), string(range(0, 10000)))",
    ],
)
def test_hostile_expressions_end_soon_with_an_error(text: str) -> None:
    with pytest.raises(ExpressionError):
        evaluated(text)


def test_parsing_is_reproducible_data() -> None:
    assert parse("[concat('a', parameters('b').c[0])]") == parse("[concat('a', parameters('b').c[0])]")
    assert json.dumps(evaluated("variables('people')"))
