"""The field tables of `fields.json`, and which api-version knows what."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

DEFAULT_VERSION = "2024-02-01"
"""The version a template without `apiVersion` is judged by: the newest one that hand-written templates use."""
STRICT_SINCE = "2024-02-01"
"""From this version on names are case-sensitive and unknown fields are refused (NOTES, May 2024)."""
RESOURCE_TYPE = "Microsoft.VirtualMachineImages/imageTemplates"


@dataclass(frozen=True, slots=True)
class Field:
    """One field of an object; the keys of `fields.json` say what each attribute means."""

    name: str
    kind: str
    since: str = ""
    until: str = ""
    also: tuple[str, ...] = ()
    required: str = ""
    required_since: str = ""
    rule: str = "AIB071"
    enum: tuple[str, ...] = ()
    min: int | None = None
    max: int | None = None
    alias: str = ""
    renamed: str = ""
    ro: bool = False

    def is_in(self, version: str) -> bool:
        """Whether `version` knows this field."""
        return version in self.also or within(version, self.since, self.until)

    def is_required(self, version: str) -> bool:
        return bool(self.required) and (not self.required_since or not older(version, self.required_since))


@dataclass(frozen=True, slots=True)
class VariantType:
    """One value of a discriminator and the fields that come with it."""

    name: str
    fields: Mapping[str, Field]
    since: str = ""
    until: str = ""
    also: tuple[str, ...] = ()
    rule: str = "AIB010"
    lower_camel_until: str = ""

    def is_in(self, version: str) -> bool:
        return version in self.also or within(version, self.since, self.until)

    def spelling(self, version: str) -> str:
        """The discriminator as `version` spells it: the first preview began them in lower case."""
        if self.lower_camel_until and not older(self.lower_camel_until, version):
            return self.name[0].lower() + self.name[1:]
        return self.name


@dataclass(frozen=True, slots=True)
class Variant:
    """An object whose `discriminator` decides its fields; `what` is its name in messages."""

    discriminator: str
    what: str
    types: Mapping[str, VariantType]


@dataclass(frozen=True, slots=True)
class Tables:
    """All of `fields.json`."""

    versions: tuple[str, ...]
    objects: Mapping[str, Mapping[str, Field]]
    variants: Mapping[str, Variant]


@cache
def tables() -> Tables:
    """The tables, read once per process."""
    data = json.loads(Path(__file__).with_name("fields.json").read_text(encoding="utf-8"))
    return Tables(
        versions=tuple(data["versions"]),
        objects={name: _fields(fields) for name, fields in data["objects"].items()},
        variants={
            name: Variant(
                v["discriminator"], v["what"], {key: _variant_type(key, v, kind) for key, kind in v["types"].items()}
            )
            for name, v in data["variants"].items()
        },
    )


@cache
def regions() -> frozenset[str]:
    """Where image templates can live."""
    data = json.loads(Path(__file__).with_name("regions.json").read_text(encoding="utf-8"))
    return frozenset(data["regions"])


def _fields(data: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Field]:
    return {name: Field(name, **_tuples(attributes)) for name, attributes in data.items()}


def _variant_type(name: str, variant: Mapping[str, Any], data: Mapping[str, Any]) -> VariantType:
    own = {key: value for key, value in data.items() if key != "fields"}
    discriminator = variant["discriminator"]
    fields = {discriminator: Field(discriminator, "string"), **_fields(data["fields"])}
    return VariantType(name, fields, **_tuples(own))


def _tuples(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in attributes.items()}


@lru_cache(4096)
def older(version: str, than: str) -> bool:
    """Whether api-version `version` came before `than`: they begin with their date, and a preview precedes."""
    return _order(version) < _order(than)


def _order(version: str) -> tuple[str, bool]:
    return version[:10], not version.endswith("-preview")


@lru_cache(4096)
def within(version: str, since: str, until: str) -> bool:
    """Whether `version` lies between `since` and `until`, both included; empty means open."""
    return not (since and older(version, since)) and not (until and older(until, version))


def is_strict(version: str) -> bool:
    """Whether `version` is case-sensitive and refuses unknown fields."""
    return not older(version, STRICT_SINCE)


def nearest_version(version: str) -> str:
    """The known version an unknown one is judged by: the last before it, or the first of all."""
    known = tables().versions
    return max((v for v in known if not older(version, v)), key=_order, default=known[0])
