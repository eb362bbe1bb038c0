"""Pre-flight: check templates and say everything that is wrong, without booting or fetching anything."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hypervisor.errors import InputError
from orchestrator.template.arm.functions_azure import Scope
from orchestrator.template.diagnostics import Diagnostic, Position, Severity
from orchestrator.template.load import FileChecks, Loaded, inspect_templates
from orchestrator.template.model import Template
from orchestrator.template.read_file import MAX_FILE_SIZE
from orchestrator.template.regular_file import read_regular
from orchestrator.template.selection import Selection, of_project, silenced_by_tags
from orchestrator.template.source_text import SourceText

SUFFIXES = (".json", ".jsonc")


@dataclass(frozen=True, slots=True)
class Given:
    """What the user gives beside the files: values for the templates, and what counts.

    What counts comes from the project file of each template; `ignore`, `only`, `fail_on` and `target_version` overrule
    it. `files` None leaves out the checks of local files.
    """

    settings: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    scope: Scope = field(default_factory=Scope)
    ignore: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    fail_on: str = ""
    target_version: str = ""
    files: FileChecks | None = field(default_factory=FileChecks)
    store: Path | None = None
    """The home of a store: templates without errors are held against what this machine has."""
    online: Path | None = None
    """The store's home: remote scripts and files of templates without errors are fetched into it and checked."""


@dataclass(frozen=True, slots=True)
class Validation:
    """What was checked and what was found, over all files."""

    files: tuple[str, ...]
    templates: tuple[str, ...]
    """Names of the templates that are free of errors."""
    diagnostics: tuple[Diagnostic, ...]
    sources: Mapping[str, SourceText]
    failed: bool

    def count(self, severity: Severity) -> int:
        """How many diagnostics have this severity."""
        return sum(item.severity is severity for item in self.diagnostics)


@dataclass(frozen=True, slots=True)
class Checked:
    """One file's part of a validation."""

    file: str
    templates: tuple[str, ...]
    diagnostics: tuple[Diagnostic, ...]
    sources: Mapping[str, SourceText]
    failed: bool


_NOTHING = Given()


def validate(paths: Sequence[Path], given: Given = _NOTHING) -> Validation:
    """Checks the templates in files and folders (`-` is standard input).

    Raises InputError for what cannot be read, UsageError for a wrong project file or rule id.
    """
    files: list[str] = []
    templates: list[str] = []
    diagnostics: list[Diagnostic] = []
    failed = False
    sources: dict[str, SourceText] = {}
    for checked in validate_each(paths, given):
        files.append(checked.file)
        templates += checked.templates
        diagnostics += checked.diagnostics
        if checked.diagnostics:  # the text is needed for showing lines alone: memory stays flat over many files
            sources |= checked.sources
        failed = failed or checked.failed
    return Validation(tuple(files), tuple(templates), tuple(diagnostics), sources, failed)


def validate_each(paths: Sequence[Path], given: Given = _NOTHING, *, text: str | None = None) -> Iterator[Checked]:
    """The same file by file, as they are read; `text` is judged in the place of what the one file holds."""
    projects: dict[Path, Selection] = {}
    staging: dict[str, tuple[str, int]] = {}
    for file in (file for path in paths for file in template_files(path)):
        is_stream = str(file) == "-"
        folder = (Path.cwd() / "x" if is_stream else file).absolute().parent
        if folder not in projects:
            projects[folder] = of_project(folder / "x")
        selection = projects[folder].with_options(
            ignore=given.ignore, only=given.only, fail_on=given.fail_on, target_version=given.target_version
        )
        loaded = _load(file, text, given, selection)
        shared = same_staging_group(staging, str(file), loaded.staging)
        counted = selection.apply((*loaded.diagnostics, *shared))
        yield Checked(str(file), loaded.names, counted, loaded.sources, selection.fails(counted))


def _load(file: Path, text: str | None, given: Given, selection: Selection) -> Loaded:
    """One file as it is, or as it compiles to; with `online`, what its templates fetch is looked at as well."""
    path: Path | None = None if str(file) == "-" else file
    if file.suffix.lower() == ".bicep":
        from orchestrator.verbs.bicep import compile_to_json

        text, path = compile_to_json(file), file.with_name(f"{file.name}.json")  # lines are those of the JSON
    loaded = inspect_templates(
        path,
        text,
        settings=given.settings,
        parameters=given.parameters,
        scope=given.scope,
        target_version=selection.target_version,
        files=given.files,
        typed=given.online is not None or given.store is not None,
    )
    folder = path.parent if path is not None else Path.cwd()
    more = [
        found
        for template in loaded.templates
        for found in _beyond_the_file(template, folder, given)
        if found.rule not in silenced_by_tags(template.tags)
    ]
    return replace(loaded, diagnostics=(*loaded.diagnostics, *more)) if more else loaded


def _beyond_the_file(template: Template, folder: Path, given: Given) -> Iterator[Diagnostic]:
    """What the store and the network say."""
    if given.store is not None:
        from orchestrator.verbs import local_checks

        yield from local_checks.check(template, given.store)
    if given.online is not None:
        from orchestrator.verbs import online

        yield from online.check(template, folder, given.online, given.files.shell if given.files else None)


def same_staging_group(
    seen: dict[str, tuple[str, int]], file: str, groups: Iterable[tuple[str, str, Position]]
) -> Iterator[Diagnostic]:
    """AIB067 over the files of one call: no two templates share a staging resource group.

    `seen` maps a group to the file and line where it stood first; `groups` are those of `file`.
    """
    for group, pointer, position in groups:
        first = seen.setdefault(group, (file, position.line))
        if first[0] != file:
            message = f"the staging resource group is that of {first[0]}, line {first[1]}"
            hint = "each template needs its own"
            yield Diagnostic("AIB067", Severity.ERROR, message, pointer, position, hint, "JSON")


def template_files(path: Path) -> list[Path]:
    """The file itself, or the JSON files below a folder that speak of the image builder: others are no templates.

    Raises InputError when there are none, or for a file that is another kind of template.
    """
    if path.suffix.lower() in (".yaml", ".yml", ".tf"):
        raise InputError(f"{path} is no JSON template", hint="templates are JSON, or Bicep with a compiler installed")
    if not path.is_dir():
        return [path]
    found = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file() and _speaks_of_it(p))
    if not found:
        raise InputError(f"there is no image template in {path}", hint="name the template files")
    return found


def _speaks_of_it(file: Path) -> bool:
    """Whether the provider's name stands in the file, in any case and in UTF-8 or UTF-16."""
    try:
        return b"virtualmachineimages" in read_regular(file, MAX_FILE_SIZE).replace(b"\0", b"").lower()
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror or error}") from error
