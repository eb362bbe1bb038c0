"""`aib`: parse arguments, call a verb, render, exit. The one place that turns errors into text and exit codes."""

from __future__ import annotations

import gc
import importlib
import io
import os
import sys
from pathlib import Path

import click

from hypervisor.errors import AibError

VERBS = {
    "validate": "Check templates before anything boots or is submitted.",
    "plan": "Show what would run, resolved.",
    "build": "Build the image of a template.",
    "watch": "Build on every save, from the first step that changed.",
    "runs": "List the runs.",
    "show": "Show one run.",
    "logs": "Show what a run printed; -f follows it.",
    "outputs": "Show the runOutputs of a template.",
    "cancel": "Stop a run.",
    "shell": "Log in to a build VM as it was before or after a step.",
    "diff": "Show what a step changed in the image.",
    "bisect": "Find the step after which a check fails.",
    "checkpoints": "The states that builds go on from: list, remove.",
    "image": "Source images: list, import, pull, bootstrap, remove.",
    "gallery": "Compute galleries and image definitions.",
    "doctor": "Can this machine build? What to install.",
    "gc": "Reclaim space.",
    "serve": "Be the ARM endpoint that az and Azure's SDKs use.",
    "az": "Your Azure CLI, against aib serve.",
    "env": "What other Azure clients need to use aib serve.",
    "explain": "Explain a rule or the deviations from the service.",
}
"""Verb -> one line of help. The module `orchestrator.cli.<verb>` is imported only when the verb is called."""


class LazyGroup(click.Group):
    """A group that imports a verb's module only when that verb is used, so that `aib validate` stays quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All verbs, in the order of the help."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return the command of `cmd_name`; None when there is no such verb."""
        if cmd_name not in VERBS:
            return None
        command = importlib.import_module(f"orchestrator.cli.{cmd_name}").command
        if not isinstance(command, click.Command):
            raise TypeError(f"orchestrator.cli.{cmd_name} exports no command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="aib", prog_name="aib")
def aib() -> None:
    """Run Azure VM Image Builder templates on this machine."""


def show_error(error: AibError) -> None:
    """Tell the user what failed and what to do, on stderr."""
    click.echo(f"error: {error.message}", err=True)
    if error.hint:
        click.echo(f"  {error.hint}", err=True)


def keep_traceback() -> Path:
    """Write the current traceback to a private file and return its path; our bugs never spill over a terminal."""
    import tempfile  # no run without a bug pays for these
    import traceback

    handle, name = tempfile.mkstemp(prefix="aib-traceback-", suffix=".txt")
    with os.fdopen(handle, "w") as file:
        file.write(traceback.format_exc())
    return Path(name)


def main() -> None:
    """Run the command line; every expected failure becomes one message and its exit code."""
    # A template is a tree of many small objects that all live until it is judged: by default Python's search for
    # unreachable ones takes up to two thirds of the time, and finds nothing.
    gc.set_threshold(50_000, 20, 20)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # File names need not be text, nor a terminal's encoding UTF-8: show such characters escaped (stderr does).
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = aib.main(standalone_mode=False)
    except click.UsageError as error:
        error.show()
        sys.exit(64)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("cancelled", err=True)
        sys.exit(130)
    except AibError as error:
        show_error(error)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # Whoever read our output has gone (`aib logs | head`): not an error; the interpreter must not flush again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:  # noqa: BLE001 -- the last door: everything that gets here is a bug of ours
        click.echo(f"aib failed unexpectedly ({type(error).__name__}: {error}). This is a bug in aib.", err=True)
        click.echo(f"  The details are in {keep_traceback()}; please report them.", err=True)
        sys.exit(70)
    sys.exit(code if isinstance(code, int) else 0)
