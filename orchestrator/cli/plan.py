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
@click.argument("template", type=click.Path(path_type=Path))
@click.option("--name", default="", help="The template's name: which of several, or what to call an unnamed one.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", callback=pairs, help="Fill <NAME>.")
@click.option("--param", "parameters", multiple=True, metavar="NAME=VALUE", callback=pairs, help="An ARM parameter.")
@click.option("--subscription", default="", help="Subscription id that the template counts as deployed to.")
@click.option("--resource-group", default="", help="Resource group that the template counts as deployed to.")
@click.option("--network", default="", help="A libvirt network instead of user-mode networking.")
@click.option("--offline", is_flag=True, help="Use only what is stored already.")
@click.option("--strict-size", is_flag=True, help="Fail when this host has less than the vmSize asks for.")
@click.option(
    "--script-user", type=click.Choice(["root", "login"]), default="root", show_default=True,
    help="Who runs scripts that are given by URI.",
)  # fmt: skip
@click.option("--catalogue", default="", help="A catalogue file to lay over the built-in one.")
@click.option("--prepare", is_flag=True, help="Bring the source image in too, as a build would.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
def command(template: Path, *, prepare: bool, as_json: bool, **given: Any) -> int:
    """Show what a build of TEMPLATE would do: everything resolved, scripts fetched and checked, nothing booted.

    \b
    Exit codes: 0 planned; 2 the template is invalid; 3 this machine cannot; 4 an input is missing or wrong.
    """
    from hypervisor.deadline import Deadline
    from orchestrator.build.options import BuildOptions
    from orchestrator.plan.plan_json import to_json
    from orchestrator.verbs.build import check
    from orchestrator.verbs.plan import plan
    from orchestrator.views import plan_text

    options = BuildOptions(**given)
    checked = check(template, options)
    show(checked.loaded)
    if not checked.loaded.is_valid:
        return 2
    made = plan(
        checked.template(),
        template.absolute().parent,
        options,
        default_store(),
        deadline=Deadline.after(PLAN_TIME, "the time for planning"),
        say=lambda text: click.echo(text, err=True),
        prepare=prepare,
    )
    if as_json:
        print_json(to_json(made))
    else:
        for line in plan_text.render(made):
            click.echo(line)
    return 0
