"""`aib gallery`: the galleries and image definitions that SharedImage distributors publish to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from orchestrator.cli.common import default_store, print_json
from orchestrator.record.arm_ids import DEFAULT_SCOPE, Scope
from orchestrator.record.resources import Resource

if TYPE_CHECKING:
    from orchestrator.verbs.gallery import GalleryView

_F = TypeVar("_F", bound=Callable[..., Any])


def _scoped(function: _F) -> _F:
    group = click.option("--resource-group", default=DEFAULT_SCOPE.resource_group, show_default=True)
    subscription = click.option("--subscription", default=DEFAULT_SCOPE.subscription, show_default=True)
    return group(subscription(function))


_if_missing = click.option("--if-missing", is_flag=True, help="Do nothing when it is there already.")
_json = click.option("--json", "as_json", is_flag=True, help="Print the resource as JSON.")


@click.group("gallery")
def command() -> None:
    """Compute galleries, image definitions and versions."""


@command.command("create")
@click.argument("name")
@click.option("--location", required=True, help='The region, such as westus2 or "West US 2".')
@_scoped
@_if_missing
@_json
def create(
    name: str, location: str, resource_group: str, subscription: str, *, if_missing: bool, as_json: bool
) -> None:
    """Create the gallery NAME in a region."""
    from orchestrator.verbs import gallery

    scope = Scope(subscription, resource_group)
    made = gallery.create(default_store(), name, location=location, scope=scope, if_missing=if_missing)
    _done("Gallery", made, as_json=as_json)


@command.command("define")
@click.argument("gallery")
@click.argument("definition")
@click.option("--os", type=click.Choice(["linux", "windows"], case_sensitive=False), required=True)
@click.option("--generation", type=click.Choice(["V1", "V2"], case_sensitive=False), required=True, help="Hyper-V's.")
@click.option("--publisher", default="aib", show_default=True)
@click.option("--offer", default="", help="The gallery's name by default.")
@click.option("--sku", default="", help="The definition's name by default.")
@_scoped
@_if_missing
@_json
def define(
    gallery: str,
    definition: str,
    resource_group: str,
    subscription: str,
    *,
    os: Literal["linux", "windows"],
    generation: Literal["V1", "V2"],
    publisher: str,
    offer: str,
    sku: str,
    if_missing: bool,
    as_json: bool,
) -> None:
    """Define the image DEFINITION in GALLERY: what kind of image its versions will be."""
    from orchestrator.verbs import gallery as verb

    made = verb.define(
        default_store(),
        gallery,
        definition,
        os=os,
        generation=generation,
        publisher=publisher,
        offer=offer,
        sku=sku,
        scope=Scope(subscription, resource_group),
        if_missing=if_missing,
    )
    _done("Image definition", made, as_json=as_json)


@command.command("list")
@_json
def list_(*, as_json: bool) -> None:
    """List all galleries with their definitions."""
    from orchestrator.verbs import gallery

    views = gallery.list_galleries(default_store())
    if as_json:
        print_json([_data(view) for view in views])
        return
    if not views:
        click.echo("There is no gallery: aib gallery create NAME --location REGION", err=True)
    for view in views:
        click.echo("\n".join(_lines(view, versions=False)))


@command.command("show")
@click.argument("gallery")
@_scoped
@_json
def show(gallery: str, resource_group: str, subscription: str, *, as_json: bool) -> None:
    """Show GALLERY with its definitions and their versions."""
    from orchestrator.verbs import gallery as verb

    view = verb.show(default_store(), gallery, Scope(subscription, resource_group))
    if as_json:
        print_json(_data(view))
    else:
        click.echo("\n".join(_lines(view, versions=True)))


@command.command("delete-version")
@click.argument("gallery")
@click.argument("definition")
@click.argument("version")
@_scoped
@_json
def delete_version(
    gallery: str, definition: str, version: str, resource_group: str, subscription: str, *, as_json: bool
) -> None:
    """Remove VERSION of DEFINITION in GALLERY; `aib gc` frees its disk."""
    from orchestrator.verbs import gallery as verb

    scope = Scope(subscription, resource_group)
    _done("Removed", verb.delete_version(default_store(), gallery, definition, version, scope), as_json=as_json)


def _done(what: str, resource: Resource, *, as_json: bool) -> None:
    if as_json:
        print_json(resource.to_json())
    else:
        click.echo(f"{what} {resource.id}", err=True)


def _data(view: GalleryView) -> dict[str, Any]:
    definitions = [{**d.to_json(), "versions": [v.to_json() for v in versions]} for d, versions in view.definitions]
    return {**view.gallery.to_json(), "images": definitions}


def _lines(view: GalleryView, *, versions: bool) -> Iterator[str]:
    group = view.gallery.id.split("/")[4]
    yield f"{view.gallery.name}  {view.gallery.location}  resource group {group}"
    for definition, found in view.definitions:
        kind = f"{definition.properties.get('osType')} {definition.properties.get('hyperVGeneration')}"
        yield f"  {definition.name}  {kind}  {len(found)} version{'' if len(found) == 1 else 's'}"
        for version in found if versions else ():
            notes = [str(version.properties.get("provisioningState", ""))]
            if version.properties.get("publishingProfile", {}).get("excludeFromLatest"):
                notes.append("excluded from latest")
            yield f"    {version.name}  {', '.join(notes)}"
