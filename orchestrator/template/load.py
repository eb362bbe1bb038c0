"""From a file to typed templates: read, fill placeholders, find resources, expand, check, build.

    read (json_reader) ─► fill <placeholders> ─► find resources ─► expand expressions ─► check fields (schema)
                                                                    ─► run rules ─► Template

Everything that is wrong is collected on the way and comes back, or is raised, all at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.template import json_reader, placeholders, rules
from orchestrator.template.arm import expand
from orchestrator.template.arm.functions_azure import Scope
from orchestrator.template.diagnostics import Diagnostic, InvalidTemplate, Position, Severity
from orchestrator.template.node import Node
from orchestrator.template.read_file import encodable, read_text
from orchestrator.template.recognise import find, is_deployment
from orchestrator.template.report import EnoughFound, Report
from orchestrator.template.rules.machine import one_staging_group_each, staging_groups
from orchestrator.template.schema.check import check_resource
from orchestrator.template.schema.tables import DEFAULT_VERSION, nearest_version
from orchestrator.template.selection import silenced_by_tag
from orchestrator.template.shell_syntax import ShellTools
from orchestrator.template.source_text import SourceText
from orchestrator.template.subject import Subject

if TYPE_CHECKING:
    from orchestrator.template.model import Template

_NOTHING: Mapping[str, Any] = {}
_HERE = Scope()


@dataclass(frozen=True, slots=True)
class FileChecks:
    """Checks beyond the template's own text: local files beside it, and the shell tools (None: without them)."""

    shell: ShellTools | None = field(default_factory=ShellTools)


@dataclass(frozen=True, slots=True)
class Loaded:
    """All templates of one file that are free of errors, and everything that was found.

    `names` are theirs; `sources` holds the text of each file read, for showing the line of a diagnostic. `staging` are
    the staging resource groups of all of them, in lower case, with pointer and position.
    """

    templates: tuple[Template, ...]
    diagnostics: tuple[Diagnostic, ...]
    sources: Mapping[str, SourceText] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    staging: tuple[tuple[str, str, Position], ...] = ()

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
    files: FileChecks | None = None,
    typed: bool = True,
) -> Loaded:
    """Reads and checks every template of a file (or of `text`) without raising for what is wrong in it.

    `settings` fill `<placeholders>`, `parameters` those of a deployment, `scope` is where a deployment counts as
    deployed to, `target_version` judges by another api-version than the template's own, `files` adds the checks of
    local files and of shell scripts by tools; without `typed` no Template is made. Raises InputError when the file
    cannot be read.
    """
    report = Report()
    file = str(path) if path is not None else "<stdin>" if text is None else "<text>"
    source = SourceText(read_text(path, report) if text is None else encodable(text, file, report), file)
    sources = {file: source}
    checked: list[Subject] = []
    try:
        root = placeholders.fill(json_reader.read(source, report), settings, report)
        own_name = name or _name_from(path)
        for subject in _subjects(root, report, own_name, parameters, scope=scope, target_version=target_version):
            own = report.part(silenced_by_tag(subject.written))
            checked.append(_check(subject, own))
            if files is not None and checked[-1].node.is_object:
                sources |= _check_files(checked[-1], path, files, own)
        one_staging_group_each(checked, report)
    except EnoughFound:
        report.stopped(file)
    good = () if report.has_errors else tuple(checked)
    templates = _typed(good) if typed else ()
    names = tuple(subject.name for subject in good)
    return Loaded(templates, report.sorted(), sources, names, tuple(staging_groups(checked)))


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


def _typed(subjects: Iterable[Subject]) -> tuple[Template, ...]:
    from orchestrator.template.build_model import build  # a check alone needs none of the typed classes

    return tuple(build(subject) for subject in subjects)


def _subjects(
    root: Node, report: Report, name: str, parameters: Mapping[str, Any], *, scope: Scope, target_version: str
) -> Iterator[Subject]:
    parts = root.items() if any(is_deployment(item) for item in root.items()) else [root]
    resources = chain.from_iterable(
        expand.resources(part, parameters, report, scope, target_version) if is_deployment(part) else find(part, report)
        for part in parts
    )
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


def _check_files(subject: Subject, path: Path | None, files: FileChecks, report: Report) -> dict[str, SourceText]:
    """The checks that read files and start programs; returns the texts of the scripts that were read."""
    from orchestrator.template.rules import local_files, shell_tools  # not on the path of a build

    found = list(local_files.check(subject, path.parent, report)) if path is not None else []
    return shell_tools.check(subject, found, files.shell, report) if files.shell is not None else {}


def _name_from(path: Path | None) -> str:
    """A template name out of the file's name: what does not fit the service's pattern becomes a dash."""
    stem = path.stem if path is not None else ""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", stem).strip("-.")[:64] or "template"
