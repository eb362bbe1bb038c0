"""Times builds beside Debian's Packer: the same source image, template and acceleration, interleaved.

    python tests/bench/build_bench.py [--pairs 5] [--cases cold,warm] [--out FOLDER] [--readme README.md]

Writes build.json and build.md into FOLDER. Cases that are not measured now keep what they had there. With `--readme`
the table also replaces what stands between the two marks in that file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cases import CASES, Case, Goal, Series
from lab import STEPS, Lab

BEGIN, END = "<!-- the last `make bench` -->", "<!-- end of it -->"
NAMES = [case.name for case in CASES]


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--cases", default="", help=f"of {','.join(NAMES)}; all when empty")
    parser.add_argument("--out", type=Path, default=Path("build/bench"))
    parser.add_argument("--readme", type=Path)
    given = parser.parse_args()
    wanted = given.cases.split(",") if given.cases else NAMES
    if unknown := set(wanted) - set(NAMES):
        parser.error(f"no such case: {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    out = given.out.absolute()
    lab = Lab(out / "work")
    chosen = [case for case in CASES if case.name in wanted]
    if any(case.guest for case in chosen):
        print("preparing: source image and caches", file=sys.stderr)
        lab.aib("build", lab.template("warm-up", STEPS[:1]), "--no-cache")
    for case in chosen:
        save(out, case, measured(lab, case, given.pairs))
        lab.tidy()
    table = markdown(load(out))
    (out / "build.md").write_text(table)
    if given.readme:
        put(table, given.readme)
    print(table)


def measured(lab: Lab, case: Case, rounds: int) -> dict[str, Any]:
    """A case with its values, round by round."""
    series = Series()
    values: dict[str, list[float]] = {}
    for number, found in enumerate(case.measure(lab, rounds, series), start=1):
        for key, value in found.items():
            values.setdefault(key, []).append(round(value, 4))
        shown = ", ".join(f"{key} {value:.3f}" for key, value in found.items())
        print(f"{case.name} {number}/{rounds}: {shown}", file=sys.stderr)
    return {
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "rounds": rounds,
        "values": values,
        "series": series.values,
    }


def load(out: Path) -> dict[str, Any]:
    """What was measured before, by case."""
    path = out / "build.json"
    loaded: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return loaded if set(loaded) <= set(NAMES) else {}


def save(out: Path, case: Case, result: dict[str, Any]) -> None:
    """Put one case into the file: a bench that is stopped keeps what it has."""
    (out / "build.json").write_text(json.dumps({**load(out), case.name: result}, indent=1) + "\n")


def machine() -> dict[str, str]:
    """Where this was measured."""
    packer = subprocess.run(["packer", "version"], check=True, capture_output=True, text=True).stdout.split()[1]
    qemu = subprocess.run(["qemu-system-x86_64", "--version"], check=True, capture_output=True, text=True).stdout
    models = [line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "name" in line]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return {
        "processors": f"{os.cpu_count()} x {models[0] if models else platform.machine()}",
        "memory": f"{memory:.0f} GiB",
        "acceleration": "software emulation (TCG)",
        "QEMU": qemu.split()[3].split("(")[0],
        "Packer": packer,
        "Python": platform.python_version(),
    }


def markdown(results: dict[str, Any]) -> str:
    """A line for each goal: median, range, and whether it holds; below it the machine."""
    lines = ["| case | goal | median | range | n | |", "|---|---|---|---|---|---|"]
    machines: dict[str, list[str]] = {}
    for case in CASES:
        if result := results.get(case.name):
            lines += [line(goal, result["values"][goal.key]) for goal in case.goals]
            about = ", ".join(f"{key} {value}" for key, value in result["machine"].items())
            machines.setdefault(f"{about}; {result['measured'][:10]}", []).append(case.name)
    for about, names in machines.items():
        of = "" if len(machines) == 1 else f" ({', '.join(names)})"
        lines += ["", f"Measured on{of}: {about}."]
    return "\n".join(lines) + "\n"


def line(goal: Goal, values: list[float]) -> str:
    """One row. Ratios get three digits, seconds and megabytes what can be told apart."""
    digits = {"": 3, "s": 2, "MB": 0}[goal.unit]
    unit = f" {goal.unit}" if goal.unit else ""
    middle, low, high = (f"{value:.{digits}f}" for value in (statistics.median(values), min(values), max(values)))
    holds = "reached" if statistics.median(values) <= goal.limit else "**missed**"
    span = f"{low}-{high}{unit}"
    return f"| {goal.title} | at most {goal.limit:g}{unit} | {middle}{unit} | {span} | {len(values)} | {holds} |"


def put(table: str, readme: Path) -> None:
    """The table between the marks of the file; exits when they are not there."""
    before, begin, rest = readme.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        sys.exit(f"{readme} does not have {BEGIN} and {END}")
    readme.write_text(f"{before}{BEGIN}\n{table}{END}{after}")


if __name__ == "__main__":
    main()
