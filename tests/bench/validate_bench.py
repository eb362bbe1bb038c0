"""Measures `aib validate` beside `packer validate`, interleaved, and prints ratios.

    python tests/bench/validate_bench.py [--rounds 15] [--templates 1000] [--json FILE]

Wall-clock and CPU time are of the whole process, from its start to its end. The shell scripts' own checkers (sh -n,
ShellCheck) run once before measuring: their findings are cached by the digest of the script. Without Packer on the
PATH only aib is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import bench_templates

AIB = Path(sys.executable).with_name("aib")
LIMITS = {"one": 0.150, "many": 5.0}
"""Seconds, as the project promises them."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One process: wall and CPU seconds, peak memory in MiB."""

    wall: float
    cpu: float
    memory: float


def measure(argv: Sequence[str | Path], folder: Path, environment: dict[str, str]) -> Sample:
    """Runs one process to its end; it has to find the template good."""
    words = [str(word) for word in argv]
    quiet = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_WRONLY, 0) for fd in (1, 2)]
    before = time.perf_counter()
    pid = os.posix_spawn(words[0], words, environment, file_actions=quiet)
    _, status, used = os.wait4(pid, 0)
    wall = time.perf_counter() - before
    if os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit(f"{' '.join(words)} in {folder}: exit code {os.waitstatus_to_exitcode(status)}")
    return Sample(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def interleaved(
    commands: dict[str, Sequence[str | Path]], rounds: int, folder: Path, environment: dict[str, str]
) -> dict[str, list[Sample]]:
    """Each command once a round, so that a busy moment of the machine hits all of them; the first round is warm-up."""
    samples: dict[str, list[Sample]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, argv in commands.items():
            sample = measure(argv, folder, environment)
            if number:
                samples[name].append(sample)
    return samples


def row(name: str, samples: list[Sample], base: list[Sample] | None) -> dict[str, Any]:
    """Medians, the range, and the median of the pairwise ratios to `base`."""
    ratios = [own.wall / other.wall for own, other in zip(samples, base, strict=True)] if base else []
    return {
        "what": name,
        "n": len(samples),
        "wall_median": statistics.median(s.wall for s in samples),
        "wall_min": min(s.wall for s in samples),
        "wall_max": max(s.wall for s in samples),
        "cpu_median": statistics.median(s.cpu for s in samples),
        "memory_max": max(s.memory for s in samples),
        "ratio_to_packer": statistics.median(ratios) if ratios else None,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    lines = [
        "| what | n | wall median (min-max) ms | CPU ms | memory MiB | ratio to Packer |",
        "|---|---|---|---|---|---|",
    ]
    for r in rows:
        wall, low, high, cpu = (r[key] * 1000 for key in ("wall_median", "wall_min", "wall_max", "cpu_median"))
        ratio = f"{r['ratio_to_packer']:.2f}" if r["ratio_to_packer"] is not None else "-"
        times = f"{wall:.0f} ({low:.0f}-{high:.0f}) | {cpu:.0f}"
        lines.append(f"| {r['what']} | {r['n']} | {times} | {r['memory_max']:.0f} | {ratio} |")
    return "\n".join(lines)


def run(rounds: int, many: int, folder: Path) -> dict[str, Any]:
    """All measurements, in `folder`."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "AIB_HOME": str(folder / "home")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # as at a user's second start: compiled modules are kept
    one, crowd = folder / "one", folder / "many"
    for part in (one, crowd, crowd / "tenth"):
        part.mkdir(parents=True)
        bench_templates.write_files(part)
    (one / "template.json").write_text(bench_templates.deployment())
    (folder / "packer.json").write_text(bench_templates.packer(one))
    few = max(1, many // 10)
    for number in range(many):
        place = crowd / "tenth" if number < few else crowd
        (place / f"template-{number:04}.json").write_text(bench_templates.deployment(seed=number))

    commands: dict[str, Sequence[str | Path]] = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "aib validate, 24 customizers": [AIB, "validate", one / "template.json"],
    }
    packer = shutil.which("packer")
    if packer:
        commands["packer validate, 24 provisioners"] = [packer, "validate", folder / "packer.json"]
    samples = interleaved(commands, rounds, folder, environment)
    base = samples.get("packer validate, 24 provisioners")
    rows = [row(name, own, base) for name, own in samples.items()]

    # The scripts of many templates would each be checked once by ShellCheck: that is another program's time.
    quick = [AIB, "validate", "--no-shell-tools"]
    tenth = [measure([*quick, crowd / "tenth"], folder, environment) for _ in range(3)]
    whole = [measure([*quick, crowd], folder, environment) for _ in range(3)]
    for name, own in ((f"aib validate, {few} templates", tenth), (f"aib validate, {many} templates", whole)):
        rows.append(row(name, own, None))
    each = statistics.median(s.wall for s in whole) / many
    one_packer = statistics.median(s.wall for s in base) if base else None
    return {
        "machine": {"python": sys.version.split()[0], "cpus": os.cpu_count(), "load": os.getloadavg()[0]},
        "rows": rows,
        "seconds_per_template_of_many": each,
        "ratio_per_template_of_many": each / one_packer if one_packer else None,
        "memory_growth_mib": max(s.memory for s in whole) - max(s.memory for s in tenth),
        "within_limits": {
            "one": rows[1]["wall_median"] <= LIMITS["one"],
            "many": statistics.median(s.wall for s in whole) <= LIMITS["many"] * many / 1000,
        },
        "samples": {name: [asdict(s) for s in own] for name, own in samples.items()},
    }


def main() -> None:
    """Measure, print the table, write the JSON."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--rounds", type=int, default=15)
    options.add_argument("--templates", type=int, default=1000)
    options.add_argument("--json", type=Path, help="write every sample into this file")
    given = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="aib-bench-") as folder:
        result = run(given.rounds, given.templates, Path(folder))
    print(table(result["rows"]))
    each, ratio, growth = (
        result[key] for key in ("seconds_per_template_of_many", "ratio_per_template_of_many", "memory_growth_mib")
    )
    beside = f", {ratio:.3f} of one packer validate" if ratio else ""
    print(f"\nOf many templates one takes {each * 1000:.2f} ms{beside}; ten times as many take {growth:.0f} MiB more.")
    print(f"Limits kept: {result['within_limits']}")
    if given.json:
        given.json.write_text(json.dumps(result, indent=2) + "\n")
    else:
        print("\n" + json.dumps({key: value for key, value in result.items() if key != "samples"}, indent=2))


if __name__ == "__main__":
    main()
