"""`<name>` placeholders: the documented workflow fills them with `sed` before the template is submitted.

Filling happens on the parsed values, not on the text: a value with quotes or backslashes cannot break the JSON, and
positions stay those of the file. A placeholder outside quotes (`"minutes": <minutes>`) takes any JSON value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from orchestrator.template.json_reader import BarePlaceholder, read
from orchestrator.template.node import UNKNOWN, Node
from orchestrator.template.report import Report
from orchestrator.template.source_text import SourceText

PLACEHOLDER = re.compile(r"<([A-Za-z][^<>\"\r\n]{0,80})>")
UNCLOSED = re.compile(r"<[A-Za-z][A-Za-z0-9_ -]{0,80}")
_SCRIPT_KEYS = frozenset({"inline", "restartCommand", "restartCheckCommand", "filters", "searchCriteria"})


def fill(root: Node, settings: Mapping[str, str], report: Report) -> Node:
    """The tree with every `<name>` of `settings` filled, and AIB003 for those that stay open."""
    if "<" not in root.source.text:
        return root
    for node in root.walk():
        if isinstance(node, BarePlaceholder):
            node.value = _bare_value(node, settings, report)
        elif isinstance(node.value, str) and "<" in node.value:
            node.value = _filled(node.value, settings)
            _report_open(node, node.value, report)
        elif isinstance(node.value, dict) and any("<" in key for key in node.value):
            _fill_keys(node, settings, report)
    return root


def _filled(text: str, settings: Mapping[str, str]) -> str:
    return PLACEHOLDER.sub(lambda found: settings.get(found[1], found[0]), text)


def _fill_keys(node: Node, settings: Mapping[str, str], report: Report) -> None:
    members: dict[str, Node] = {}
    keys: dict[str, int] = {}
    for key, child in node.value.items():
        name = _filled(key, settings)
        if name in members:
            report.error("AIB003", node, f'filled, the name "{name}" stands twice in this object', key=key)
            continue
        members[name] = child
        child.key = name
        if key in node.keys:
            keys[name] = node.keys[key]
    node.value, node.keys = members, keys
    for name in members:
        found = PLACEHOLDER.search(name)
        if found:
            report.error("AIB003", node, _message(found[1]), hint=_hint(found[1]), source="JSON", key=name)
        elif UNCLOSED.fullmatch(name):
            message = f"the placeholder {name} is not closed"
            report.error("AIB003", node, message, hint=f"write {name}>", source="JSON", key=name)


def _bare_value(node: BarePlaceholder, settings: Mapping[str, str], report: Report) -> object:
    name = str(node.value)[1:-1]
    if name not in settings:
        report.error("AIB003", node, _message(name), hint=_hint(name), source="JSON")
        return UNKNOWN
    inner = Report()
    value = read(SourceText(settings[name], f"--set {name}"), inner)
    if inner.items or not value.is_known:
        report.error(
            "AIB003", node, f"the setting {name}={settings[name]!r} is no JSON value, and <{name}> is not in quotes"
        )
        return UNKNOWN
    for child in value.walk():
        if child is not value:
            child.source, child.start, child.end = node.source, node.start, node.end
    if value.is_object or value.is_array:
        for child in value.value.values() if value.is_object else value.items():
            child.parent = node
    return value.value


def is_open(text: str) -> bool:
    """Whether a value still holds a placeholder, or a stand-in `<...>` for what only Azure knows."""
    return "<" in text and PLACEHOLDER.search(text) is not None


def _report_open(node: Node, text: str, report: Report) -> None:
    found = PLACEHOLDER.search(text)
    if found is None:
        if UNCLOSED.fullmatch(text) and not _is_script(node):
            report.error("AIB003", node, f"the placeholder {text} is not closed", hint=f"write {text}>", source="JSON")
        return
    if _is_script(node):
        hint = f"{_hint(found[1])}; if the script means it, ignore this"
        report.warning(
            "AIB003", node, f"<{found[1]}> in a script looks like an open placeholder", hint=hint, source="JSON"
        )
        return
    report.error("AIB003", node, _message(found[1]), hint=_hint(found[1]), source="JSON")
    node.value = UNKNOWN if text == found[0] else text


def _is_script(node: Node) -> bool:
    """Whether the text is code, where `<word>` can be a redirection or markup."""
    above: Node | None = node
    while above is not None:
        if above.key in _SCRIPT_KEYS:
            return True
        above = above.parent
    return False


def _message(name: str) -> str:
    return f"the placeholder <{name}> is not filled"


def _hint(name: str) -> str:
    return f"fill it with --set '{name}=VALUE'"
