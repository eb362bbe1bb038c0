"""The tolerant reader: dirt becomes diagnostics with positions; data is never lost silently; nothing crashes."""

from __future__ import annotations

import json

import pytest

from orchestrator.template.diagnostics import Diagnostic, Severity
from orchestrator.template.json_reader import MAX_DEPTH, read
from orchestrator.template.node import Node
from orchestrator.template.report import Report
from orchestrator.template.source_text import SourceText


def reading(text: str) -> tuple[Node, tuple[Diagnostic, ...]]:
    report = Report()
    return read(SourceText(text), report), report.sorted()


def places(found: tuple[Diagnostic, ...]) -> list[tuple[str, str, int, int]]:
    return [(d.rule, str(d.severity), d.position.line, d.position.column) for d in found]


@pytest.mark.parametrize(
    "text",
    [
        "{}", "[]", '"x"', "-0.5e+3", "0", "true", "null", '{"a":{"b":[1,2,{"c":null}]}}',
        ' \r\n{"é":"\\u00e9\\ud83d\\ude00"}\n',
        '{"":""}', '{"a/b":{"~":1}}', '["\\"\\\\\\/\\b\\f\\n\\r\\t"]', "12345678901234567890", "1e5",
    ],
)  # fmt: skip
def test_what_json_loads_accepts_reads_the_same_without_a_word(text: str) -> None:
    node, found = reading(text)
    assert node.plain() == json.loads(text)
    assert not found


def test_every_value_knows_its_line_column_and_pointer() -> None:
    node, _ = reading('{\r\n  "a/b": [1,\r\n    {"c~d": "x"}]}')
    inner = node.value["a/b"].items()[1].value["c~d"]
    assert inner.pointer == "/a~1b/1/c~0d"
    assert (inner.position.line, inner.position.column) == (3, 13)
    assert node.key_position("a/b").column == 3


@pytest.mark.parametrize(
    ("text", "rule", "severity", "line", "column", "value"),
    [
        ('{"a": 1, // why\n"b": 2}', "AIB001", "warning", 1, 10, {"a": 1, "b": 2}),
        ('{"a": /* b */ 1}', "AIB001", "warning", 1, 7, {"a": 1}),
        ('{"a": [1, 2,\n]}', "AIB001", "error", 1, 12, {"a": [1, 2]}),
        ('{"a": 1,}', "AIB001", "error", 1, 8, {"a": 1}),
        ('{"a": 1,\n "a": 2}', "AIB001", "error", 2, 2, {"a": 1}),
        ('{"a": 1 "b": 2}', "AIB001", "error", 1, 9, {"a": 1, "b": 2}),
        ('{"a" 1}', "AIB001", "error", 1, 6, {"a": 1}),
        ('{"a": , "b": 2}', "AIB001", "error", 1, 7, {"a": None, "b": 2}),
        ('{"a": "x\ty"}', "AIB002", "warning", 1, 9, {"a": "x\ty"}),
        ('{"a": "x\ny"}', "AIB002", "warning", 1, 9, {"a": "x\ny"}),
        ('{"a": 1}\x00', "AIB002", "warning", 1, 9, {"a": 1}),
        ('{"a":\u00a01}', "AIB002", "warning", 1, 6, {"a": 1}),
        ('{"a": "x\n "b": 2}', "AIB001", "error", 1, 7, {"a": None, "b": 2}),
        ("{'a': 1}", "AIB001", "error", 1, 2, {"a": 1}),
        ('{“a”: 1}', "AIB001", "error", 1, 2, {"a": 1}),
        ('{"a": True}', "AIB001", "error", 1, 7, {"a": True}),
        ('{"a": maybe}', "AIB001", "error", 1, 7, {"a": None}),
        ('{"a": "\\x"}', "AIB001", "error", 1, 8, {"a": "\\x"}),
        ('{"a": "\\ud83d"}', "AIB001", "error", 1, 7, {"a": "\ufffd"}),
        ('{"a": 1e999}', "AIB001", "error", 1, 7, {"a": None}),
        ('{"a": 1} {"b": 2}', "AIB001", "error", 1, 10, {"a": 1}),
        ('{"a": [1}', "AIB001", "error", 1, 9, {"a": [1]}),
        ('{"a": {"b": 1}', "AIB001", "error", 1, 15, {"a": {"b": 1}}),
        ('"a": 1', "AIB001", "error", 1, 1, {"a": 1}),
        ("", "AIB001", "error", 1, 1, None),
        ('{"a": /* ', "AIB001", "error", 1, 7, {}),
    ],
)  # fmt: skip
def test_dirt_is_reported_where_it_stands_and_reading_goes_on(
    text: str, rule: str, severity: str, line: int, column: int, value: object
) -> None:
    node, found = reading(text)
    assert (rule, severity, line, column) in places(found)
    assert node.plain() == value


def test_all_mistakes_of_a_text_are_reported_at_once() -> None:
    _, found = reading('{"a": 1,, "b": [1 2], "c": nope, "d": 1,}')
    assert [d.position.column for d in found if d.severity is Severity.ERROR] == [9, 19, 28, 40]


@pytest.mark.parametrize("opener", ["[", '{"a":', '[{"a":'])
def test_nesting_without_end_is_a_diagnostic(opener: str) -> None:
    _, found = reading(opener * 1_000_000)
    assert any("nested deeper" in d.message for d in found)


def test_nesting_at_the_limit_is_read() -> None:
    text = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    node, found = reading(text)
    assert not found
    assert node.plain() == json.loads(text)


@pytest.mark.parametrize("noise", ['"', "<", "/*", "\\", "'", "-", '"\\', "]", ",", ":", "\x00", "tru", "9"])
def test_a_megabyte_of_one_sign_ends_with_few_diagnostics(noise: str) -> None:
    _, found = reading(noise * (1_000_000 // len(noise)))
    assert 1 <= len(found) <= 102


def test_a_very_long_string_is_kept_whole() -> None:
    text = "x\\n" * 500_000
    node, found = reading(f'["{text}"]')
    assert node.plain() == ["x\n" * 500_000]
    assert not found


def test_a_name_said_twice_names_the_other_line() -> None:
    _, found = reading('{\n"a": 1,\n"a": 2}')
    assert "line 2" in found[0].hint
