"""`aib build --on-error ask`: what to do about a failed step, asked on the terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from hypervisor.errors import AibError

if TYPE_CHECKING:
    from orchestrator.build.supervisor import Ended
    from orchestrator.record.store import Store

CHOICES = """\
  b  a shell as it was before this step
  a  a shell as the step left it
  r  run again from this step, with the template and the scripts as they are now
  q  stop"""


def require_terminal() -> None:
    """Raise `UsageError` where nobody can answer."""
    if not sys.stdin.isatty():
        raise click.UsageError("--on-error ask needs a terminal; elsewhere use abort or cleanup")


def wants_retry(store: Store, ended: Ended) -> bool:
    """Ask about the step that failed, give shells, and return whether to build again; False when no step failed."""
    from orchestrator.record.record import load

    failed = [step for step in load(ended.folder).steps.values() if step.result == "failed"]
    if ended.exit_code != 1 or not failed or failed[0].phase == "Generalizing":
        return False
    step = failed[0]
    click.echo(f"\n{step.name} failed. What now?\n{CHOICES}", err=True)
    while True:
        choice = click.prompt("b, a, r or q", type=click.Choice(["b", "a", "r", "q"]), err=True, show_choices=False)
        if choice in "rq":
            return bool(choice == "r")
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
