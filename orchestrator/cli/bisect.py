"""`aib bisect`."""

from __future__ import annotations

import click

from orchestrator.cli.common import default_store, print_json


@click.command("bisect")
@click.argument("run")
@click.option("--check", required=True, metavar="COMMAND", help="What must succeed in the build VM (exit code 0).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(run: str, check: str, *, as_json: bool) -> None:
    """Find the step of RUN after which a check fails for the first time."""
    from orchestrator.verbs.bisect import bisect

    found = bisect(default_store(), run, check, say=lambda text: click.echo(text, err=True))
    if as_json:
        tried = {str(index + 1): code for index, code in sorted(found.tried.items())}
        print_json({"step": found.index + 1, "name": found.step, "exitCodes": tried})
    else:
        click.echo(f"step {found.index + 1}: {found.step}")
