"""`aib checkpoints`."""

from __future__ import annotations

import click

from orchestrator.cli.common import default_store, print_json


@click.group("checkpoints", invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(context: click.Context, *, as_json: bool) -> None:
    """List the states of build VMs that builds go on from; `remove` removes them."""
    if context.invoked_subcommand is not None:
        return
    from orchestrator.verbs.checkpoints import list_checkpoints
    from orchestrator.views.text import safe, size, table

    shown = list_checkpoints(default_store())
    if as_json:
        print_json([one.to_json() for one in shown])
        return
    rows = []
    for one in shown:
        after = safe(one.checkpoint.step) or "(the booted source image)"
        kept = "memory and disk" if one.checkpoint.memory else "disk only"
        rows.append((one.checkpoint.id, after, one.to_json()["created"], kept, size(one.size)))
    for line in table(("CHECKPOINT", "AFTER STEP", "TAKEN", "KEPT", "SIZE"), rows):
        click.echo(line)
    click.echo(f"{len(shown)} checkpoints, {size(sum(one.size for one in shown))}", err=True)


@command.command("remove")
@click.argument("checkpoints", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Remove all that nobody uses.")
def remove_command(checkpoints: tuple[str, ...], *, everything: bool) -> None:
    """Remove CHECKPOINTS and what rests on them."""
    if bool(checkpoints) == everything:
        raise click.UsageError("name checkpoints, or give --all")
    from orchestrator.verbs.checkpoints import remove
    from orchestrator.views.text import size

    for one in remove(default_store(), checkpoints):
        click.echo(f"{size(one.size):>10}  {one.checkpoint.id}", err=True)
