"""`aib outputs`."""

from __future__ import annotations

import click

from orchestrator.cli.common import default_store, print_json


@click.command("outputs")
@click.argument("template")
@click.argument("name", default="")
@click.option("--az", "as_az", is_flag=True, help="The form that `az resource show` prints.")
@click.option("--json", "as_json", is_flag=True, help="No difference: the result is JSON always.")
def command(template: str, name: str, *, as_az: bool, as_json: bool) -> None:
    """Show the runOutputs of TEMPLATE (its name, resource id or file), or the one called NAME, as the service does."""
    from orchestrator.record.run_outputs import az_form, rest_form
    from orchestrator.verbs import outputs

    form = az_form if as_az else rest_form
    if name:
        print_json(outputs.output(default_store(), template, name, form))
    else:
        print_json(outputs.outputs(default_store(), template, form))
