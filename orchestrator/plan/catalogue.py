"""The catalogue: which URN of a template is which image here. Built-in entries, overlaid by the user's."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from hypervisor.errors import InputError, UsageError

_SCHEMA = 1
_IMPORT_HINT = "import your own copy: aib image import FILE --urn {urn}"
_FIELDS = {
    "bootstrap": ("suite",),
    "url": ("index", "release", "version", "file", "sums"),
    "registered": ("reason",),
}


@dataclass(frozen=True, slots=True)
class BootstrapSource:
    """Made on this machine from the packages of a distribution's `suite`."""

    suite: str


@dataclass(frozen=True, slots=True)
class UrlSource:
    """Downloaded. `index` names the releases, `release` recognizes one; the rest is made from that name's groups."""

    index: str
    release: re.Pattern[str]
    version: str
    file: str
    sums: str


@dataclass(frozen=True, slots=True)
class RegisteredSource:
    """Nothing to fetch: the user imports it; `reason` says why."""

    reason: str


ImageSource = BootstrapSource | UrlSource | RegisteredSource


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """One image and the URN patterns (`publisher:offer:sku`) under which templates know it.

    `generation` says how these SKUs boot where the image can do both and the SKU's name does not say it.
    """

    name: str
    urns: tuple[str, ...]
    source: ImageSource
    os: Literal["linux", "windows"] = "linux"
    generation: Literal["", "V1", "V2"] = ""
    origin: str = "built-in"

    def matches(self, publisher: str, offer: str, sku: str) -> bool:
        """Whether the URN is one of this entry's."""
        wanted = (publisher.lower(), offer.lower(), sku.lower())
        return any(all(map(fnmatchcase, wanted, urn.lower().split(":"))) for urn in self.urns)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Entries in the order in which they are asked."""

    entries: tuple[CatalogueEntry, ...]

    @classmethod
    def load(cls, user_file: Path | None = None) -> Catalogue:
        """The built-in entries behind those of `user_file`; raises `UsageError` for a file that is wrong."""
        packaged = files("orchestrator.plan").joinpath("catalogue.toml").read_text(encoding="utf-8")
        own: tuple[CatalogueEntry, ...] = ()
        if user_file is not None:
            try:
                own = _parse(user_file.read_text(encoding="utf-8"), str(user_file))
            except (OSError, UnicodeDecodeError) as error:
                raise UsageError(f"the catalogue {user_file} cannot be read: {error}") from error
        return cls(own + _parse(packaged, "built-in"))

    @classmethod
    def of(cls, home: Path, user_file: Path | None = None) -> Catalogue:
        """The catalogue of a store: `user_file`, else `home`/catalogue.toml if it is there, over the built-in one."""
        default = home / "catalogue.toml"
        return cls.load(user_file or (default if default.exists() else None))

    def find(self, publisher: str, offer: str, sku: str) -> CatalogueEntry | None:
        """The first entry that matches."""
        return next((entry for entry in self.entries if entry.matches(publisher, offer, sku)), None)

    def near(self, publisher: str, offer: str, sku: str, also: tuple[str, ...] = ()) -> list[str]:
        """Known `publisher:offer:sku` names (of the catalogue, and `also`) that look like the one asked for."""
        patterns = (urn for entry in self.entries for urn in entry.urns)
        known = {urn.lower(): urn for urn in (*patterns, *also) if not urn.startswith("*")}
        wanted = f"{publisher}:{offer}:{sku}".lower()
        return [known[name] for name in difflib.get_close_matches(wanted, known, n=4, cutoff=0.55)]

    def unknown(self, publisher: str, offer: str, sku: str, also: tuple[str, ...] = ()) -> InputError:
        """The error for a URN that nothing here knows."""
        urn = f"{publisher}:{offer}:{sku}"
        near = self.near(publisher, offer, sku, also)
        similar = f"; similar ones are {', '.join(near)}" if near else ""
        hint = _IMPORT_HINT.format(urn=f"{urn}:<version>")
        return InputError(f"no source image is known for {urn}{similar}", hint=f"`aib image list` shows all; or {hint}")


def registered_only(entry: CatalogueEntry, urn: str) -> InputError:
    """The error for an image that only the user can bring in."""
    reason = entry.source.reason if isinstance(entry.source, RegisteredSource) else "it is not stored"
    exact = f"{urn.rpartition(':')[0]}:<version>" if urn.lower().endswith(":latest") else urn
    return InputError(f"the source image {urn} is not stored here, and {reason}", hint=_IMPORT_HINT.format(urn=exact))


def _parse(text: str, origin: str) -> tuple[CatalogueEntry, ...]:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"the catalogue {origin} is not TOML: {error}") from error
    if document.get("schema") != _SCHEMA:
        raise UsageError(f"the catalogue {origin} says schema {document.get('schema')!r}; {_SCHEMA} is known")
    images = document.get("image", [])
    if not isinstance(images, list) or not all(isinstance(image, dict) for image in images):
        raise UsageError(f"the catalogue {origin}: images are written as [[image]] tables")
    return tuple(_entry(image, origin) for image in images)


def _entry(image: Mapping[str, Any], origin: str) -> CatalogueEntry:
    name = image.get("name")
    where = f"the catalogue {origin}, image {name!r}"
    urns, system, source = image.get("urns"), image.get("os", "linux"), image.get("source")
    generation = image.get("generation", "")
    if unknown := set(image) - {"name", "urns", "os", "generation", "source"}:
        raise UsageError(f"{where}: unknown keys {', '.join(sorted(unknown))}")
    if not isinstance(name, str) or not name:
        raise UsageError(f"{where}: `name` is missing")
    if not isinstance(urns, list) or not urns or not all(isinstance(u, str) and u.count(":") == 2 for u in urns):
        raise UsageError(f"{where}: `urns` must be a list of publisher:offer:sku patterns")
    if system not in ("linux", "windows"):
        raise UsageError(f"{where}: `os` must be linux or windows, not {system!r}")
    if generation not in ("", "V1", "V2"):
        raise UsageError(f"{where}: `generation` must be V1 or V2, not {generation!r}")
    if not isinstance(source, dict) or source.get("type") not in _FIELDS:
        raise UsageError(f"{where}: `source.type` must be one of {', '.join(_FIELDS)}")
    return CatalogueEntry(name, tuple(urns), _source(source, where), system, generation, origin)


def _source(source: Mapping[str, Any], where: str) -> ImageSource:
    fields = _FIELDS[source["type"]]
    if wrong := set(source) ^ {"type", *fields}:
        raise UsageError(f"{where}: a {source['type']} source has the keys {', '.join(fields)}; wrong: {sorted(wrong)}")
    if not all(isinstance(source[field], str) and source[field] for field in fields):
        raise UsageError(f"{where}: the keys of `source` must be texts")
    match source["type"]:
        case "bootstrap":
            return BootstrapSource(source["suite"])
        case "registered":
            return RegisteredSource(source["reason"])
        case _:
            return _url_source(source, where)


def _url_source(source: Mapping[str, Any], where: str) -> UrlSource:
    """Try the templates once, so that a slip shows now and not in a build."""
    if not source["index"].startswith(("https://", "http://")):
        raise UsageError(f"{where}: `index` must be an http(s) address")
    try:
        release = re.compile(source["release"])
        example = dict.fromkeys(release.groupindex, "0")
        for field in ("version", "file", "sums"):
            source[field].format(release="x", **example)
    except (re.error, KeyError, IndexError, ValueError) as error:
        raise UsageError(f"{where}: `release` and the templates made from it do not fit: {error}") from error
    return UrlSource(source["index"], release, source["version"], source["file"], source["sums"])
