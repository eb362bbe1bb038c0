"""`aib validate`: check templates before anything boots or is submitted."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from orchestrator.template.arm.functions_azure import NO_SUBSCRIPTION, Scope
from orchestrator.template.diagnostics import Diagnostic, Severity
from orchestrator.template.load import FileChecks, Loaded
from orchestrator.template.parameter_file import read_parameters
from orchestrator.template.shell_syntax import TOTAL_SECONDS, ShellTools
from orchestrator.verbs.validate import Checked, Given, Validation, validate_each
from orchestrator.views import diagnostics_text


def pairs(ctx: click.Context, option: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """`name=value` options as a mapping."""
    found: dict[str, str] = {}
    for value in values:
        name, mark, content = value.partition("=")
        if not mark or not name:
            raise click.BadParameter(f"{value!r} is not name=value", ctx=ctx, param=option)
        found[name.strip("<>")] = content
    return found


def values(ctx: click.Context, option: click.Parameter, given: tuple[str, ...]) -> dict[str, list[str]]:
    """`name=a,b` options as a mapping to the values."""
    found: dict[str, list[str]] = {}
    for each in given:
        name, mark, content = each.partition("=")
        if not mark or not name or name in found:
            raise click.BadParameter(f"{each!r} is not name=a,b with a name of its own", ctx=ctx, param=option)
        found[name] = content.split(",")
    return found


def show(loaded: Loaded | Validation) -> None:
    """Write errors and warnings to stderr, for verbs whose result is something else."""
    colour = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    told = [item for item in loaded.diagnostics if item.severity is not Severity.INFO]
    for line in diagnostics_text.render(told, loaded.sources, colour=colour):
        click.echo(line, err=True)


@click.command("validate")
@click.argument("templates", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", callback=pairs, help="Fill <NAME>.")
@click.option("--param", "given", multiple=True, metavar="NAME=VALUE", callback=pairs, help="An ARM parameter.")
@click.option("--parameters", "files", multiple=True, type=click.Path(path_type=Path), help="An ARM parameter file.")
@click.option("--subscription", default=NO_SUBSCRIPTION, help="Subscription that a deployment counts as deployed to.")
@click.option("--resource-group", default="aib", help="Resource group that a deployment counts as deployed to.")
@click.option("--location", default="eastus", help="Region of that resource group.")
@click.option("--target-version", default="", metavar="V", help="Judge by this api-version.")
@click.option("--ignore", multiple=True, metavar="RULES", help="Leave these rules out.")
@click.option("--only", multiple=True, metavar="RULES", help="Use these rules alone (and JSON syntax).")
@click.option("--fail-on", type=click.Choice(["error", "warning", "info", "never"]), default=None,
              help="The least severity that fails (default: error).")  # fmt: skip
@click.option("--shell-tools/--no-shell-tools", default=True, help="Run sh -n and ShellCheck over shell scripts.")
@click.option("--shell-seconds", type=click.FloatRange(min=0), default=TOTAL_SECONDS, show_default=True,
              help="How long they may take in all; findings are kept for the next time.")  # fmt: skip
@click.option("--store/--no-store", "use_store", default=True,
              help="Also look at what this machine has: sizes, stored images, versions, earlier runs.")  # fmt: skip
@click.option("--online", is_flag=True, help="Also fetch remote scripts and files: reachability, size, checksum.")
@click.option("--fix", is_flag=True, help="Rewrite what is mechanical, show the difference, then check.")
@click.option("--diff", is_flag=True, help="Show what --fix would change.")
@click.option("--format", "form", type=click.Choice(["text", "json", "sarif", "github"]), default="text")
@click.option("--json", "as_json", is_flag=True, help="Short for --format json.")
def command(templates: tuple[Path, ...], **options: Any) -> None:
    """Check TEMPLATES (files, folders, or - for standard input): every problem at once, with its line and its fix.

    \b
    A project file aib.toml beside or above a template sets what counts; `aib explain AIB046` explains a rule.
    Exit code 0: nothing that fails; 2: errors; 4: a file cannot be read.
    """
    given = _given(options)
    if options["fix"] or options["diff"]:
        from orchestrator.verbs.fix import fix

        for fixed in fix(templates, given, write=options["fix"]):
            click.echo(fixed.diff, nl=False, err=options["fix"])
        if not options["fix"]:
            return
    form = "json" if options["as_json"] else options["form"]
    failed = _RENDERERS[form](validate_each(templates, given))  # shown file by file: nothing piles up over many
    click.get_current_context().exit(2 if failed else 0)


def _given(options: dict[str, Any]) -> Given:
    parameters: dict[str, Any] = {}
    for file in options["files"]:
        parameters |= read_parameters(file)
    return Given(
        settings=options["settings"],
        parameters=parameters | options["given"],
        scope=Scope(options["subscription"], options["resource_group"], options["location"]),
        ignore=options["ignore"],
        only=options["only"],
        fail_on=options["fail_on"] or "",
        target_version=options["target_version"],
        files=FileChecks(ShellTools(_cache(), options["shell_seconds"]) if options["shell_tools"] else None),
        store=_store_if_any() if options["use_store"] else None,
        online=_home() if options["online"] else None,
    )


def _store_if_any() -> Path | None:
    """The home of this machine's store, None when there is none yet: a check makes none."""
    named = os.environ.get("AIB_HOME")
    if named:
        home = Path(named)
    else:
        import platformdirs

        home = platformdirs.user_data_path("aib")
    return home if (home / "resources").is_dir() else None


def _home() -> Path:
    from orchestrator.cli.common import default_store  # the store is not on the path of an ordinary check

    return default_store().home


def _cache() -> Path:
    """Where findings of the shell tools are kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "aib" / "shell-checks"


def _text(results: Iterable[Checked]) -> bool:
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    counts = dict.fromkeys(Severity, 0)
    files, failed = 0, False
    for each in results:
        files, failed = files + 1, failed or each.failed
        for item in each.diagnostics:
            counts[item.severity] += 1
        if each.diagnostics:
            click.echo("\n".join(diagnostics_text.render(each.diagnostics, each.sources, colour=colour)))
    click.echo(diagnostics_text.summary(counts, files), err=True)
    return failed


def _json(results: Iterable[Checked]) -> bool:
    files: list[str] = []
    templates: list[str] = []
    diagnostics: list[dict[str, Any]] = []
    failed = False
    for each in results:
        files.append(each.file)
        templates += each.templates
        diagnostics += map(diagnostics_text.to_json, each.diagnostics)
        failed = failed or each.failed
    data = {"version": 1, "valid": not failed, "files": files, "templates": templates, "diagnostics": diagnostics}
    click.echo(json.dumps(data, indent=2, ensure_ascii=False))
    return failed


def _sarif(results: Iterable[Checked]) -> bool:
    from importlib.metadata import version

    from orchestrator.template.rules.catalogue import catalogue
    from orchestrator.views import sarif

    diagnostics: list[Diagnostic] = []
    failed = False
    for each in results:
        diagnostics += each.diagnostics
        failed = failed or each.failed
    click.echo(json.dumps(sarif.log(diagnostics, catalogue(), version("aib")), indent=2, ensure_ascii=False))
    return failed


def _github(results: Iterable[Checked]) -> bool:
    from orchestrator.views import github

    failed = False
    for each in results:
        for item in each.diagnostics:
            click.echo(github.annotation(item))
        failed = failed or each.failed
    return failed


_RENDERERS = {"text": _text, "json": _json, "sarif": _sarif, "github": _github}
