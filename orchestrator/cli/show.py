"""`aib show`."""

from __future__ import annotations

import click

from orchestrator.cli.common import default_store, print_json


@click.command("show")
@click.argument("run")
@click.option("--json", "as_json", is_flag=True, help="The run's record as JSON.")
@click.option("--junit", "as_junit", is_flag=True, help="A JUnit report: one testcase per customizer and validator.")
def command(run: str, *, as_json: bool, as_junit: bool) -> None:
    """Show one run: how it went, step by step, and what came out.

    RUN is a run's id, the beginning of one, a template's name (its newest run), or `latest`.
    """
    from orchestrator.verbs.show import show

    shown = show(default_store(), run)
    if as_junit:
        from orchestrator.views.junit import junit

        click.echo(junit([("", shown.record, shown.folder.path)]), nl=False)
    elif as_json:
        print_json(shown.to_json())
    else:
        for line in shown.lines():
            click.echo(line)
