"""`aib serve` as a whole: the folder, the certificates, the socket, the application, and the end of all of them."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from hypervisor.errors import AibError, UsageError
from orchestrator.record.store import Store
from orchestrator.service.app import create_app
from orchestrator.service.entra import TENANT
from orchestrator.service.host import certificates
from orchestrator.service.host.bundle import write_bundle
from orchestrator.service.host.endpoint import Endpoint, ServeFolder, write_secret
from orchestrator.service.host.listen import SHORTEST_TOKEN, Listen, bind, check
from orchestrator.service.host.requests_shown import showing
from orchestrator.service.host.server import Served
from orchestrator.service.settings import Settings
from orchestrator.verbs.cancel import cancel


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the owner asked for. `settings.home` is the AIB_HOME; `token_file` holds what clients must know.

    `show_request` gets a line for each request. `environment` tells which authorities this machine trusts.
    """

    settings: Settings
    listen: Listen = field(default_factory=Listen)
    token_file: Path | None = None
    show_request: Callable[[str], None] | None = None
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))


@contextlib.contextmanager
def prepared(wanted: Wanted) -> Iterator[tuple[Served, Endpoint]]:
    """Everything up to the first request; what the block serves is undone at its end.

    Raises `UsageError` for what must not be served, `HostError` for what this machine refuses or serves already.
    """
    check(wanted.listen, "token" if wanted.token_file else "")
    folder = ServeFolder(wanted.settings.home)
    with contextlib.ExitStack() as stack:
        stack.enter_context(folder.held())
        token = _token(wanted.token_file)
        names = wanted.listen.all_names
        made = None if wanted.listen.http else certificates.ensure(folder.path, names)
        listener = stack.enter_context(contextlib.closing(bind(wanted.listen)))
        endpoint = Endpoint(
            url=wanted.listen.url(listener.getsockname()[1]),
            ca=str(made.ca) if made else "",
            bundle=str(write_bundle(folder.path / "bundle.pem", made.ca, wanted.environment)) if made else "",
            subscription=wanted.settings.subscriptions[0],
            tenant=TENANT,
            token=token,
            in_memory=wanted.settings.in_memory,
        )
        settings = replace(
            wanted.settings,
            secret=token or None,
            hosts=(*wanted.settings.hosts, *names),
            token_key=folder.path / "entra.pem",
        )
        if settings.in_memory:
            settings = replace(settings, home=stack.enter_context(_throw_away(folder)))
        app = create_app(settings)
        shown = showing(app, wanted.show_request) if wanted.show_request else app
        yield Served(shown, listener, made, folder.path / "server.log"), endpoint


def _token(file: Path | None) -> str:
    """What the file holds; made when it is missing. Raises `UsageError` for a token that can be guessed."""
    if file is None:
        return ""
    if not file.exists():
        write_secret(file)
    token = file.read_text(errors="replace").strip()
    if len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable():
        raise UsageError(
            f"--token-file {file}: a token has at least {SHORTEST_TOKEN} printable ASCII characters",
            hint="remove the file to have one made",
        )
    return token


@contextlib.contextmanager
def _throw_away(folder: ServeFolder) -> Iterator[Path]:
    """A home for the time of the block; its runs are ended with it. What a killed server left goes first."""
    noted = folder.path / "throw-away"
    with contextlib.suppress(FileNotFoundError):
        _end(Path(noted.read_text()))
    home = Path(tempfile.mkdtemp(prefix="aib-"))
    noted.write_text(str(home))
    try:
        yield home
    finally:
        _end(home)
        noted.unlink(missing_ok=True)


def _end(home: Path) -> None:
    """Cancel the runs of a throw-away home, and remove it."""
    if not (home / "runs").is_dir():
        return
    store = Store(home)
    for run in store.runs():
        if run.alive():
            with contextlib.suppress(AibError):  # it ended by itself meanwhile
                cancel(store, run.id)
    shutil.rmtree(home, ignore_errors=True)
