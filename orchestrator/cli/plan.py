"""`aib plan`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from orchestrator.cli.common import default_store, print_json
from orchestrator.cli.validate import pairs, show

PLAN_TIME = 4 * 3600.0
"""Seconds for fetching scripts and, with --prepare, the source image."""


@click.command("plan")
@click.argument("template", required=False, type=click.Path(path_type=Path))
@click.option("--diff", "sides", nargs=2, metavar="OLD NEW", help="Compare templates, saved plans, or runs.")
@click.option("--packer", type=click.Path(path_type=Path, file_okay=False), metavar="FOLDER",
              help="Write the equivalent Packer template and what it needs into a new FOLDER.")  # fmt: skip
@click.option("--name", default="", help="The template's name: which of several, or what to call an unnamed one.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", callback=pairs, help="Fill <NAME>.")
@click.option("--param", "parameters", multiple=True, metavar="NAME=VALUE", callback=pairs, help="An ARM parameter.")
@click.option("--parameters", "files", multiple=True, type=click.Path(path_type=Path), help="An ARM parameter file.")
@click.option("--subscription", default="", help="Subscription id that the template counts as deployed to.")
@click.option("--resource-group", default="", help="Resource group that the template counts as deployed to.")
@click.option("--network", default="", metavar="user|isolated|NAME",
              help="QEMU's own network (the default), one that cannot reach this host, or a libvirt one.")  # fmt: skip
@click.option("--offline", is_flag=True, help="Use only what is stored already.")
@click.option("--strict-size", is_flag=True, help="Fail when this host has less than the vmSize asks for.")
@click.option(
    "--script-user", type=click.Choice(["root", "login"]), default="root", show_default=True,
    help="Who runs scripts that are given by URI.",
)  # fmt: skip
@click.option(
    "--fidelity", multiple=True, metavar="NAME=VALUE", callback=pairs,
    help="Another way of doing the same: upload=stdin|packer, powershell=service|script|try-catch (Windows).",
)  # fmt: skip
@click.option("--require-reboot", is_flag=True, help="Fail when a WindowsRestart restarts nothing.")
@click.option("--catalogue", default="", help="A catalogue file to lay over the built-in one.")
@click.option("--prepare", is_flag=True, help="Bring the source image in too, as a build would.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan (or the difference) as JSON.")
def command(template: Path | None, *, sides: tuple[str, str] | None, packer: Path | None, **given: Any) -> int:
    """Show what a build of TEMPLATE (a file, or - for standard input) would do: everything resolved, scripts fetched
    and checked, nothing booted.

    \b
    Two plans of the same inputs, catalogue and host are the same, but for the block of what varies from run to run.
    Exit codes: 0 planned; 2 the template is invalid; 3 this machine cannot; 4 an input is missing or wrong.
    """
    from hypervisor.deadline import Deadline
    from orchestrator.verbs.planned import Planner

    if (template is None) == (not sides):
        raise click.UsageError("name a TEMPLATE, or two sides with --diff OLD NEW")
    if sides and packer:
        raise click.UsageError("--packer needs a TEMPLATE, not --diff")
    as_json, prepare = given.pop("as_json"), given.pop("prepare") or packer is not None
    planner = Planner(
        _options(given),
        default_store(),
        Deadline.after(PLAN_TIME, "the time for planning"),
        lambda text: click.echo(text, err=True),
        prepare,
    )
    if sides:
        return _diff(planner, sides, as_json=as_json)
    assert template is not None
    return _plan(planner, template, packer, as_json=as_json)


def _options(given: dict[str, Any]) -> Any:
    from orchestrator.build.options import BuildOptions
    from orchestrator.template.parameter_file import read_parameters

    parameters: dict[str, Any] = {}
    for file in given.pop("files"):
        parameters |= read_parameters(file)
    return BuildOptions(**{**given, "parameters": parameters | given["parameters"]})


def _plan(planner: Any, template: Path, packer: Path | None, *, as_json: bool) -> int:
    from orchestrator.views import plan_text

    checked = planner.check(template)
    show(checked.loaded)
    if not checked.loaded.is_valid:
        return 2
    made = planner.plan(checked)
    if packer is not None:
        return _packer(made, packer)
    document = planner.document(made)
    if as_json:
        print_json(document)
        return 0
    for line in plan_text.render(document):
        click.echo(line)
    return 0


def _packer(made: Any, folder: Path) -> int:
    from orchestrator.verbs.packer import export

    exported = export(made, folder)
    for note in exported.notes:
        click.echo(f"note: {note}", err=True)
    click.echo(exported.verdict, err=True)
    click.echo(str(exported.template))
    return 0


def _diff(planner: Any, sides: tuple[str, str], *, as_json: bool) -> int:
    from orchestrator.views import plan_diff_text

    found = planner.diff(*sides)
    if as_json:
        print_json(found.to_json())
        return 0
    for line in plan_diff_text.render(found):
        click.echo(line)
    return 0
