"""Bringing a platform image into the store from where the catalogue says it comes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hypervisor import bootstrap
from hypervisor.bootstrap import BootstrapRecipe
from hypervisor.deadline import Deadline
from hypervisor.errors import InputError
from orchestrator.plan import add_image, platform_images, pull
from orchestrator.plan.catalogue import BootstrapSource, CatalogueEntry, UrlSource, registered_only
from orchestrator.plan.platform_images import Urn
from orchestrator.plan.pull import Progress
from orchestrator.record import files, locks
from orchestrator.record.resources import Resource
from orchestrator.record.store import Store

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Obtaining:
    """What every way of bringing an image in needs. `progress` is told of downloads; without it `say` is."""

    store: Store
    deadline: Deadline
    say: Say
    progress: Progress | None = None


def newest_version(entry: CatalogueEntry, urn: Urn, deadline: Deadline) -> str:
    """Ask the entry's source what the newest version is; `InputError` or `HostError` when it cannot say."""
    match entry.source:
        case BootstrapSource() as source:
            return bootstrap.version(_recipe(source))
        case UrlSource() as source:
            return pull.releases(source, deadline)[-1].version
        case _:
            raise registered_only(entry, f"{urn}:latest")


def obtain(entry: CatalogueEntry, urn: Urn, version: str, how: Obtaining) -> Resource:
    """Bring `version` into the store under `urn`; when another process is at it, wait and take what it brought.

    Raises `InputError` (not offered, out of reach, wrong checksum, not a usable disk) or `HostError`.
    """
    with _alone(entry, version, how):
        if (resource := platform_images.stored_version(how.store, urn, version)) is not None:
            return resource
        match entry.source:
            case BootstrapSource() as source:
                origin = {"type": "bootstrap", "suite": source.suite, "version": version}
                fetch = _bootstrapping(source, urn, version, how)
            case UrlSource() as source:
                release = _offered(source, urn, version, how.deadline)
                origin = {"type": "url", "url": release.url, "version": version}
                fetch = _pulling(release, how)
            case _:
                raise registered_only(entry, f"{urn}:{version}")
        twin = platform_images.stored_with_origin(how.store, origin)
        if twin is not None:
            aib = platform_images.facts_of(twin)
            return platform_images.register(how.store, urn, version, aib, generation=entry.generation)
        return _store(fetch, origin, entry, urn, how)


Fetch = Callable[[Path, Path], Mapping[str, str]]
"""Puts a disk at the first path, using the second as a work folder; returns what to note about it."""


def _bootstrapping(source: BootstrapSource, urn: Urn, version: str, how: Obtaining) -> Fetch:
    recipe = _recipe(source)
    current = bootstrap.version(recipe)
    if version != current:
        raise InputError(
            f"{urn}:{version} is not stored, and the package sources of this machine make {current} now",
            hint=f"pin {urn}:{current}, or use `latest`",
        )

    def fetch(target: Path, work: Path) -> Mapping[str, str]:
        how.say(f"making {urn}:{version} from distribution packages: once, it takes a few minutes")
        bootstrap.bootstrap(recipe, target, work, how.deadline, how.say)
        return {}

    return fetch


def _recipe(source: BootstrapSource) -> BootstrapRecipe:
    return BootstrapRecipe(suite=source.suite)


def _offered(source: UrlSource, urn: Urn, version: str, deadline: Deadline) -> pull.Release:
    offered = pull.releases(source, deadline)
    for release in offered:
        if release.version == version:
            return release
    newest = ", ".join(release.version for release in offered[-3:])
    raise InputError(
        f"{urn}:{version} is not stored, and {source.index} does not offer it",
        hint=f"pin a version that it offers (the newest: {newest}), or use `latest`",
    )


def _pulling(release: pull.Release, how: Obtaining) -> Fetch:
    def fetch(target: Path, work: Path) -> Mapping[str, str]:
        checksum = pull.pull(release, how.store, target, deadline=how.deadline, say=how.say, progress=how.progress)
        return {"checksum": checksum}

    return fetch


def _store(fetch: Fetch, origin: Mapping[str, str], entry: CatalogueEntry, urn: Urn, how: Obtaining) -> Resource:
    with add_image.staging(how.store) as folder:
        work = folder / "work"
        work.mkdir()
        target = folder / "disk"
        notes = fetch(target, work)
        facts = add_image.examine(target, how.deadline, system=entry.os)
        layer = add_image.add_layer(how.store, target, facts, how.deadline, ours=True)
        aib = add_image.image_properties(layer, facts, {**origin, **notes})
        return platform_images.register(how.store, urn, origin["version"], aib, generation=entry.generation)


@contextmanager
def _alone(entry: CatalogueEntry, version: str, how: Obtaining) -> Iterator[None]:
    """Only one process brings the same image in; the others wait for it, as long as the deadline allows."""
    name = hashlib.sha256(f"{entry.name}:{version}".encode()).hexdigest()[:16]
    path = how.store.home / "locks" / f"obtain-{name}"
    with files.translating("locking", path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not locks.try_lock(descriptor, exclusive=True):
            how.say(f"another aib process is bringing in {entry.name} {version}: waiting for it")
            how.deadline.wait_until(
                lambda: locks.try_lock(descriptor, exclusive=True), f"waiting for {entry.name} {version}"
            )
        yield
    finally:
        os.close(descriptor)
