"""`aib runs`."""

from __future__ import annotations

import click

from orchestrator.cli.common import default_store, print_json


@click.command("runs")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def command(*, as_json: bool) -> None:
    """List the runs, the newest first."""
    from orchestrator.verbs.runs import list_runs
    from orchestrator.views.text import duration, safe, table

    runs = list_runs(default_store())
    if as_json:
        print_json([run.to_json() for run in runs])
        return
    if not runs:
        click.echo("There are no runs yet; `aib build TEMPLATE` makes one.", err=True)
        return
    rows = [
        (
            run.run_id,
            safe(run.template),
            f"{run.state} ({run.sub_state})" if run.alive else run.state,
            run.started[:19].replace("T", " "),
            duration(run.seconds),
        )
        for run in runs
    ]
    for line in table(("RUN", "TEMPLATE", "STATE", "STARTED (UTC)", "DURATION"), rows):
        click.echo(line)
