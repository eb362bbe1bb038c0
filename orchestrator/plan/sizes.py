"""vmSize: what a size name of Azure means, and how much of it this host can give.

A table (`sizes.toml`) for the sizes that follow no rule, Azure's naming rules for the rest. Look-up is not
case-sensitive, as in Azure.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal

from hypervisor.errors import HostError, TemplateError

Generation = Literal["V1", "V2"]

DEFAULT_GEN1 = "Standard_D1_v2"
DEFAULT_GEN2 = "Standard_D2ds_v4"
RESERVE_MIB = 1024
"""Memory that is left to the host."""
FLOOR_MIB = 512
"""Below this no general-purpose Linux distribution boots."""

_NAME = re.compile(
    r"Standard_(?P<family>[DEFBL])(?P<vcpus>\d+)(-(?P<constrained>\d+))?(?P<additions>[a-z]*?)(_v(?P<version>\d+))?",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Size:
    """One size: canonical name, vCPUs, memory in MiB, generations it can boot, number of GPUs."""

    name: str
    vcpus: int
    memory_mib: int
    generations: frozenset[Generation]
    gpus: int = 0


@dataclass(frozen=True, slots=True)
class HostCapacity:
    """What this host has: logical CPUs and total memory in MiB."""

    cpus: int
    memory_mib: int

    @classmethod
    def measured(cls) -> HostCapacity:
        """CPUs that this process may use, and memory, less where a control group allows less."""
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return cls(len(os.sched_getaffinity(0)), min(memory, _cgroup_limit() or memory) >> 20)


@dataclass(frozen=True, slots=True)
class Granted:
    """What a build VM gets of a size here; `warnings` say where that is not what was asked for."""

    vcpus: int
    memory_mib: int
    warnings: tuple[str, ...] = ()


def default_size(generation: Generation) -> str:
    """The service's default (S8: Standard_D1_v2; for Gen2 sources Standard_D2ds_v4, JSON)."""
    return DEFAULT_GEN1 if generation == "V1" else DEFAULT_GEN2


def find(name: str) -> Size:
    """The size called `name`; raises `TemplateError` with similar names when there is none."""
    size = _table().get(name.strip().lower()) or _by_rule(name.strip())
    if size is None:
        near = nearest(name)
        raise TemplateError(
            f"vmSize {name!r} is not a size that is known here",
            hint=(f"Did you mean {', '.join(near)}? " if near else "") + "Sizes look like Standard_D2s_v3.",
        )
    return size


def nearest(name: str, count: int = 4) -> list[str]:
    """Names of known sizes that look like `name`, the most similar first."""
    known = {key: size.name for key, size in _table().items()} | {each.lower(): each for each in _common_names()}
    return [known[key] for key in difflib.get_close_matches(name.lower(), known, n=count, cutoff=0.6)]


def grant(size: Size, host: HostCapacity, *, strict: bool) -> Granted:
    """As much of `size` as the host can give: at least 1 vCPU, at most the host's total less a reserve of memory.

    Raises `HostError` when `strict` and that is less than the size, or when a GPU is asked for (none is ever given).
    """
    available = max(FLOOR_MIB, host.memory_mib - RESERVE_MIB)
    vcpus = max(1, min(size.vcpus, host.cpus))
    memory = min(size.memory_mib, available)
    short = []
    if vcpus < size.vcpus:
        short.append(f"{vcpus} of {size.vcpus} vCPUs")
    if memory < size.memory_mib:
        short.append(f"{memory} of {size.memory_mib} MiB memory")
    if strict and (short or size.gpus):
        lacks = [*short, *([f"none of {size.gpus} GPUs"] if size.gpus else [])]
        raise HostError(
            f"this host cannot give {size.name}: only {', '.join(lacks)}",
            hint="Leave --strict-size out to build with less, or choose a smaller vmSize.",
        )
    warnings = [f"{size.name}: the build VM gets {' and '.join(short)}: this host has no more"] if short else []
    if size.gpus:
        warnings.append(f"{size.name}: there is no GPU in the build VM; drivers that need one may fail to install")
    return Granted(vcpus, memory, tuple(warnings))


@cache
def common() -> tuple[Size, ...]:
    """The sizes worth listing: the table, and of each rule the plain ones. By name."""
    made = (size for name in _common_names() if (size := _by_rule(name)) is not None)
    found = {size.name.lower(): size for size in (*made, *_table().values())}
    return tuple(found[name] for name in sorted(found))


@cache
def _data() -> Mapping[str, Any]:
    return tomllib.loads(resources.files("orchestrator.plan").joinpath("sizes.toml").read_text(encoding="utf-8"))


@cache
def _table() -> Mapping[str, Size]:
    return {
        name.lower(): Size(name, vcpus, memory, _generations(generations), gpus)
        for name, (vcpus, memory, generations, gpus) in _data()["sizes"].items()
    }


def _common_names() -> list[str]:
    """Names made by rule, for similarity only: the plain and the premium-storage one of each version."""
    return [
        f"Standard_{family[0]}{vcpus}{additions}" + ("" if version == "v1" else f"_{version}")
        for family, rule in _data()["families"].items()
        for version in rule["versions"]
        for vcpus in rule["vcpus"]
        for additions in ("", "s", "ds", "as", "ads")
        if set(additions) <= set(rule["additions"])
    ]


def _by_rule(name: str) -> Size | None:
    """Azure's naming: family, vCPUs, `-constrained`, additions (a AMD, d temp disk, l low memory, s premium), version.

    The first number decides the memory, the constrained one the vCPUs. Arm sizes (`p`) are no sizes for x86 images.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    family, version = match["family"].upper(), f"v{match['version'] or 1}"
    rules = _data()["families"]
    rule = rules.get(f"{family}_{version}") or rules[family]
    additions, vcpus = match["additions"].lower(), int(match["vcpus"])
    effective = int(match["constrained"] or vcpus)
    unique = len(set(additions)) == len(additions)
    if version not in rule["versions"] or vcpus not in rule["vcpus"] or not unique or not 1 <= effective <= vcpus:
        return None
    if not set(additions) <= set(rule["additions"]):
        return None
    by_addition = rule["mib_per_vcpu"]
    memory = vcpus * next((by_addition[letter] for letter in additions if letter in by_addition), by_addition[""])
    constrained = f"-{effective}" if match["constrained"] else ""
    suffix = "" if version == "v1" else f"_{version}"
    generations = _generations(rule["versions"][version]["s" in additions])
    return Size(f"Standard_{family}{vcpus}{constrained}{additions}{suffix}", effective, memory, generations)


def _generations(text: str) -> frozenset[Generation]:
    found: set[Generation] = set()
    if "1" in text:
        found.add("V1")
    if "2" in text:
        found.add("V2")
    return frozenset(found)


def _cgroup_limit() -> int | None:
    """Bytes of memory that the control group allows, or None."""
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            with open(path, encoding="ascii") as file:  # noqa: PTH123 -- a kernel interface, not a file of ours
                text = file.read().strip()
        except OSError:
            continue
        return int(text) if text.isdigit() else None
    return None
