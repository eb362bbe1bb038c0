"""`aib validate`: check templates before anything boots or is submitted."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from orchestrator.template.diagnostics import Severity
from orchestrator.template.load import Loaded
from orchestrator.template.parameter_file import read_parameters
from orchestrator.verbs.validate import Validation, validate
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
@click.option("--target-version", default="", metavar="V", help="Judge by this api-version.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(
    ctx: click.Context,
    templates: tuple[Path, ...],
    settings: dict[str, str],
    given: dict[str, str],
    *,
    files: tuple[Path, ...],
    target_version: str,
    as_json: bool,
) -> None:
    """Check TEMPLATES (files, folders, or - for standard input): every problem at once, with its line and its fix.

    Exit code 0: no errors; 2: errors; 4: a file cannot be read.
    """
    parameters: dict[str, Any] = {}
    for file in files:
        parameters |= read_parameters(file)
    result = validate(templates, settings=settings, parameters=parameters | given, target_version=target_version)
    if as_json:
        click.echo(json.dumps(_data(result), indent=2, ensure_ascii=False))
    else:
        colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        for line in diagnostics_text.render(result.diagnostics, result.sources, colour=colour):
            click.echo(line)
        click.echo(diagnostics_text.summary(result.diagnostics, len(result.files)), err=True)
    ctx.exit(0 if result.is_valid else 2)


def _data(result: Validation) -> dict[str, object]:
    return {
        "version": 1,
        "valid": result.is_valid,
        "files": list(result.files),
        "templates": list(result.templates),
        "diagnostics": [diagnostics_text.to_json(item) for item in result.diagnostics],
    }
