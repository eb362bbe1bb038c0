"""`aib serve`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.service.host.endpoint import PORT

if TYPE_CHECKING:
    from orchestrator.service.host.endpoint import Endpoint


@click.command("serve")
@click.option("--port", type=click.IntRange(0, 65535), default=PORT, show_default=True, help="0: a free one.")
@click.option("--http", is_flag=True, help="Plain HTTP; az and most SDKs sign in over HTTPS alone.")
@click.option("--listen", "address", default="127.0.0.1", show_default=True, metavar="ADDRESS",
              help="An address that others reach needs --token-file.")  # fmt: skip
@click.option("--name", "names", multiple=True, metavar="HOST", help="What other machines call this one.")
@click.option("--token-file", type=click.Path(path_type=Path, dir_okay=False),
              help="What clients must know to sign in; made when it is missing.")  # fmt: skip
@click.option("--in-memory", is_flag=True, help="Begin with nothing, and leave nothing.")
@click.option("--scripted", is_flag=True, help="Runs boot nothing: they follow scripts (for tests of clients).")
@click.option("--allow-local", "local_roots", multiple=True, metavar="FOLDER",
              type=click.Path(path_type=Path, exists=True, file_okay=False, resolve_path=True),
              help="Templates may take scripts and files from this folder.")  # fmt: skip
@click.option("--allow-private-fetch", "private_fetch", is_flag=True,
              help="Templates may name addresses of this machine and of private networks.")  # fmt: skip
@click.option("--allow-host-network", "host_network", is_flag=True,
              help="Build VMs may have a network from which they reach this machine.")  # fmt: skip
@click.option("--accel", type=click.Choice(["auto", "kvm", "tcg"]), default="auto", show_default=True)
@click.option("--connect", default="embed", show_default=True, help="embed, qemu:///session or qemu:///system.")
@click.option("--network", default="", help="A libvirt network for the build VMs.")
@click.option("--offline", is_flag=True, help="Builds use only what is stored already.")
@click.option("--no-cache", is_flag=True, help="Builds use and keep no checkpoints.")
@click.option("--catalogue", default="", help="A catalogue file to lay over the built-in one.")
@click.option("--requests", "show_requests", is_flag=True, help="Show each request.")
def command(
    *, port: int, http: bool, address: str, names: tuple[str, ...], token_file: Path | None, no_cache: bool,
    accel: Any, connect: str, network: str, offline: bool, catalogue: str, show_requests: bool, **allowed: Any,
) -> None:  # fmt: skip
    """Be the ARM endpoint of this machine: az, Azure's SDKs and a browser use it as they use the cloud.

    It works in the same store as the other commands. Builds go on when it ends. Ctrl-C ends it.
    """
    require_serve_extra()
    from orchestrator.build.options import BuildOptions
    from orchestrator.record.store import default_home
    from orchestrator.service.host.listen import Listen
    from orchestrator.service.host.server import serve
    from orchestrator.service.host.start import Wanted, prepared
    from orchestrator.service.settings import Settings

    build = BuildOptions(
        accel=accel, connect=connect, network=network, offline=offline, catalogue=catalogue, cache=not no_cache
    )
    wanted = Wanted(
        Settings(home=default_home(), build=build, **allowed),
        Listen(address, port, http, names),
        token_file,
        (lambda line: click.echo(line, err=True)) if show_requests else None,
    )
    with prepared(wanted) as (served, endpoint):
        serve(served, lambda: _tell(endpoint))
    click.echo("The server has ended.", err=True)


def require_serve_extra() -> None:
    """Raises `HostError` when this installation has no web server."""
    from importlib.util import find_spec

    from hypervisor.errors import HostError

    missing = [name for name in ("starlette", "uvicorn", "jinja2", "cryptography") if find_spec(name) is None]
    if missing:
        raise HostError(
            f"this installation of aib cannot serve: {', '.join(missing)} missing",
            hint="install the extras `build` and `serve`: pip install 'aib[build,serve]'",
        )


def _tell(endpoint: Endpoint) -> None:
    """What to do next, on stderr; the address alone on stdout."""
    from orchestrator.record.store import default_home
    from orchestrator.service.host.endpoint import ServeFolder

    ServeFolder(default_home()).tell(endpoint)
    click.echo(endpoint.url)
    lines = [
        f"Serving {'a store that ends with me' if endpoint.in_memory else default_home()} at {endpoint.url}",
        f"  a browser          {endpoint.url}/ui",
        *(["  the Azure CLI      aib az image builder list"] if endpoint.ca else []),
        '  SDKs and others    eval "$(aib env)"',
        *([f"  trust              {endpoint.ca}"] if endpoint.ca else []),
        f"Ctrl-C ends it; builds under way {'end with it' if endpoint.in_memory else 'go on'}.",
    ]
    click.echo("\n".join(lines), err=True)
