"""`aib cancel`."""

from __future__ import annotations

import click

from orchestrator.cli.common import default_store


@click.command("cancel")
@click.argument("run")
def command(run: str) -> None:
    """Stop RUN: its build VM is ended and nothing is distributed."""
    from orchestrator.verbs.cancel import cancel

    click.echo(f"cancelled {cancel(default_store(), run)}", err=True)
