"""From a file to typed templates: read, fill placeholders, find resources, expand, check, build.

    read (json_reader) ─► fill <placeholders> ─► find resources ─► expand expressions ─► check fields (schema)
                                                                    ─► run rules ─► Template

Everything that is wrong is collected on the way and comes back, or is raised, all at once.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypervisor.errors import InputError
from orchestrator.template import build_model, json_reader, placeholders, rules
from orchestrator.template.arm import expand
from orchestrator.template.arm.functions_azure import Scope
from orchestrator.template.diagnostics import Diagnostic, InvalidTemplate, Severity
from orchestrator.template.model import Template
from orchestrator.template.node import Node
from orchestrator.template.recognise import find, is_deployment
from orchestrator.template.report import Report
from orchestrator.template.schema.check import check_resource
from orchestrator.template.schema.tables import DEFAULT_VERSION, nearest_version
from orchestrator.template.source_text import SourceText
from orchestrator.template.subject import Subject

MAX_FILE_SIZE = 32 * 1024 * 1024  # bytes; ARM refuses templates beyond 4 MB
_NOTHING: Mapping[str, Any] = {}
_HERE = Scope()


@dataclass(frozen=True, slots=True)
class Loaded:
    """All templates of one file that are free of errors, and everything that was found.

    `sources` holds the text of each file read, for showing the line of a diagnostic.
    """

    templates: tuple[Template, ...]
    diagnostics: tuple[Diagnostic, ...]
    sources: Mapping[str, SourceText] = field(default_factory=dict)

    @property
    def is_valid(self) -> bool:
        return not any(item.severity is Severity.ERROR for item in self.diagnostics)


def inspect_templates(
    path: Path | None,
    text: str | None = None,
    *,
    name: str = "",
    settings: Mapping[str, str] = _NOTHING,
    parameters: Mapping[str, Any] = _NOTHING,
    scope: Scope = _HERE,
    target_version: str = "",
) -> Loaded:
    """Reads and checks every template of a file (or of `text`) without raising for what is wrong in it.

    `settings` fill `<placeholders>`, `parameters` those of a deployment, `scope` is where a deployment counts as
    deployed to, `target_version` judges by another
    api-version than the template's own. Raises InputError when the file cannot be read.
    """
    report = Report()
    file = str(path) if path is not None else "<text>"
    source = SourceText(read_text(path, report) if text is None else _encodable(text, file, report), file)
    root = json_reader.read(source, report)
    root = placeholders.fill(root, settings, report)
    subjects = list(
        _subjects(root, report, name or _name_from(path), parameters, scope=scope, target_version=target_version)
    )
    templates = []
    for subject in subjects:
        own = Report()
        checked = _check(subject, own)
        report.items.extend(own.items)
        if not own.has_errors:
            templates.append(checked)
    if report.has_errors:
        templates = []
    return Loaded(
        tuple(build_model.build(subject) for subject in templates), report.sorted(), {file: source}
    )  # fmt: skip


def load_templates(
    path: Path | None,
    text: str | None = None,
    *,
    name: str = "",
    settings: Mapping[str, str] = _NOTHING,
    parameters: Mapping[str, Any] = _NOTHING,
    scope: Scope = _HERE,
    target_version: str = "",
) -> Loaded:
    """As `inspect_templates`, but raises InvalidTemplate when there is any error."""
    loaded = inspect_templates(
        path, text, name=name, settings=settings, parameters=parameters, scope=scope, target_version=target_version
    )
    if not loaded.is_valid:
        raise InvalidTemplate(loaded.diagnostics)
    return loaded


def load_template(
    path: Path | None,
    text: str | None = None,
    *,
    name: str = "",
    settings: Mapping[str, str] = _NOTHING,
    parameters: Mapping[str, Any] = _NOTHING,
    scope: Scope = _HERE,
    target_version: str = "",
) -> tuple[Template, tuple[Diagnostic, ...]]:
    """The one template of a file; where there are several, the one called `name`. Raises InvalidTemplate."""
    loaded = inspect_templates(
        path, text, name=name, settings=settings, parameters=parameters, scope=scope, target_version=target_version
    )
    return choose(loaded, name), loaded.diagnostics


def choose(loaded: Loaded, name: str = "") -> Template:
    """The one template of `loaded`, or of several the one called `name`.

    Raises InvalidTemplate when there are errors, or when `name` does not decide between several.
    """
    if not loaded.is_valid:
        raise InvalidTemplate(loaded.diagnostics)
    chosen = loaded.templates
    if len(chosen) > 1:
        chosen = tuple(template for template in chosen if template.name == name)
    if len(chosen) != 1:
        names = ", ".join(template.name for template in loaded.templates)
        message = f"the file holds {len(loaded.templates)} templates: {names}"
        extra = Diagnostic("AIB005", Severity.ERROR, message, hint="choose one by its name (--name)")
        raise InvalidTemplate((*loaded.diagnostics, extra))
    return chosen[0]


def read_text(path: Path | None, report: Report) -> str:
    """The text of a file (None: standard input). UTF-8, or UTF-16 with its mark; AIB002 for marks and wrong bytes."""
    try:
        data = sys.stdin.buffer.read(MAX_FILE_SIZE + 1) if path is None else _bounded(path)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}", hint="check the path") from error
    if len(data) > MAX_FILE_SIZE:
        raise InputError(f"{path} is larger than {MAX_FILE_SIZE} bytes", hint="ARM refuses templates beyond 4 MB")
    return _decode(data, SourceText("", str(path or "<stdin>")), report)


def _bounded(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_FILE_SIZE + 1)


def _decode(data: bytes, source: SourceText, report: Report) -> str:
    start = source.position(0)
    for mark, encoding, word in (
        (b"\xef\xbb\xbf", "utf-8-sig", "UTF-8"),
        (b"\xff\xfe", "utf-16", "UTF-16"),
        (b"\xfe\xff", "utf-16", "UTF-16"),
    ):
        if data.startswith(mark):
            hint = "save it as UTF-8 without a mark; `az` and other strict readers refuse it"
            report.at_position(
                Severity.WARNING, "AIB002", start, f"the file begins with a {word} byte order mark", hint=hint
            )  # fmt: skip
            return data.decode(encoding, errors="replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = SourceText(data[: error.start].decode("utf-8", errors="replace"), source.file)
        place = before.position(len(before.text))
        message = f"the byte 0x{data[error.start]:02X} is not UTF-8"
        report.at_position(Severity.ERROR, "AIB001", place, message, hint="save the file as UTF-8", source="RFC 8259")
        return data.decode("utf-8", errors="replace")


def _encodable(text: str, file: str, report: Report) -> str:
    """`text` without lone surrogates and without a byte order mark, each reported."""
    start = SourceText("", file).position(0)
    if text.startswith("\ufeff"):
        report.at_position(Severity.WARNING, "AIB002", start, "the text begins with a byte order mark")
        text = text[1:]
    try:
        text.encode()
    except UnicodeEncodeError as error:
        place = SourceText(text[: error.start], file).position(error.start)
        report.at_position(Severity.ERROR, "AIB001", place, "half of a surrogate pair, which is no character")
        return text.encode("utf-8", errors="replace").decode("utf-8")
    return text


def _subjects(
    root: Node, report: Report, name: str, parameters: Mapping[str, Any], *, scope: Scope, target_version: str
) -> Iterator[Subject]:
    if is_deployment(root):
        resources = expand.resources(root, parameters, report, scope, target_version)
    else:
        resources = find(root, report)
    for found in resources:
        written = found.node
        version = written.string("apiVersion")
        yield Subject(
            written=written,
            node=written,
            name=written.string("name").rpartition("/")[2] or name,
            version=nearest_version(target_version or version or DEFAULT_VERSION),
            api_version=version,
            in_deployment=found.in_deployment,
        )


def _check(subject: Subject, report: Report) -> Subject:
    """The subject with its canonical node, after schema and rules."""
    checked = Subject(
        written=subject.written,
        node=check_resource(subject.written, subject.version, report),
        name=subject.name,
        version=subject.version,
        api_version=subject.api_version,
        in_deployment=subject.in_deployment,
    )
    if checked.node.is_object:
        rules.run(checked, report)
    return checked


def _name_from(path: Path | None) -> str:
    """A template name out of the file's name: what does not fit the service's pattern becomes a dash."""
    stem = path.stem if path is not None else ""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", stem).strip("-.")[:64] or "template"
