"""`aib shell`."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

import click

from orchestrator.cli.common import default_store

if TYPE_CHECKING:
    from provisioners.communicators.base import Stream


@click.command("shell", context_settings={"ignore_unknown_options": True})
@click.argument("run")
@click.option("--at", "step", required=True, metavar="STEP", help="The step's name or number.")
@click.option("--before", "moment", flag_value="before", default=True, help="As it was before the step (the default).")
@click.option("--after", "moment", flag_value="after", help="As it was after the step.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def command(run: str, step: str, moment: str, command: tuple[str, ...]) -> int:
    """Log in to the build VM of RUN as it was before or after a step, or run COMMAND there (after `--`).

    Whatever you do there is thrown away with the session. The exit code is the command's.
    """
    from orchestrator.verbs.shell import shell

    def output(stream: Stream, data: bytes) -> None:
        target = sys.stdout.buffer if stream == "stdout" else sys.stderr.buffer
        target.write(data)
        target.flush()

    line = command[0] if len(command) == 1 else shlex.join(command)
    return shell(
        default_store(),
        run,
        step,
        "after" if moment == "after" else "before",
        command=line,
        output=output,
        say=lambda text: click.echo(text, err=True),
    )
