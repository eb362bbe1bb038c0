"""Several templates, or one with several parameters, built at once as far as this machine carries them."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.build.at_once import Stops, Task, run_all
from orchestrator.build.options import BuildOptions
from orchestrator.build.requirements import require_build_extra
from orchestrator.build.slots import need_of
from orchestrator.build.supervisor import Ended
from orchestrator.plan.sizes import HostCapacity
from orchestrator.record.store import Store
from orchestrator.template.model import ManagedImageTarget
from orchestrator.verbs.build import Checked, Shower, build_one, check


@dataclass(frozen=True, slots=True)
class Wanted:
    """One of several builds; `label` tells it from the others."""

    label: str
    checked: Checked


def variants(
    templates: Sequence[Path], matrix: Mapping[str, Sequence[str]], options: BuildOptions
) -> Iterator[tuple[str, Path, BuildOptions]]:
    """Every template with every combination of the matrix: its label, file and options.

    A name of the matrix in angle brackets is a placeholder, another one a parameter of the deployment.
    """
    stems = Counter(path.stem for path in templates)
    for path in templates:
        stem = path.stem if stems[path.stem] == 1 else str(path)
        for values in itertools.product(*matrix.values()):
            cell = dict(zip(matrix, values, strict=True))
            settings = {name.strip("<>"): value for name, value in cell.items() if name.startswith("<")}
            parameters = {name: value for name, value in cell.items() if not name.startswith("<")}
            label = " ".join([stem, *(f"{name.strip('<>')}={value}" for name, value in cell.items())])
            yield (
                label,
                path,
                replace(
                    options,
                    settings={**options.settings, **settings},
                    parameters={**options.parameters, **parameters},
                ),
            )


def check_all(
    templates: Sequence[Path], matrix: Mapping[str, Sequence[str]], options: BuildOptions
) -> Iterator[Wanted]:
    """Read and judge every build before one of them starts."""
    for label, path, own in variants(templates, matrix, options):
        yield Wanted(label, check(path, own))


def collisions(wanted: Sequence[Wanted]) -> list[str]:
    """What several of the builds would write, in words: the one that ends last would stay."""
    templates = [(one.label, one.checked.template()) for one in wanted]
    found = []
    for what, names in (
        ("the runOutputs of template", [(label, template.name) for label, template in templates]),
        (
            "the managed image",
            [
                (label, target.image_id)
                for label, template in templates
                for target in template.distribute
                if isinstance(target, ManagedImageTarget)
            ],
        ),
    ):
        for name, count in Counter(name.lower() for _, name in names).items():
            if count > 1:
                who = ", ".join(label for label, each in names if each.lower() == name)
                found.append(f"{who}: all write {what} {name}; those of the build that ends last will stay")
    return found


def build_all(
    wanted: Sequence[Wanted], store: Store, showers: Sequence[Shower], jobs: int | None
) -> list[Ended | None]:
    """Run every build to its end, at most `jobs` at once; None for one that a signal kept from starting."""
    require_build_extra()
    host = HostCapacity.measured()
    return run_all([_task(one, store, shower, host) for one, shower in zip(wanted, showers, strict=True)], host, jobs)


def _task(one: Wanted, store: Store, shower: Shower, host: HostCapacity) -> Task[Ended]:
    need = need_of(one.checked.template(), host)

    def run(stops: Stops) -> Ended:
        return build_one(one.checked, store, shower, stops)

    return Task(need.vcpus, need.memory_mib, run)
