"""`aib az`."""

from __future__ import annotations

import click

from orchestrator.record.store import default_home


@click.command("az", context_settings={"ignore_unknown_options": True, "help_option_names": ["--aib-help"]})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(arguments: tuple[str, ...]) -> None:
    """Run your Azure CLI against the running `aib serve`: aib az image builder run -n NAME -g GROUP.

    It gets a configuration folder of its own, so that your sign-in to the cloud stays as it is. The exit code is az's.
    """
    from orchestrator.service.host import az
    from orchestrator.service.host.endpoint import ServeFolder

    folder = ServeFolder(default_home())
    program = az.prepare(folder, folder.running(), lambda text: click.echo(text, err=True))
    az.become(program, arguments)
