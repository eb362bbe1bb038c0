"""Regions, resource providers and built-in roles, out of `azure.toml`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from orchestrator.template.schema.tables import tables

IMAGE_BUILDER = "Microsoft.VirtualMachineImages"


def regions() -> Mapping[str, tuple[str, str]]:
    """(display name, geography group) by the region's name."""
    return {name: (display, group) for name, (display, group) in _data()["regions"].items()}


def roles() -> Mapping[str, tuple[str, str]]:
    """(name, description) of each built-in role by its GUID."""
    return {guid: (name, what) for guid, (name, what) in _data()["roles"].items()}


@cache
def providers() -> Mapping[str, Mapping[str, tuple[str, ...]]]:
    """Api-versions, newest first, by namespace and type."""
    known = tuple(sorted(tables().versions, reverse=True))
    return {
        namespace: {kind: tuple(versions) or known for kind, versions in types.items()}
        for namespace, types in _data()["providers"].items()
    }


def namespace_of(name: str) -> str:
    """The canonical spelling of a provider's namespace; as given when it is not known."""
    return next((known for known in providers() if known.lower() == name.lower()), name)


@cache
def _spellings() -> Mapping[str, str]:
    return {
        f"{namespace}/{kind}".lower(): f"{namespace}/{kind}"
        for namespace, types in providers().items()
        for kind in types
    }


def type_of(name: str) -> str:
    """The canonical spelling of a resource type; as given when it is not known."""
    return _spellings().get(name.lower(), name)


@cache
def _data() -> Mapping[str, Any]:
    text = resources.files("orchestrator.service").joinpath("azure.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)
