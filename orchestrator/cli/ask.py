"""`aib build --on-error ask`: what to do about a failed step, asked on the terminal."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from hypervisor.errors import AibError, BuildError

if TYPE_CHECKING:
    from orchestrator.build.options import BuildOptions
    from orchestrator.build.supervisor import Ended
    from orchestrator.record.store import Store

CHOICES = """\
  b  a shell as it was before this step
  a  a shell as the step left it
  c  continue behind this step, as if it had succeeded
  r  run again from this step, with the template and the scripts as they are now
  q  stop"""


def require_terminal() -> None:
    """Raise `UsageError` where nobody can answer."""
    if not sys.stdin.isatty():
        raise click.UsageError("--on-error ask needs a terminal; elsewhere use abort or cleanup")


def what_next(store: Store, ended: Ended, options: BuildOptions) -> BuildOptions | None:
    """Ask about the step that failed and give shells; the options to build again with, None to stop.

    Nothing is asked when the run did not fail in a step.
    """
    from orchestrator.build.visit import plan_of
    from orchestrator.record.record import load
    from orchestrator.record.runs import RunFolder

    if ended.exit_code != BuildError.exit_code:
        return None
    plan = plan_of(RunFolder(ended.folder))
    failed = [step for step in load(ended.folder).steps.values() if step.result == "failed"]
    failed = [step for step in failed if not plan.steps[step.index].excused]
    if not failed or failed[0].phase == "Generalizing":
        return None
    step = failed[0]
    click.echo(f"\n{step.name} failed. What now?\n{CHOICES}", err=True)
    while True:
        choice = click.prompt("b, a, c, r or q", type=click.Choice(list("bacrq")), err=True, show_choices=False)
        if choice == "q":
            return None
        if choice == "r":
            return options
        if choice == "c":
            return replace(options, excused=(*options.excused, plan.steps[step.index].digest))
        _shell(store, ended.run_id, str(step.index + 1), failed=choice == "a")


def _shell(store: Store, run: str, step: str, *, failed: bool) -> None:
    from orchestrator.verbs.shell import shell

    try:
        shell(
            store,
            run,
            step,
            "failed" if failed else "before",
            command="",
            output=lambda *_: None,
            say=lambda text: click.echo(text, err=True),
        )
    except AibError as error:  # the question is asked again: another answer may do
        click.echo(f"error: {error.message}", err=True)
