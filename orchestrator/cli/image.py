"""`aib image`: the source images of this machine."""

from __future__ import annotations

import functools
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from orchestrator.cli.common import default_store, on_terminal, print_json

if TYPE_CHECKING:
    from hypervisor.deadline import Deadline
    from orchestrator.plan.catalogue import Catalogue
    from orchestrator.plan.pull import Progress
    from orchestrator.record.resources import Resource
    from orchestrator.record.store import Store

_HOURS = 4.0
_catalogue_option = click.option(
    "--catalogue",
    "catalogue_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Your own catalogue file, asked before the built-in one (default: AIB_HOME/catalogue.toml).",
)
_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
_hours_option = click.option(
    "--hours",
    type=click.FloatRange(min=0, min_open=True),
    default=_HOURS,
    show_default=True,
    help="Give up after this.",
)


@click.group("image")
def command() -> None:
    """Source images: what a template's `source` can name."""


@command.command("list")
@_catalogue_option
@_json_option
def list_command(catalogue_file: Path | None, as_json: bool) -> None:
    """List the stored images, and what the catalogue can bring in."""
    from orchestrator.verbs.image import stored_images

    store = default_store()
    stored, catalogue = stored_images(store), _catalogue(store, catalogue_file)
    if as_json:
        entries = [
            {"name": e.name, "urns": list(e.urns), "source": _source_type(e.source), "origin": e.origin}
            for e in catalogue.entries
        ]
        print_json({"stored": [image.to_json() for image in stored], "catalogue": entries})
        return
    for image in stored:
        size = f"{_mb(image.size)} of {image.virtual_size / (1 << 30):.1f} GiB" if image.size else "its disk is missing"
        where = f" in {image.location}" if image.location else ""
        click.echo(
            f"{image.name}\n    {image.os} {image.generation}{where}, {size}, {image.origin}, {image.digest[:12]}"
        )
    if not stored:
        click.echo("no image is stored yet", err=True)
    click.echo("\nThe catalogue knows:", err=True)
    for entry in catalogue.entries:
        click.echo(f"  {entry.name:20} {_source_type(entry.source):10} {', '.join(entry.urns)}", err=True)


def _source_type(source: object) -> str:
    return {"BootstrapSource": "bootstrap", "UrlSource": "pull"}.get(type(source).__name__, "import")


@command.command("import")
@click.argument("file", type=click.Path(path_type=Path, readable=False))  # why it cannot be read is ours to say
@click.option("--urn", default="", metavar="P:O:S:V", help="Register it as a platform image.")
@click.option("--managed-image-id", default="", metavar="ID", help="Register it as a managed image.")
@click.option("--gallery-version-id", default="", metavar="ID", help="Register it as a version of a gallery image.")
@click.option("--location", "locations", multiple=True, metavar="REGION", help="Region (repeatable for a version).")
@click.option("--os", "system", type=click.Choice(["linux", "windows"]), help="What is on it, if it does not show.")
@click.option("--generation", type=click.Choice(["V1", "V2"]), help="How it boots, if both ways or it does not show.")
@_hours_option
@_json_option
def import_command(
    *,
    file: Path,
    urn: str,
    managed_image_id: str,
    gallery_version_id: str,
    locations: tuple[str, ...],
    system: Literal["linux", "windows"] | None,
    generation: Literal["V1", "V2"] | None,
    hours: float,
    as_json: bool,
) -> None:
    """Copy a disk image (qcow2, raw, VHD, VHDX, VMDK) into the store under a name."""
    from orchestrator.verbs.image_import import ImportName, import_image

    name = ImportName(urn, managed_image_id, gallery_version_id, locations)
    resource = import_image(
        default_store(), file, name, deadline=_deadline(hours), system=system, generation=generation, say=_say
    )
    _show(resource, as_json)


@command.command("pull")
@click.argument("urn")
@_catalogue_option
@_hours_option
@_json_option
def pull_command(urn: str, catalogue_file: Path | None, hours: float, as_json: bool) -> None:
    """Download the public cloud image of a URN."""
    from orchestrator.verbs.image import pull_image

    store = default_store()
    catalogue = _catalogue(store, catalogue_file)
    resource = pull_image(store, catalogue, urn, deadline=_deadline(hours), say=_say, progress=_progress())
    _show(resource, as_json)


@command.command("bootstrap")
@click.argument("urn", default="Debian:debian-12:12")
@_catalogue_option
@_hours_option
@_json_option
def bootstrap_command(urn: str, catalogue_file: Path | None, hours: float, as_json: bool) -> None:
    """Make an image from distribution packages."""
    from orchestrator.verbs.image import bootstrap_image

    store = default_store()
    catalogue = _catalogue(store, catalogue_file)
    _show(bootstrap_image(store, catalogue, urn, deadline=_deadline(hours), say=_say), as_json)


@command.command("remove")
@click.argument("name")
def remove_command(name: str) -> None:
    """Remove a stored image: a URN with its version, or a resource id."""
    from orchestrator.verbs.image import remove_image

    freed = remove_image(default_store(), name)
    rest = f"{_mb(freed)} freed" if freed else "its disk is used by other images"
    click.echo(f"removed {name}; {rest}", err=True)


def _catalogue(store: Store, path: Path | None) -> Catalogue:
    from orchestrator.plan.catalogue import Catalogue

    return Catalogue.of(store.home, path)


def _deadline(hours: float) -> Deadline:
    """The budget, ended early by SIGTERM and SIGHUP: no program we run outlives us (Ctrl-C raises by itself)."""
    from hypervisor.deadline import CancelToken, Deadline

    token = CancelToken()
    for number in (signal.SIGTERM, signal.SIGHUP):
        before = signal.signal(number, lambda got, _: token.cancel(f"ended by {signal.Signals(got).name}"))
        click.get_current_context().call_on_close(functools.partial(signal.signal, number, before))
    return Deadline.after(hours * 3600, f"--hours {hours:g}", token)


def _say(text: str) -> None:
    click.echo(text, err=True)


def _progress() -> Progress | None:
    """A line that counts on a terminal; elsewhere None, and every tenth is said."""
    if not on_terminal():
        return None

    def progress(done: int, total: int | None) -> None:
        of = f" of {_mb(total)} ({done * 100 // total} %)" if total else ""
        click.echo(f"\r\x1b[K  {_mb(done)}{of}", nl=bool(total and done >= total), err=True)

    return progress


def _show(resource: Resource, as_json: bool) -> None:
    from orchestrator.plan.platform_images import PLATFORM_TYPE, facts_of, urn_of

    if as_json:
        print_json(resource.to_json())
        return
    facts = facts_of(resource)
    name = urn_of(resource) if resource.type == PLATFORM_TYPE else resource.id
    click.echo(name)
    click.echo(f"  {facts['os']} {facts['generation']}, sha256 {facts['digest']}", err=True)


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
