"""`aib build` of several templates or variants at once."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.common import default_store, print_json
from orchestrator.cli.told import Told, report
from orchestrator.cli.validate import show

if TYPE_CHECKING:
    from orchestrator.build.options import BuildOptions
    from orchestrator.verbs.build import Shower
    from orchestrator.views.many import LabelledScreen

NOT_STARTED = 130


def build_them(
    templates: Sequence[Path], matrix: Mapping[str, Sequence[str]], options: BuildOptions, jobs: int | None, told: Told
) -> int:
    """Check all, build all, tell all; the exit code that all failed ones share, else 1."""
    from orchestrator.record.record import load
    from orchestrator.verbs.build_many import build_all, check_all, collisions
    from orchestrator.views.many import make_consoles, overview

    if options.on_error == "ask" or options.ssh_port:
        raise click.UsageError("--on-error ask and --ssh-port are for one build")
    wanted = list(check_all(templates, matrix, options))
    for one in wanted:
        show(one.checked.loaded)
    if not all(one.checked.loaded.is_valid for one in wanted):
        return 2
    for each in collisions(wanted):
        click.echo(f"warning: {each}", err=True)
    labels = [one.label for one in wanted]
    showers = [_shower(screen, quiet=told.quiet) for screen in make_consoles(labels, sys.stderr)]
    ended = build_all(wanted, default_store(), showers, jobs)
    folders = [one.folder if one else None for one in ended]
    built = list(zip(labels, folders, strict=True))
    for line in ["", *overview([(label, load(at) if at else None, at) for label, at in built])]:
        click.echo(line, err=True)
    report([(label, at) for label, at in built if at], told)
    if told.as_json:
        from orchestrator.record.files import read_json

        print_json([read_json(at / "record.json") if at else None for at in folders])
    codes = {one.exit_code if one else NOT_STARTED for one in ended} - {0}
    return codes.pop() if len(codes) == 1 else int(bool(codes))


def _shower(screen: LabelledScreen, *, quiet: bool) -> Shower:
    from orchestrator.views.many import console

    return lambda folder: console(screen, folder.path, quiet=quiet)
