"""`aib env`."""

from __future__ import annotations

import click

from orchestrator.record.store import default_home
from orchestrator.service.host.environment import FORMATS


@click.command("env")
@click.option("--format", "form", type=click.Choice(list(FORMATS)), default="shell", show_default=True,
              help="github: for the file $GITHUB_ENV; pytest: a fixture for conftest.py.")  # fmt: skip
def command(*, form: str) -> None:
    """Print what other Azure clients need to use the running `aib serve`: eval "$(aib env)"."""
    from orchestrator.service.host.endpoint import ServeFolder
    from orchestrator.service.host.environment import variables

    click.echo(FORMATS[form](variables(ServeFolder(default_home()).running())), nl=False)
