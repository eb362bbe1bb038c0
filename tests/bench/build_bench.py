"""Times builds beside Debian's Packer: the same source image, template and acceleration, interleaved.

`python tests/bench/build_bench.py [--pairs 5] [--out FOLDER]` writes build.json and build.md. What Packer has no
counterpart for (the proof that reads the powered-off disk) is measured apart and counted in aib's total all the same.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

AIB = Path(sys.executable).parent / "aib"
SCOPE = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/aib/providers"
LONGEST = 3600
STEPS = [
    ["sudo mkdir -p /opt/app", "echo one | sudo tee /opt/app/one"],
    ["sudo install -m 0644 /tmp/payload /opt/app/payload", "sha256sum /opt/app/payload"],
    ["echo three | sudo tee /opt/app/three"],
]


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("build/bench"))
    given = parser.parse_args()
    work = given.out.absolute() / "work"
    work.mkdir(parents=True, exist_ok=True)
    bench = Bench(work)
    bench.prepare()
    measured = bench.measure(given.pairs)
    table = markdown(measured)
    (given.out / "build.json").write_text(json.dumps(measured, indent=2) + "\n")
    (given.out / "build.md").write_text(table)
    print(table)


class Bench:
    """A store with the source image, and templates on it. The store is kept: a second call starts at once."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.home = work / "home"
        self.environment = {**os.environ, "AIB_HOME": str(self.home), "NO_COLOR": "1", "CHECKPOINT_DISABLE": "1"}

    def prepare(self) -> None:
        """The source image from packages, and one uncounted build: caches that every later build has are warm."""
        (self.work / "payload").write_bytes(os.urandom(1 << 20))
        self.aib("build", self.template("warm", STEPS[:1]), "--no-cache")

    def aib(self, *words: str | Path) -> float:
        """Run `aib`, which must succeed; seconds."""
        return timed([str(AIB), *map(str, words)], self.environment)

    def record(self) -> dict[str, Any]:
        """The newest run's record."""
        runs = sorted((self.home / "runs").glob("[0-9]*"))
        loaded: dict[str, Any] = json.loads((runs[-1] / "record.json").read_text())
        return loaded

    def events(self, kind: str) -> list[dict[str, Any]]:
        """The newest run's events of one type."""
        runs = sorted((self.home / "runs").glob("[0-9]*"))
        lines = (runs[-1] / "events.jsonl").read_text().splitlines()
        return [event for event in map(json.loads, lines) if event["type"] == kind]

    def template(self, name: str, steps: list[list[str]]) -> Path:
        """Three shell steps and a file, or whatever `steps` says."""
        customize: list[dict[str, Any]] = [
            {"type": "Shell", "name": f"step {number}", "inline": lines} for number, lines in enumerate(steps)
        ]
        payload = {"type": "File", "name": "payload", "sourceUri": "payload", "destination": "/tmp/payload"}
        customize.insert(1, payload)
        body = {
            "type": "Microsoft.VirtualMachineImages/imageTemplates",
            "apiVersion": "2023-07-01",
            "location": "eastus",
            "identity": {"type": "UserAssigned", "userAssignedIdentities": {}},
            "properties": {
                "vmProfile": {"vmSize": "Standard_B1ms"},
                "source": {
                    "type": "PlatformImage", "publisher": "Debian", "offer": "debian-12", "sku": "12",
                    "version": "latest",
                },
                "customize": customize,
                "distribute": [
                    {"type": "ManagedImage", "runOutputName": name, "location": "eastus",
                     "imageId": f"{SCOPE}/Microsoft.Compute/images/{name}"},
                ],
            },
        }  # fmt: skip
        path = self.work / f"{name}.json"
        path.write_text(json.dumps(body, indent=1))
        return path

    def measure(self, pairs: int) -> dict[str, Any]:
        """All cases, `pairs` times, aib and Packer in turns."""
        rows: dict[str, list[float]] = {}

        def note(name: str, value: float) -> None:
            rows.setdefault(name, []).append(round(value, 3))

        cold = self.template("cold", STEPS)
        for number in range(pairs):
            both = [lambda: self._cold(cold, note), lambda: self._packer(cold, note)]
            for one in both if number % 2 == 0 else reversed(both):
                one()
            self._warm(number, note)
        return {"machine": machine(), "pairs": pairs, "seconds": rows}

    def _cold(self, template: Path, note: Callable[[str, float], None]) -> None:
        note("aib cold build", self.aib("build", template, "--no-cache"))
        record = self.record()
        note("aib cold boot to first command", record["bootSeconds"])
        proof = sum(phase["seconds"] for phase in record["phases"] if phase["name"] == "Inspecting")
        note("aib proof in the cold build", proof)

    def _packer(self, template: Path, note: Callable[[str, float], None]) -> None:
        folder = self.work / "packer"
        shutil.rmtree(folder, ignore_errors=True)
        self.aib("plan", template, "--packer", folder)
        exported = next(folder.rglob("*.pkr.json"), None) or next(folder.rglob("*.json"))
        command = ["packer", "build", "-color=false", "-var", "accelerator=tcg", str(exported)]
        note("Packer cold build", timed(command, {**self.environment, "PACKER_CACHE_DIR": str(folder / "cache")}))

    def _warm(self, number: int, note: Callable[[str, float], None]) -> None:
        """Six steps built once; then the last one is edited."""
        six = [[f"echo {step} | sudo tee /opt/step-{step}"] for step in range(4)]
        template = self.template("six", [*six, [f"sleep 1; echo first-{number}"]])
        self.aib("checkpoints", "remove", "--all")
        self.aib("build", template, "--until", "6")
        for event in self.events("CheckpointTaken"):
            note("pause of a checkpoint", event["seconds"])
        self.template("six", [*six, [f"sleep 1; echo edited-{number}"]])
        seconds = self.aib("build", template, "--until", "6")
        record = self.record()
        assert [step["result"] for step in record["steps"]][:6] == ["cached"] * 5 + ["succeeded"]
        note("resumed to first command", record["bootSeconds"])
        note("edit of the last of six steps, beyond the step itself", seconds - record["steps"][5]["seconds"])


def timed(command: list[str], environment: dict[str, str]) -> float:
    """Seconds that the command takes; it must succeed."""
    started = time.monotonic()
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, timeout=LONGEST)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return time.monotonic() - started


def machine() -> dict[str, str]:
    """Where this was measured."""
    packer = subprocess.run(["packer", "version"], check=True, capture_output=True, text=True).stdout.split()[1]
    qemu = subprocess.run(["qemu-system-x86_64", "--version"], check=True, capture_output=True, text=True).stdout
    return {
        "cpus": str(os.cpu_count()),
        "python": platform.python_version(),
        "packer": packer,
        "qemu": qemu.split()[3],
        "acceleration": "software emulation (TCG)",
    }


def markdown(measured: dict[str, Any]) -> str:
    """The table: medians, ranges, and the ratios that the goals are about."""
    seconds = measured["seconds"]
    lines = ["| what | median (s) | range (s) | n |", "|---|---|---|---|"]
    for name, values in seconds.items():
        lines.append(
            f"| {name} | {statistics.median(values):.2f} | {min(values):.2f}-{max(values):.2f} | {len(values)} |"
        )
    cold = [a / b for a, b in zip(seconds["aib cold build"], seconds["Packer cold build"], strict=True)]
    pairs = zip(seconds["resumed to first command"], seconds["aib cold boot to first command"], strict=True)
    lines += [
        "",
        f"- cold build, aib to Packer: {statistics.median(cold):.2f} ({min(cold):.2f}-{max(cold):.2f})",
        f"- first command, resumed to cold: {statistics.median(a / b for a, b in pairs):.3f}",
        f"- measured on: {', '.join(f'{key} {value}' for key, value in measured['machine'].items())}",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
