"""A run as a JUnit report: one testcase per customizer and validator, for CI systems that show test results."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as xml

from orchestrator.record.record import NOT_RUN, RUNNING, RunRecord, StepRecord
from orchestrator.views.exit_codes import described
from orchestrator.views.failure import LAST_LINES, last_lines

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(runs: Sequence[tuple[str, RunRecord, Path]]) -> str:
    """The report of runs (label, record, folder) as XML text, a suite for each.

    A suite is called by its label, or by the template's name where that is "". Steps that failed, were skipped or never
    ran say so; the times are ours, in seconds.
    """
    root = xml.Element("testsuites", {"name": "aib"})
    suites = [_suite(root, *run) for run in runs]
    for count in ("tests", "failures", "errors", "skipped"):
        root.set(count, str(sum(int(suite.get(count, "0")) for suite in suites)))
    root.set("time", f"{sum(record.elapsed for _, record, _ in runs):.3f}")
    xml.indent(root)
    return xml.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _suite(root: xml.Element, label: str, record: RunRecord, folder: Path) -> xml.Element:
    steps = [step for _, step in sorted(record.steps.items())]
    name = label or (record.started.template_name if record.started else folder.name)
    counts = {
        "tests": str(len(steps)),
        "failures": str(sum(step.result == "failed" for step in steps)),
        "errors": str(int(_failed_outside(record, steps))),
        "skipped": str(sum(step.result in ("skipped", NOT_RUN, RUNNING) for step in steps)),
        "time": f"{record.elapsed:.3f}",
    }
    suite = xml.SubElement(root, "testsuite", {"name": _text(name), "timestamp": record.start_time, **counts})
    properties = xml.SubElement(suite, "properties")
    for key, value in _properties(record, folder).items():
        xml.SubElement(properties, "property", {"name": key, "value": _text(value)})
    for step in steps:
        _case(suite, name, step, folder)
    if _failed_outside(record, steps) and record.finished:
        case = xml.SubElement(suite, "testcase", {"name": "build", "classname": _text(f"{name}.run"), "time": "0"})
        error = xml.SubElement(case, "error", {"message": _text(record.finished.message), "type": record.sub_state})
        error.text = _text(record.finished.hint)
    return suite


def _case(suite: xml.Element, template: str, step: StepRecord, folder: Path) -> None:
    where = f"{template}.{step.phase or 'steps'}"
    attributes = {"name": _text(step.name), "classname": _text(where), "time": f"{step.seconds:.3f}"}
    case = xml.SubElement(suite, "testcase", attributes)
    if step.result == "failed":
        failure = xml.SubElement(case, "failure", {"message": _text(step.message), "type": step.kind})
        printed = last_lines(folder / step.output, LAST_LINES) if step.output else []
        failure.text = _text("\n".join([described(step.exit_code), *printed]))
    elif step.result in ("skipped", NOT_RUN, RUNNING):
        xml.SubElement(case, "skipped", {"message": step.result})


def _failed_outside(record: RunRecord, steps: list[StepRecord]) -> bool:
    """Whether the run failed, but no step did: boot, export, distribution, the budget."""
    failed = record.finished is not None and record.finished.exit_code != 0
    return failed and not any(step.result == "failed" for step in steps)


def _properties(record: RunRecord, folder: Path) -> dict[str, str]:
    properties = {"run": folder.name, "runState": record.state, "runSubState": record.sub_state}
    if record.started:
        properties |= {"source": record.started.source, "sourceVersion": record.started.source_version}
    return properties


def _text(text: str) -> str:
    """What XML can hold."""
    return _NOT_XML.sub("\ufffd", text)
