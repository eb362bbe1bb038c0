"""`aib logs`."""

from __future__ import annotations

import sys

import click

from hypervisor.errors import UsageError
from orchestrator.cli.common import default_store


@click.command("logs")
@click.argument("run")
@click.option("-f", "--follow", is_flag=True, help="Go on until the run ends.")
@click.option("--step", default="", metavar="STEP", help="Only this step: its number (from 1) or its name.")
@click.option("--raw", is_flag=True, help="Exactly the bytes that the guest printed.")
@click.option("--json", "as_json", is_flag=True, help="The run's events, one JSON object a line.")
def command(run: str, *, follow: bool, step: str, raw: bool, as_json: bool) -> None:
    """Show what a run printed, in the shape of the service's customization.log.

    RUN is a run's id, the beginning of one, a template's name (its newest run), or `latest`.
    """
    from orchestrator.verbs import logs
    from orchestrator.verbs.runs import find_run
    from orchestrator.views.text import safe

    if raw and as_json:
        raise UsageError("--raw and --json exclude each other")
    folder = find_run(default_store(), run)
    index = logs.find_step(folder.path, step).index if step else None
    source = logs.raw_output if raw else logs.event_lines if as_json else logs.service_log
    out = sys.stdout.buffer
    harmless = raw or as_json or not sys.stdout.isatty()
    for data in source(folder, follow=follow, step=index):
        if harmless:
            out.write(data)
        else:
            lines = data.decode("utf-8", "backslashreplace").split("\n")
            out.write("\n".join(map(safe, lines)).encode("utf-8", "backslashreplace"))
        if follow:
            out.flush()
    out.flush()
