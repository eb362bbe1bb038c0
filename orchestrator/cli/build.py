"""`aib build`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.ask import require_terminal, what_next
from orchestrator.cli.common import absolute, default_store, print_json
from orchestrator.cli.told import Told, report
from orchestrator.cli.validate import pairs, show, values

if TYPE_CHECKING:
    from orchestrator.build.options import BuildOptions
    from orchestrator.verbs.build import Shower


@click.command("build")
@click.argument("templates", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--name", default="", help="The template's name: which of several, or what to call an unnamed one.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", callback=pairs, help="Fill <NAME>.")
@click.option("--param", "parameters", multiple=True, metavar="NAME=VALUE", callback=pairs, help="An ARM parameter.")
@click.option("--subscription", default="", help="Subscription id that the template counts as deployed to.")
@click.option("--resource-group", default="", help="Resource group that the template counts as deployed to.")
@click.option("--connect", default="embed", show_default=True, help="embed, qemu:///session or qemu:///system.")
@click.option("--accel", type=click.Choice(["auto", "kvm", "tcg"]), default="auto", show_default=True)
@click.option("--network", default="", metavar="user|isolated|NAME",
              help="QEMU's own network (the default), one that cannot reach this host, or a libvirt one.")  # fmt: skip
@click.option("--offline", is_flag=True, help="Use only what is stored already.")
@click.option("--strict-size", is_flag=True, help="Fail when this host has less than the vmSize asks for.")
@click.option(
    "--script-user", type=click.Choice(["root", "login"]), default="root", show_default=True,
    help="Who runs scripts that are given by URI.",
)  # fmt: skip
@click.option(
    "--fidelity", multiple=True, metavar="NAME=VALUE", callback=pairs,
    help="Another way of doing the same: upload=stdin|packer, powershell=service|script|try-catch (Windows).",
)  # fmt: skip
@click.option("--require-reboot", is_flag=True, help="Fail when a WindowsRestart restarts nothing.")
@click.option(
    "--on-error", type=click.Choice(["cleanup", "abort", "ask"]), default=None,
    help="What becomes of the build VM after a failure; overrules errorHandling. ask: choose on the terminal.",
)  # fmt: skip
@click.option("--no-cache", is_flag=True, help="Boot the source image and run every step; keep no checkpoints.")
@click.option("--from", "from_step", default="", metavar="STEP", help="Run this step (name or number) and the rest.")
@click.option("--until", "until_step", default="", metavar="STEP", help="Stop after this step; distribute nothing.")
@click.option("--max-age", metavar="DAYS", type=click.FloatRange(min=0), default=7.0, show_default=True,
              help="Use no checkpoint that holds an older step.")  # fmt: skip
@click.option("--ssh-port", type=click.IntRange(0, 65535), default=0, help="Host port of the VM's SSH (0: any).")
@click.option("--guest-user", default="", metavar="NAME", help="An account of a Windows image that listens on WinRM.")
@click.option(
    "--guest-password-file", default="", metavar="FILE", callback=absolute, help="Its password, alone in a file."
)
@click.option(
    "--winrm", type=click.Choice(["https", "http"]), default="https", show_default=True,
    help="How a Windows image that has --guest-user listens.",
)  # fmt: skip
@click.option(
    "--answer", type=click.Choice(["cd", "disk"]), default="cd", show_default=True,
    help="Where Windows finds its answer file: on a CD, or in its own disk as well.",
)  # fmt: skip
@click.option("--tpm", is_flag=True, help="Give a Windows build VM a TPM 2.0 (needs swtpm).")
@click.option("--catalogue", default="", help="A catalogue file to lay over the built-in one.")
@click.option(
    "--matrix", multiple=True, metavar="NAME=A,B", callback=values,
    help="Build with each value of a parameter, or of a '<placeholder>'; several give every combination.",
)  # fmt: skip
@click.option("--jobs", type=click.IntRange(min=1), default=None, help="Builds at a time (default: what fits).")
@click.option("--junit", type=click.Path(path_type=Path, dir_okay=False), help="Write a JUnit report of the builds.")
@click.option("--json", "as_json", is_flag=True, help="Print the run's record to stdout at the end.")
@click.option("--quiet", is_flag=True, help="Show nothing while the build runs.")
def command(
    templates: tuple[Path, ...], *, matrix: dict[str, list[str]], jobs: int | None, junit: Path | None, as_json: bool,
    quiet: bool, on_error: Any, no_cache: bool, max_age: float, **given: Any,
) -> int:  # fmt: skip
    """Build the images of TEMPLATES and distribute them, several at once as far as this machine carries them.

    \b
    Exit codes: 0 built; 1 failed, also in part; 2 the template is invalid; 3 this machine cannot;
    4 an input is missing or wrong; 124 buildTimeoutInMinutes is used up; 130 cancelled.
    """
    from orchestrator.build.options import BuildOptions

    options = BuildOptions(
        on_error=on_error or "",
        cache=not no_cache,
        max_age=max_age * 24 * 3600.0,
        **given,
    )
    told = Told(as_json=as_json, quiet=quiet, junit=junit)
    if len(templates) == 1 and not matrix:
        return _one(templates[0], options, told)
    from orchestrator.cli.build_many import build_them

    return build_them(templates, matrix, options, jobs, told)


def _one(template: Path, options: BuildOptions, told: Told) -> int:
    from orchestrator.verbs.build import build, check

    if options.on_error == "ask":
        require_terminal()
    store = default_store()
    while True:
        checked = check(template, options)
        show(checked.loaded)
        if not checked.loaded.is_valid:
            return 2
        ended = build(checked, store, _shower(quiet=told.quiet))
        again = what_next(store, ended, options) if options.on_error == "ask" else None
        if again is None:
            break
        options = again
    report([("", ended.folder)], told)
    if told.as_json:
        from orchestrator.record.files import read_json

        print_json(read_json(ended.folder / "record.json"))
    return ended.exit_code


def _shower(*, quiet: bool) -> Shower:
    from orchestrator.views.console import make_console

    return lambda folder: make_console(folder.path, quiet=quiet)
