"""`aib watch`."""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType

import click

from orchestrator.cli.common import default_store
from orchestrator.cli.validate import pairs, show


@click.command("watch")
@click.argument("template", type=click.Path(path_type=Path))
@click.option("--name", default="", help="The template's name: which of several, or what to call an unnamed one.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", callback=pairs, help="Fill <NAME>.")
@click.option("--param", "parameters", multiple=True, metavar="NAME=VALUE", callback=pairs, help="An ARM parameter.")
@click.option("--offline", is_flag=True, help="Use only what is stored already.")
@click.option("--whole", is_flag=True, help="Generalize and distribute as well, each time.")
def command(template: Path, *, name: str, settings: object, parameters: object, offline: bool, whole: bool) -> int:
    """Build TEMPLATE on every save, from the first step that changed.

    Failures leave the loop running. It stops after the last step unless --whole is given.
    """
    from hypervisor.deadline import CancelToken
    from orchestrator.build.options import BuildOptions
    from orchestrator.verbs.watch import CANCELLED, Watch
    from orchestrator.views.console import make_console

    options = BuildOptions.from_json({"name": name, "settings": settings, "parameters": parameters, "offline": offline})
    token = CancelToken()

    def stop(_number: int, _frame: FrameType | None) -> None:
        token.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    watch = Watch(
        template_file=template,
        options=options,
        store=default_store(),
        shower=lambda folder: make_console(folder.path),
        shown=lambda checked: show(checked.loaded),
        say=lambda text: click.echo(text, err=True),
        token=token,
        whole=whole,
    )
    for _ in watch.rounds():
        pass
    return CANCELLED
