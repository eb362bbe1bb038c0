"""`aib diff`."""

from __future__ import annotations

import click

from orchestrator.cli.common import default_store, print_json


@click.command("diff")
@click.argument("run")
@click.argument("step")
@click.option("--since", default="", metavar="STEP", help="Compare with the disk after this step instead.")
@click.option("--source", is_flag=True, help="Compare with the booted source image instead.")
@click.option("--against", default="", metavar="RUN", help="Compare with the same step of another run instead.")
@click.option("--all", "everything", is_flag=True, help="Also logs, caches and state, which every system changes.")
@click.option("--format", "form", type=click.Choice(["text", "json", "html"]), default="text", show_default=True)
def command(run: str, step: str, *, since: str, source: bool, against: str, everything: bool, form: str) -> None:
    """Show what STEP of RUN changed in the image: files, packages, users, services, schedules."""
    if sum(map(bool, (since, source, against))) > 1:
        raise click.UsageError("--since, --source and --against exclude each other")
    from orchestrator.verbs.diff import diff
    from orchestrator.views.changes_text import lines, page

    found = diff(
        default_store(),
        run,
        step,
        since=since,
        source=source,
        against=against,
        everything=everything,
        say=lambda text: click.echo(text, err=True),
    )
    if form == "json":
        print_json({"before": found.before, "after": found.after, **found.changes.to_json()})
    elif form == "html":
        click.echo(page(found.before, found.after, found.changes), nl=False)
    else:
        for line in lines(found.before, found.after, found.changes):
            click.echo(line)
