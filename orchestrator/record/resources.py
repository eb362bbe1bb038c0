"""Resources: everything with a name, ARM-shaped. One JSON file each is the truth."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hypervisor.errors import HostError, InputError, UsageError
from orchestrator.record import files

_FILE = "resource.json"
_LONGEST_NAME = 255
_LONGEST_PATH = 4000
"""Bytes; a file beside it, while it is written, has a longer name."""
_OWN = frozenset({"id", "name", "type", "location", "tags", "properties"})


class ResourceExists(UsageError):
    """A resource of this id is there already; `resource_id` names it."""

    def __init__(self, resource_id: str) -> None:
        super().__init__(f"{resource_id} exists already", hint="choose another name, or remove the existing one")
        self.resource_id = resource_id


@dataclass(frozen=True, slots=True)
class Resource:
    """An ARM resource. Ids are case-insensitive; the spelling of the last writer is kept.

    Image-like resources carry `properties["aib"]` with digest, format, virtualSize (bytes), os, generation, source.
    """

    id: str
    type: str
    name: str
    location: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    properties: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    """The other members of its ARM envelope: identity, kind, sku, plan, zones, managedBy, systemData."""

    @property
    def digest(self) -> str:
        """SHA-256 of the layer that holds this image, or "" when the resource is not an image."""
        aib = self.properties.get("aib")
        return str(aib.get("digest", "")) if isinstance(aib, Mapping) else ""

    def to_json(self) -> dict[str, Any]:
        """The object its file holds, in the order ARM prints it."""
        return {
            "id": self.id,
            "name": self.name,
            "type": self.type,
            "location": self.location,
            **{key: value for key, value in self.extra.items() if key not in _OWN},
            "tags": dict(self.tags),
            "properties": dict(self.properties),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Resource:
        """The inverse of `to_json`; `KeyError` when it is no resource."""
        return cls(
            id=value["id"],
            type=value["type"],
            name=value["name"],
            location=value.get("location", ""),
            tags=value.get("tags") or {},
            properties=value.get("properties") or {},
            extra={key: member for key, member in value.items() if key not in _OWN},
        )


def resource_key(resource_id: str) -> str:
    """The form in which two ids of one resource are equal: lower case, one leading slash, none at the end."""
    return "/" + "/".join(part for part in resource_id.lower().split("/") if part)


def _too_long(path: Path) -> bool:
    """Whether a file system takes no such name (names outside ASCII are up to twelve times as long on it)."""
    whole = os.fsencode(path)
    return len(whole) > _LONGEST_PATH or any(len(part) > _LONGEST_NAME for part in whole.split(b"/"))


class ResourceFiles:
    """The folder of resource files: `<lower-case segments of the id>/resource.json`. Writers exclude each other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, resource_id: str) -> Path:
        """Where the resource of this id is kept; a segment can never lead out of the folder."""
        parts = [quote(part, safe="") for part in resource_key(resource_id).split("/")[1:]]
        parts = [part.replace(".", "%2e") if part.strip(".") == "" or part == _FILE else part for part in parts]
        return self.folder.joinpath(*parts, _FILE)

    def read(self, resource_id: str) -> Resource | None:
        """The resource, or None: also for an id that no resource can have because it is too long."""
        target = self.path(resource_id)
        return None if _too_long(target) else self._read(target)

    def write(self, resource: Resource) -> None:
        """Publish the resource; `InputError` when its id is too long."""
        target = self.path(resource.id)
        if _too_long(target):
            raise InputError(f"the resource id is too long: {resource.id[:200]}", hint="choose shorter names")
        with files.translating("creating", target.parent):
            self._make_folder(target.parent)
        files.publish_json(target, resource.to_json())

    def remove(self, resource_id: str) -> bool:
        """Remove the resource and the folders that this leaves empty; false when there was none."""
        target = self.path(resource_id)
        if _too_long(target):
            return False
        with files.translating("removing", target):
            try:
                target.unlink()
            except (FileNotFoundError, NotADirectoryError):
                return False
            files.sync_folder(target.parent)
            with suppress(OSError):  # the first folder that is not empty ends the walk
                for folder in target.parents:
                    if folder == self.folder:
                        break
                    folder.rmdir()
        return True

    def all(self) -> Iterator[Resource]:
        """Every resource; `HostError` when a file is damaged."""
        for path in files.walk(self.folder):
            if path.name == _FILE and (resource := self._read(path)) is not None:
                yield resource

    def readable(self) -> Iterator[Resource]:
        """Every resource whose file is not damaged."""
        for path in files.walk(self.folder):
            with suppress(HostError):
                if path.name == _FILE and (resource := self._read(path)) is not None:
                    yield resource

    def sweep(self) -> int:
        """Remove what writers left unfinished; the caller excludes other writers. Returns the number of files."""
        debris = [path for path in files.walk(self.folder) if path.name.startswith(files.PARTIAL)]
        for path in debris:
            path.unlink(missing_ok=True)
        return len(debris)

    def _make_folder(self, folder: Path) -> None:
        missing = [f for f in (folder, *folder.parents) if not f.exists()]
        for new in reversed(missing):
            new.mkdir(mode=0o700, exist_ok=True)
            files.sync_folder(new.parent)

    @staticmethod
    def _read(path: Path) -> Resource | None:
        value = files.read_json(path)
        if value is None:
            return None
        try:
            return Resource.from_json(value)
        except KeyError as error:
            raise HostError(f"{path} is damaged: no {error}", hint="restore it from a backup or remove it") from error
